"""The settings of a release, its `config.json`: one schema, read before any network is built.

    ReleaseConfig.read(folder)      .write(folder)      .from_dict(values)      .to_dict()

Every value has a type and a range, checked whenever a config is made; unknown, missing and repeated
names are errors, each one line that names the value and the remedy. The classes of the networks
hold the arguments of the Flax modules: `Denoiser(**config.denoiser.to_dict())`.
"""

import dataclasses
import difflib
import json
import os
import pathlib
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from realaudio_jax.integrity import update_manifest
from realaudio_jax.io import atomic_path
from realaudio_jax.timeline import CURVES
from realaudio_jax.typing import LATENT_CHANNELS

FORMAT_VERSION = 1
CONFIG_NAME = 'config.json'
REMEDY = 'get the release again or save it anew'
MAX_STEPS = 1_000  # of a sampler
_MAX_BYTES = 100_000  # of the file
_VERSION_KEY = 'format_version'
Number = int | float


def _number(kind: type, low: Number, high: Number, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={'kind': kind, 'range': (low, high)})


def _whole(low: int, high: int, default: Any = dataclasses.MISSING) -> Any:
    return _number(int, low, high, default)


def _real(low: Number, high: Number, default: Any = dataclasses.MISSING) -> Any:
    return _number(float, low, high, default)


def _part(section: type, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={'section': section})


@typing.no_type_check  # its own errors are clearer than those of a type checker
@dataclasses.dataclass(frozen=True)
class _Section:
    """A part of a config.

    Raises:
        ValueError: a value of the wrong type or out of its range.
    """

    place: ClassVar[str] = ''  # before the names in messages, such as 'denoiser.'

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if 'kind' in field.metadata and not (value is None and field.default is None):
                kind, bounds = field.metadata['kind'], field.metadata['range']
                self._set(field.name, self._check_number(field.name, value, kind, *bounds))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_number(self, name: str, value: Any, kind: type, low: Number, high: Number) -> Any:
        right = isinstance(value, (int, float) if kind is float else int)
        if isinstance(value, bool) or not right or not low <= value <= high:  # NaN compares false
            what = 'whole number' if kind is int else 'number'
            self._refuse(name, value, f'give a {what} from {low:g} to {high:g}')
        return kind(value)

    def _refuse(self, name: str, value: Any, remedy: str) -> typing.NoReturn:
        shown = f'"{value[:40]}"' if isinstance(value, str) else str(value)[:40]
        raise ValueError(f'{self.place}{name} is {shown}: {remedy}')

    @classmethod
    def from_dict(cls, values: Any) -> Any:
        """The config from what JSON holds.

        Raises:
            ValueError: a name that is not known or is missing, a wrong type, a value out of range.
        """
        if not isinstance(values, Mapping):
            name = cls.place.rstrip('.') or 'the config'
            raise ValueError(f'{name} is {str(values)[:40]}: give names and values')
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                close = difflib.get_close_matches(str(name), fields, n=1, cutoff=0.5)
                remedy = f'did you mean {close[0]!r}?' if close else f'known: {", ".join(fields)}'
                raise ValueError(f'{cls.place}{str(name)[:40]} is not a setting; {remedy}')
        for name, field in fields.items():
            required = field.default is field.default_factory is dataclasses.MISSING
            if required and name not in values:
                raise ValueError(f'{cls.place}{name} is missing; add it')
        return cls(**{name: _from_json(fields[name], value) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold, and what the module takes as arguments; without what is None."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: value.to_dict() if isinstance(value, _Section) else value
            for name, value in values.items()
            if value is not None
        }


@dataclasses.dataclass(frozen=True)
class DecoderConfig(_Section):
    """Arguments of `models.autoencoder.Decoder`."""

    place: ClassVar[str] = 'autoencoder.decoder.'
    width: int = _whole(0, 16_384, 384)
    blocks: int = _whole(0, 64, 3)
    directions: int = _whole(1, 1_024, 512)


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig(_Section):
    """Arguments of `models.autoencoder.Autoencoder`."""

    place: ClassVar[str] = 'autoencoder.'
    decoder: DecoderConfig = _part(DecoderConfig, DecoderConfig())
    channels: int = _whole(1, 1_024, LATENT_CHANNELS)


@dataclasses.dataclass(frozen=True)
class DenoiserConfig(_Section):
    """Arguments of `models.denoiser.Denoiser`."""

    place: ClassVar[str] = 'denoiser.'
    width: int = _whole(2, 16_384, 256)
    depth: int = _whole(1, 128, 5)
    heads: int = _whole(1, 256, 4)
    expansion: float = _real(0.125, 16.0, 2.0)
    dtype: str | None = None
    curves: tuple[str, ...] = ()
    channels: int = _whole(1, 1_024, LATENT_CHANNELS)

    def __post_init__(self):
        super().__post_init__()
        self._set('curves', self._check_curves(self.curves))
        if self.width % (2 * self.heads):
            self._refuse('width', self.width, f'give a multiple of {2 * self.heads}, twice heads')
        kinds = (None, 'float32', 'bfloat16', 'float16')
        if self.dtype not in kinds:
            self._refuse('dtype', self.dtype, f'give one of {", ".join(kinds[1:])}, or null')

    def _check_curves(self, names: Any) -> tuple[str, ...]:
        listed = isinstance(names, (list, tuple)) and all(isinstance(n, str) for n in names)
        if not listed or len(set(names)) < len(names) or not set(names) <= set(CURVES):
            self._refuse('curves', names, f'give a list of {", ".join(CURVES)}, each once')
        return tuple(names)

    def to_dict(self) -> dict[str, Any]:
        """What JSON holds; no curves where there are none."""
        values = super().to_dict()
        return values if self.curves else {k: v for k, v in values.items() if k != 'curves'}


@dataclasses.dataclass(frozen=True)
class AudioTowerConfig(_Section):
    """Arguments of `models.audio_tower.AudioTower`."""

    place: ClassVar[str] = 'audio_tower.'
    width: int = _whole(1, 8_192, 192)
    blocks: int = _whole(0, 64, 2)
    deep_width: int = _whole(1, 8_192, 288)
    deep_blocks: int = _whole(0, 64, 3)
    head_width: int = _whole(1, 8_192, 512)
    patch: int = _whole(1, 50, 10)

    def __post_init__(self):
        super().__post_init__()
        if 100 % (2 * self.patch):
            self._refuse('patch', self.patch, 'give one of 1, 2, 5, 10, 25, 50')


@dataclasses.dataclass(frozen=True)
class StudentConfig(_Section):
    """What a student was trained for, and its defaults.

    Attributes:
        steps: counts of sampler steps.
        guidance_range: least and greatest guidance scale.
        guidance: default guidance scale; None: that of the release.
        teacher_adapter: scale of its teacher's adapter in its weights, see
            `release.load_denoiser_and_adapter`.
        grid_powers: (steps, power) of time grids that are not even, see `noise.time_grid`; in
            JSON a mapping.
    """

    place: ClassVar[str] = 'student.'
    steps: tuple[int, ...]
    guidance_range: tuple[float, float]
    guidance: float | None = _real(0.0, 100.0, None)
    teacher_adapter: float | None = _real(-10.0, 10.0, None)
    grid_powers: tuple[tuple[int, float], ...] = ()

    def __post_init__(self):
        super().__post_init__()
        self._set('steps', self._check_steps(self.steps))
        self._set('guidance_range', self._check_range(self.guidance_range))
        self._set('grid_powers', self._check_powers(self.grid_powers))
        low, high = self.guidance_range
        if self.guidance is not None and not low <= self.guidance <= high:
            self._refuse('guidance', self.guidance, f'give {low:g} to {high:g}, its range')

    def _check_steps(self, counts: Any) -> tuple[int, ...]:
        if not isinstance(counts, (tuple, list)) or not counts:
            self._refuse('steps', counts, 'give a list of counts, such as [1, 2, 4]')
        counts = tuple(self._check_number('steps', n, int, 1, MAX_STEPS) for n in counts)
        if len(set(counts)) < len(counts):
            self._refuse('steps', list(counts), 'give each count once')
        return counts

    def _check_range(self, scales: Any) -> tuple[float, float]:
        if not isinstance(scales, (tuple, list)) or len(scales) != 2:
            self._refuse('guidance_range', scales, 'give two numbers, such as [1, 4]')
        low, high = (self._check_number('guidance_range', x, float, 0, 100) for x in scales)
        if low > high:
            self._refuse('guidance_range', list(scales), 'give the least one first')
        return low, high

    def _check_powers(self, powers: Any) -> tuple[tuple[int, float], ...]:
        if isinstance(powers, Mapping):
            powers = [(_count(name), power) for name, power in powers.items()]
        pairs = isinstance(powers, (tuple, list)) and all(
            isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in powers
        )
        if not pairs:
            self._refuse('grid_powers', powers, 'give a power for counts, such as {"4": 2}')
        for count, _ in powers:
            if count not in self.steps:
                self._refuse('grid_powers', count, f'name one of the steps {list(self.steps)}')
        return tuple(
            (count, self._check_number(f'grid_powers.{count}', power, float, 0.1, 10))
            for count, power in powers
        )

    def to_dict(self) -> dict[str, Any]:
        """What JSON holds; grid powers as a mapping."""
        powers = {str(count): power for count, power in self.grid_powers}
        known = super().to_dict()
        del known['grid_powers']
        return known | ({'grid_powers': powers} if powers else {})


@dataclasses.dataclass(frozen=True)
class TeacherConfig(_Section):
    """Defaults of sampling the teacher."""

    place: ClassVar[str] = 'teacher.'
    steps: int = _whole(1, MAX_STEPS, 50)


@dataclasses.dataclass(frozen=True)
class _File(_Section):
    """A whole config.json."""

    @classmethod
    def read(cls, folder: str | os.PathLike) -> Any:
        """Reads the `config.json` of a folder.

        Raises:
            FileNotFoundError: there is no such folder, or no `config.json` in it.
            ValueError: no JSON object of the schema, or of a format that this code does not know.
        """
        path = pathlib.Path(folder) / CONFIG_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f'no release at {folder}: it has no {CONFIG_NAME}; check the name or get it again'
            )
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f'{path} is damaged (over {_MAX_BYTES:,} bytes); {REMEDY}')
        try:
            values = json.loads(
                path.read_text(encoding='utf-8'),
                object_pairs_hook=_unique,
                parse_constant=_no_constant,
            )
        except (ValueError, RecursionError) as error:  # bad JSON and bad UTF-8 alike
            reason = str(error).splitlines()[0][:80]
            raise ValueError(f'{path} is damaged ({reason}); {REMEDY}') from error
        version = values.pop(_VERSION_KEY, None) if isinstance(values, dict) else None
        if not isinstance(version, int) or isinstance(version, bool):
            raise ValueError(f'{path} states no {_VERSION_KEY}; {REMEDY}')
        if not 1 <= version <= FORMAT_VERSION:
            raise ValueError(
                f'{path} has {_VERSION_KEY} {str(version)[:20]}, this code reads up to '
                f'{FORMAT_VERSION}; upgrade realaudio_jax'
            )
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error

    def write(self, folder: str | os.PathLike) -> None:
        """Writes `config.json`, whole or not at all, and lists it in the folder's manifest.

        Args:
            folder: made if it is missing.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        values = self.to_dict() | {_VERSION_KEY: FORMAT_VERSION}
        text = json.dumps(values, indent=2, allow_nan=False)
        with atomic_path(pathlib.Path(folder) / CONFIG_NAME) as temporary:
            temporary.write_text(text + '\n', encoding='utf-8')
        update_manifest(folder, CONFIG_NAME)


@dataclasses.dataclass(frozen=True)
class ReleaseConfig(_File):
    """A release: its networks and how they are used.

    Attributes:
        denoiser, autoencoder, audio_tower: arguments of the modules; no tower: None.
        student, teacher: what they were trained for and how they are sampled.
        guidance: default guidance scale.
        name: what results call it.
        sample_rate: Hz of its training sounds.
        onset_lead_s: onset compensation: seconds by which its sounds begin early, and by which
            onsets are requested later.
    """

    denoiser: DenoiserConfig = _part(DenoiserConfig)
    student: StudentConfig = _part(StudentConfig)
    autoencoder: AutoencoderConfig = _part(AutoencoderConfig, AutoencoderConfig())
    teacher: TeacherConfig = _part(TeacherConfig, TeacherConfig())
    guidance: float = _real(0.0, 100.0, 2.0)
    name: str = ''
    sample_rate: int = _whole(48_000, 48_000, 48_000)
    audio_tower: AudioTowerConfig | None = _part(AudioTowerConfig, None)
    onset_lead_s: float = _real(0.0, 0.5, 0.0)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.name, str) or len(self.name) > 100 or not self.name.isprintable():
            self._refuse('name', self.name, 'give up to 100 printable characters')
        wanted = self.autoencoder.channels
        if self.denoiser.channels != wanted:
            remedy = f'give {wanted}, the channels of the autoencoder'
            self._refuse('denoiser.channels', self.denoiser.channels, remedy)

    def default_guidance_scale(self, model: str) -> float:
        """Guidance scale of 'student' or 'teacher' where none is given."""
        own = self.student.guidance if model == 'student' else None
        return self.guidance if own is None else own

    @classmethod
    def of(cls, config: 'ReleaseConfig | Mapping[str, Any]') -> 'ReleaseConfig':
        """A config from one, or from a mapping of its JSON."""
        return config if isinstance(config, cls) else cls.from_dict(config)


@dataclasses.dataclass(frozen=True)
class PretrainedStudentConfig(_File):
    """The config of a student of a pretrained teacher: its teacher, and its training."""

    teacher: str
    student: StudentConfig = _part(StudentConfig)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.teacher, str):
            self._refuse('teacher', self.teacher, 'give the name of a pretrained teacher')


def _from_json(field: dataclasses.Field, value: Any) -> Any:
    section = field.metadata.get('section')
    if section is None or (value is None and field.default is None):
        return value
    return value if isinstance(value, section) else section.from_dict(value)


def _count(name: Any) -> int:
    """A count of steps that is the name of a value, as JSON has it."""
    text = str(name)
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise ValueError(f'student.grid_powers names {text[:40]!r}: name a count of steps')
    return int(text)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = next(name for name in values if [n for n, _ in pairs].count(name) > 1)
        raise ValueError(f'{repeated[:40]!r} is given twice')
    return values


def _no_constant(text: str) -> typing.NoReturn:
    raise ValueError(f'{text} is no number of JSON')
