"""TensorFlow Datasets builders that need no TensorFlow: scenes stored as array_record files.

    builder = FoleyScenes(count=1000, seconds=5.0)
    examples = prepared(builder, 'train')  # random access, for loader.batches

An example is audio int16 [S, 2] at 48 kHz, caption (bytes), seconds, and events: lists of text
(bytes), onset_s, offset_s and gain_db. Where data lies depends on the arguments, so changed
arguments never find old data.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from realaudio_jax import processes
from realaudio_jax.audio import from_pcm16, to_pcm16
from realaudio_jax.cache import cache_dir
from realaudio_jax.data import foley, label_text, layouts
from realaudio_jax.data.cache import SceneSet, cache_key
from realaudio_jax.data.datasets import MixedScenes
from realaudio_jax.data.loader import as_text
from realaudio_jax.data.recordings_table import require_within, stays_within, table_lines
from realaudio_jax.data.scenes import Scene, SceneConfig, make_scenes
from realaudio_jax.data.sources import FoleySource, MixedSource, Recordings, Source, is_held_out
from realaudio_jax.sound_files import SUFFIXES, find_sounds, read_audio
from realaudio_jax.timeline import Event, Timeline
from realaudio_jax.typing import MAX_SECONDS, MIN_SECONDS, SAMPLE_RATE

Example = dict[str, Any]


def prepared(builder: tfds.core.DatasetBuilder, split: str = 'train') -> Any:
    """Generates the data of a builder where that is still to be done, and opens one split.

    Args:
        builder: one of this module.
        split: 'train', or what else the builder has ('held_out').

    Returns:
        a random-access sequence of examples.
    """
    processes.first_then_all(builder.download_and_prepare, 'dataset')
    return builder.as_data_source(split)


def to_example(audio: np.ndarray, caption: str, events: Iterable[Event]) -> Example:
    """The stored form of a scene; see the module."""
    return {
        'audio': to_pcm16(audio),
        'caption': caption,
        'seconds': len(audio) / SAMPLE_RATE,
        'events': [
            {'text': e.text, 'onset_s': e.onset_s, 'offset_s': e.offset_s, 'gain_db': e.gain_db}
            for e in events
        ],
    }


class _StoredScenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the builders share: the form of an example, and a folder named after the arguments."""

    VERSION = tfds.core.Version('1.0.0')
    # TFDS looks beside the code for checksums of downloads, for which it needs one more package;
    # nothing is downloaded here
    code_path = None

    def __init__(self, settings: dict[str, Any], data_dir: str | Path | None, **kwargs: Any):
        config = tfds.core.BuilderConfig(name=cache_key('scenes', **settings), version=self.VERSION)
        data_dir = str(data_dir or cache_dir() / 'tfds')
        kwargs = {'file_format': 'array_record', **kwargs}
        super().__init__(config=config, data_dir=data_dir, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features
        # bytes: as numbers, TFDS stores 16-bit samples as 64-bit ones of varying length
        pcm = features.Tensor(
            shape=(None, 2), dtype=np.int16, encoding=tfds.features.Encoding.BYTES
        )
        number = np.float32
        events = {'text': features.Text(), 'onset_s': number, 'offset_s': number, 'gain_db': number}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=features.FeaturesDict(
                {
                    'audio': pcm,
                    'caption': features.Text(),
                    'seconds': number,
                    'events': features.Sequence(events),
                }
                | self._more_features()
            ),
            disable_shuffling=True,  # the order of generation; the loader shuffles
        )

    def _more_features(self) -> dict[str, Any]:
        return {}

    def _generate_examples(self, scenes: Iterable[Scene]) -> Iterator[tuple[int, Example]]:
        for i, scene in enumerate(scenes):
            yield i, to_example(scene.audio, scene.caption, scene.events)


class FoleyScenes(_StoredScenes):
    """Scenes of procedural foley: split 'train' of `count` scenes, 'held_out' of a tenth of that.

    Args:
        count: scenes in 'train'.
        seconds: of each scene.
        seed: scene i is a function of (seed, i).
        config: what scenes are drawn from.
        data_dir: where the files go; None is the cache folder.
    """

    def __init__(
        self,
        count: int = 1000,
        seconds: float = MAX_SECONDS,
        seed: int = 0,
        config: SceneConfig | None = None,
        data_dir: str | Path | None = None,
        **kwargs: Any,
    ):
        self._made = (count, seconds, seed, config or SceneConfig())
        settings = {'count': count, 'seconds': seconds, 'seed': seed, 'config': str(self._made[3])}
        settings['foley'] = foley.VERSION
        super().__init__(settings | self._more_settings(), data_dir, **kwargs)

    def _more_settings(self) -> dict[str, Any]:
        return {}

    def _sources(self) -> tuple[Source, Source]:
        return FoleySource('train'), FoleySource('held_out')

    def _split_generators(self, _: Any) -> dict[str, Iterator]:
        count, seconds, seed, config = self._made
        train, held_out = self._sources()
        few = max(1, count // 10)
        return {
            'train': self._generate_examples(make_scenes(seed, train, count, seconds, config)),
            'held_out': self._generate_examples(
                make_scenes(seed + 1_000_003, held_out, few, seconds, config)
            ),
        }


class RecordedScenes(FoleyScenes):
    """Scenes of recordings, of which those in split 'held_out' are never heard in 'train'.

    Args:
        folder: recordings with metadata.csv; see `sources.Recordings`.
        foley_weight: share of procedural sounds mixed among the recordings, in [0, 1).
        cache_dir: where decoded recordings are kept.
        kwargs: as of `FoleyScenes`.
    """

    def __init__(
        self,
        folder: str | Path,
        foley_weight: float = 0.0,
        cache_dir: str | Path | None = None,
        **kwargs: Any,
    ):
        if not 0.0 <= foley_weight < 1.0:
            raise ValueError(f'foley_weight {foley_weight} is not in [0, 1)')
        self._recordings = [Recordings(folder, s, cache_dir) for s in ('train', 'held_out')]
        self._foley_weight = foley_weight
        super().__init__(**kwargs)

    def _more_settings(self) -> dict[str, Any]:
        files = [record.file for part in self._recordings for record in part.clips]
        return {'files': files, 'foley_weight': self._foley_weight}

    def _sources(self) -> tuple[Source, Source]:
        if not self._foley_weight:
            return self._recordings[0], self._recordings[1]
        weights = (1.0 - self._foley_weight, self._foley_weight)
        train, held_out = (
            MixedSource((recordings, FoleySource(recordings.split)), weights)
            for recordings in self._recordings
        )
        return train, held_out


class AudioFolder(_StoredScenes):
    """The user's own files: one split 'train', long files in parts of at most `seconds`.

    Captions come from captions.csv (columns file, caption), captions.jsonl (objects with file,
    caption and perhaps events, in any form `Timeline.parse` takes), or, failing both, from the file
    names.

    Args:
        folder: WAV, FLAC, OGG or MP3 files at any depth.
        seconds: longest example.
        data_dir: where the stored examples go; None is the cache folder.
        log: takes one line for each file that is converted or left out.

    Raises:
        ValueError: no sound files, or a captions file that cannot be used; names the line.
        FileNotFoundError: no such folder.
    """

    def __init__(
        self,
        folder: str | Path,
        seconds: float = MAX_SECONDS,
        data_dir: str | Path | None = None,
        log: Callable[[str], None] | None = None,
        **kwargs: Any,
    ):
        self._folder, self._seconds, self._log = Path(folder), seconds, log or logging.warning
        self._captions = read_captions(self._folder)
        stats = [(name, (self._folder / name).stat().st_size) for name in sorted(self._captions)]
        settings = {'files': stats, 'captions': self._captions, 'seconds': seconds}
        super().__init__(settings, data_dir, **kwargs)

    def _split_generators(self, _: Any) -> dict[str, Iterator]:
        return {'train': self._generate_examples(self._parts())}

    def _parts(self) -> Iterator[Scene]:
        step = round(self._seconds * SAMPLE_RATE)
        for name, (caption, spec) in sorted(self._captions.items()):
            try:
                audio = read_audio(self._folder / name, SAMPLE_RATE, log=self._log)
                length = len(audio) / SAMPLE_RATE
                events = Timeline.parse(spec, length).events if spec else ()
            except ValueError as error:
                self._log(f'{self._folder / name}: left out, {error}')
                continue
            for start in range(0, len(audio), step):
                part = audio[start : start + step]
                if start and len(part) < MIN_SECONDS * SAMPLE_RATE:
                    continue
                kept = shifted(events, start / SAMPLE_RATE, len(part) / SAMPLE_RATE)
                yield Scene(part, caption, kept, (), len(part) / SAMPLE_RATE, None)


class _Published(_StoredScenes):
    """A published dataset, read from a local folder in its own layout; see `layouts`.

    Splits are 'train' and 'held_out', by the dataset's own division: the last fold of ESC-50 and
    UrbanSound8K, validation, test and evaluation of the others, a tenth by name in WavCaps. An
    example has, besides what every builder gives, all captions and labels, the subset by its own
    name, the licence, and the file.

    Args:
        folder: of the dataset; nothing is downloaded.
        seconds: longer sounds are cut to this.
        data_dir: where the stored examples go; None is the cache folder.
        log: takes one line for what is not there or cannot be read.

    Raises:
        ValueError: the folder is no such dataset, or lacks a part of it; names the remedy.
    """

    layout: str

    def __init__(
        self,
        folder: str | Path,
        seconds: float = 30.0,
        data_dir: str | Path | None = None,
        log: Callable[[str], None] | None = None,
        **kwargs: Any,
    ):
        self._log, self._seconds = log or logging.warning, seconds
        self._home, self._rows = layouts.read(folder, self._log, self.layout)
        sizes = [(self._home / row['file']).stat().st_size for row in self._rows]
        super().__init__(
            {'rows': self._rows, 'sizes': sizes, 'seconds': seconds}, data_dir, **kwargs
        )

    def _more_features(self) -> dict[str, Any]:
        text = tfds.features.Text()
        several = {name: tfds.features.Sequence(text) for name in ('captions', 'labels')}
        return several | dict.fromkeys(('subset', 'licence', 'file'), text)

    def _split_generators(self, _: Any) -> dict[str, Iterator]:
        parts: dict[str, list[layouts.Row]] = {}
        for row in self._rows:
            held_out = is_held_out(row['take']) if not row['split'] else row['split'] == 'held_out'
            parts.setdefault('held_out' if held_out else 'train', []).append(row)
        return {split: self._generate_examples(rows) for split, rows in sorted(parts.items())}

    def _generate_examples(self, rows: Iterable[layouts.Row]) -> Iterator[tuple[int, Example]]:
        for i, row in enumerate(rows):
            try:
                audio = read_audio(self._home / row['file'], SAMPLE_RATE)
            except ValueError as error:
                self._log(f'{self._home / row["file"]}: left out, {error}')
                continue
            caption = (*row['captions'], *row['labels'])[0]
            own = {name: row[name] for name in ('subset', 'licence', 'file')}
            own |= {name: list(row[name]) for name in ('captions', 'labels')}
            yield i, to_example(audio[: round(self._seconds * SAMPLE_RATE)], caption, ()) | own


class Esc50(_Published):
    __doc__ = _Published.__doc__
    layout = 'ESC-50'


class UrbanSound8K(_Published):
    __doc__ = _Published.__doc__
    layout = 'UrbanSound8K'


class Fsd50k(_Published):
    __doc__ = _Published.__doc__
    layout = 'FSD50K'


class Clotho(_Published):
    __doc__ = _Published.__doc__
    layout = 'Clotho'


class AudioCaps(_Published):
    __doc__ = _Published.__doc__
    layout = 'AudioCaps'


class WavCaps(_Published):
    __doc__ = _Published.__doc__
    layout = 'WavCaps'


class StoredMixedScenes(MixedScenes):
    """The dataset `tfds` of a config: `MixedScenes` kept as a TensorFlow dataset, and read from it.

    The scenes are those of `FoleyScenes` or `RecordedScenes`, in 16 bits, and other programs can
    open them. Recordings are unmixed as in `MixedScenes`.
    """

    def mixed(
        self, split: str, count: int, seconds: float, seed: int, workers: int = 0
    ) -> SceneSet:
        """See `MixedScenes.mixed`; one process mixes.

        A builder has a tenth as many held-out scenes as scenes to train on, so `count` held-out
        ones belong to ten times as many.
        """
        del workers
        settings: dict[str, Any] = {'seconds': seconds, 'seed': seed}
        settings['count'] = count if split == 'train' else 10 * count
        if self.recordings and self.foley_weight < 1:
            builder = RecordedScenes(self.recordings, self.foley_weight, **settings)
        else:
            builder = FoleyScenes(**settings)
        digest = cache_key('tfds', data=str(builder.builder_config.name), split=split, count=count)
        return SceneSet(_stored(builder, split), count, seconds, digest)


def _stored(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[Scene]:
    """The scenes of a builder; made when the first one is asked for."""
    for example in prepared(builder, split):
        stored = example['events']
        events = zip(
            map(as_text, stored['text']),
            *(map(float, stored[name]) for name in ('onset_s', 'offset_s', 'gain_db')),
            strict=True,
        )
        yield Scene(
            from_pcm16(np.asarray(example['audio'])),
            as_text(example['caption']),
            tuple(Event(*each) for each in events),
            (),
            float(example['seconds']),
            None,
        )


def shifted(events: Iterable[Event], start_s: float, seconds: float) -> tuple[Event, ...]:
    """The events of the part of a timeline that begins at `start_s`, clipped to `seconds`."""
    inside = (e for e in events if e.offset_s > start_s and e.onset_s < start_s + seconds)
    return tuple(
        Event(e.text, max(0.0, e.onset_s - start_s), min(seconds, e.offset_s - start_s), e.gain_db)
        for e in inside
    )


def read_captions(folder: Path) -> dict[str, tuple[str, Any]]:
    """File name -> (caption, events or None) for a folder of sounds; see `AudioFolder`."""
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder {folder}; name a folder of sound files')
    table, lines = folder / 'captions.csv', folder / 'captions.jsonl'
    if table.is_file():
        lines_of_table = table_lines(table)
        header = next(lines_of_table, (1, []))[1]
        rows = [dict(zip(header, row, strict=False)) for _, row in lines_of_table if row]
        source = table
    elif lines.is_file():
        source, rows = lines, []
        for number, line in enumerate(lines.read_text(encoding='utf-8').splitlines(), 1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                raise ValueError(f'{lines}: line {number} is not JSON ({error.msg})') from error
    else:
        files = find_sounds(folder).sounds
        if not files:
            raise ValueError(f'{folder}: no sound files ({", ".join(SUFFIXES)})')
        return {
            p.relative_to(folder).as_posix(): (label_text.from_name(p.stem), None) for p in files
        }
    captions = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not row.get('file') or not row.get('caption'):
            raise ValueError(f'{source}: entry {number} needs a file and a caption')
        require_within(str(row['file']), f'{source}: entry {number}')
        if not (folder / row['file']).is_file():
            raise ValueError(f'{source}: entry {number} names {row["file"]}, which is not there')
        if not stays_within(folder / row['file'], folder):
            raise ValueError(
                f'{source}: entry {number} names {row["file"]}, a link out of it; copy it in'
            )
        captions[row['file']] = (str(row['caption']), row.get('events') or None)
    if not captions:
        raise ValueError(f'{source}: no entries')
    return captions
