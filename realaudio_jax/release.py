"""Reads a release: its files are found, checked against their digests, and loaded strictly.

A release is a folder:

    config.json                 see `release_config.ReleaseConfig`
    SHA256SUMS                  digests of the files that are read, see `integrity`
    text_encoder.safetensors    tokenizer.json
    autoencoder.safetensors     teacher.safetensors     student.safetensors
    audio_tower.safetensors     optional: the release's own embedder for metrics
    teacher_adapter.safetensors student_adapter.safetensors     optional: low-rank adapters
    student_moments.safetensors optional: moment matching of the student, by count of steps
    vocabulary.safetensors      optional: labels of its training sounds, see `vocabulary`
    README.md                   the model card

Parameters are safetensors files, which hold no code. A parameter's name is its path in the tree
joined by '/', as in `encoder/norm/bias`. Floats are stored as float32, float16, bfloat16, or as
int8 or int4 with a float32 scale `<name>.scale`, see `packing`, which writes these files.
"""

import json
import os
import pathlib
import warnings
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from flax.traverse_util import unflatten_dict

from realaudio_jax import by_name, integrity, low_rank
from realaudio_jax.models import text_encoder as text_lib
from realaudio_jax.models.autoencoder import Autoencoder, samples_per_latent
from realaudio_jax.models.denoiser import Conditioning, Denoiser
from realaudio_jax.quantisation import expand_scale, unpack_int4
from realaudio_jax.release_config import CONFIG_NAME, REMEDY, AutoencoderConfig, ReleaseConfig
from realaudio_jax.trees import initial_shapes, named_leaves
from realaudio_jax.typing import (
    LATENT_CHANNELS,
    LATENT_RATE,
    MAX_EVENTS,
    MAX_TEXT_TOKENS,
    SAMPLE_RATE,
    TEXT_WIDTH,
    PyTree,
)

RELEASES = pathlib.Path(__file__).parent / 'releases'
AUTOENCODER_NAME = 'autoencoder.safetensors'
AUTOENCODER_KEY = 'autoencoder'  # of a trained one's metadata: the module's arguments as JSON
STUDENT_NAME = 'student.safetensors'
TEACHER_NAME = 'teacher.safetensors'
MOMENTS_NAME = 'student_moments.safetensors'
TOWER_NAME = 'audio_tower.safetensors'
VOCABULARY_NAME = 'vocabulary.safetensors'
# What fetches a release, by the scheme of its name; loaded where one is named so.
FETCHERS = {scheme: 'realaudio_jax.weights:fetch' for scheme in ('hf', 'https', 'http')}
SCALE_SUFFIX = '.scale'  # no parameter's own name may end so
_LISTED = 10  # problems that a message lists; it counts the others
VERIFY_REMEDY = (
    'get the release again (where it came by name, remove that folder first), or remove '
    f'{integrity.MANIFEST_NAME} if the change is yours'
)


def find_release(name: str | os.PathLike) -> pathlib.Path:
    """The folder of a release: shipped, by path, or fetched by its name, see `weights`.

    Raises:
        FileNotFoundError: none of these; the message lists the shipped ones.
        ValueError, weights.FetchError: as `weights.fetch`.
    """
    scheme = str(name).partition('://')[0]
    if scheme in FETCHERS and '://' in str(name):
        return by_name.find(scheme, FETCHERS)(str(name))
    for folder in (pathlib.Path(name), RELEASES / str(name)):
        if (folder / 'config.json').is_file():
            return folder
    shipped = sorted(p.parent.name for p in RELEASES.glob('*/config.json'))
    raise FileNotFoundError(
        f'no release {str(name)!r}: neither a folder with a config.json nor one of the shipped '
        f'({", ".join(shipped) or "none"})'
    )


def adapter_name(name: str) -> str:
    """Name of the file that may hold a network's low-rank adapter."""
    return name.replace('.safetensors', '_adapter.safetensors')


GENERATOR_FILES = (
    text_lib.WEIGHTS_NAME,
    text_lib.TOKENIZER_NAME,
    AUTOENCODER_NAME,
    *(TEACHER_NAME, STUDENT_NAME, adapter_name(TEACHER_NAME), adapter_name(STUDENT_NAME)),
    MOMENTS_NAME,
    VOCABULARY_NAME,
)


def read_release(folder: str | os.PathLike, *names: str) -> ReleaseConfig:
    """Verifies the files of a release against its manifest and reads its config.

    A release without a manifest is taken as it is, with a warning.

    Args:
            folder: of the release.
            names: the files that will be read besides its config; none: those of a `Generator`.

    Raises:
            FileNotFoundError: there is no such release.
            ValueError: a file is damaged, missing, another one or not listed; a bad config.
    """
    if not integrity.verify(folder, {CONFIG_NAME, *(names or GENERATOR_FILES)}, VERIFY_REMEDY):
        warnings.warn(
            f'{folder} has no {integrity.MANIFEST_NAME}: damage to its files may go unnoticed',
            stacklevel=2,
        )
    return ReleaseConfig.read(folder)


def load_denoiser(folder: pathlib.Path, name: str, shapes: PyTree) -> PyTree:
    """A release's teacher or student, with its adapter merged where there is one."""
    return low_rank.merge(*load_denoiser_and_adapter(folder, name, shapes))


def load_denoiser_and_adapter(
    folder: pathlib.Path, name: str, shapes: PyTree
) -> tuple[PyTree, PyTree | None]:
    """A release's teacher or student and, separately, its adapter or None.

    A student may also contain its teacher's adapter, scaled by `student.teacher_adapter` of
    config.json: the teacher's later training is added to the student's weights (task arithmetic,
    Ilharco et al. 2022, arXiv 2212.04089).

    Args:
        folder: of the release.
        name: TEACHER_NAME or STUDENT_NAME.
        shapes: see `denoiser_template`.

    Raises:
        FileNotFoundError, ValueError: as `load_params`, and for an adapter that does not fit.
    """
    params, own = load_params(folder / name, shapes), folder / adapter_name(name)
    share = ReleaseConfig.read(folder).student.teacher_adapter if name == STUDENT_NAME else None
    if share:
        shared = _read_adapter(folder / adapter_name(TEACHER_NAME), params)
        params = low_rank.add(params, shared, share)
    return params, _read_adapter(own, params) if own.is_file() else None


def load_moments(folder: pathlib.Path) -> PyTree:
    """Moment-matching gains and shifts of a release's student: {steps: {'gain', 'shift': [C]}}.

    Empty where the release has none; else there are some for each of the student's counts.

    Raises:
        ValueError: as `load_params`.
    """
    if not (folder / MOMENTS_NAME).is_file():
        return {}
    config = ReleaseConfig.read(folder)
    channel = jax.ShapeDtypeStruct((config.denoiser.channels,), np.float32)
    shapes = {str(steps): {'gain': channel, 'shift': channel} for steps in config.student.steps}
    return load_params(folder / MOMENTS_NAME, shapes)


def _read_adapter(path: pathlib.Path, params: PyTree) -> PyTree:
    """An adapter that fits these parameters."""
    tensors = read_tensors(path)
    outer = {name[:i] for name in tensors for i, c in enumerate(name) if c == '/'}
    if both := sorted(outer & set(tensors)):
        raise ValueError(f'{path}: {both[0]} is an array and holds others; {REMEDY}')
    adapter = jax.tree.map(jnp.asarray, unflatten_dict(tensors, sep='/'))
    try:
        jax.eval_shape(low_rank.add, params, adapter)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    return adapter


def autoencoder_template(model: Autoencoder) -> PyTree:
    """Parameter shapes of an autoencoder."""
    audio = jax.ShapeDtypeStruct((1, 2 * samples_per_latent(SAMPLE_RATE), 2), np.float32)
    noise = jax.ShapeDtypeStruct((1, 2, model.channels), np.float32)
    return initial_shapes(model, audio, noise, sample_rate=SAMPLE_RATE)


def load_autoencoder(
    release: str | os.PathLike, path: str | os.PathLike | None = None
) -> tuple[AutoencoderConfig, PyTree]:
    """Arguments and parameters of a release's autoencoder, or of another one.

    Args:
        release: name or folder.
        path: a file of `experiments.train_autoencoder`, which states its own size; one that states
            none has that of the release. None: the release's own.

    Raises:
        FileNotFoundError, ValueError: as `read_release` and `load_params`.
    """
    folder = find_release(release)
    config = read_release(folder, *(() if path else (AUTOENCODER_NAME,))).autoencoder
    stated = read_metadata(path).get(AUTOENCODER_KEY) if path else None
    if stated:
        config = AutoencoderConfig.from_dict(json.loads(stated))
    shapes = autoencoder_template(Autoencoder(**config.to_dict()))
    return config, load_params(path or folder / AUTOENCODER_NAME, shapes)


def empty_conditioning(batch: int, length: int, channels: int = LATENT_CHANNELS) -> Conditioning:
    """Empty conditioning: a batch without text, events or curves, for shapes and tests."""
    text, events = (batch, MAX_TEXT_TOKENS), (batch, MAX_EVENTS)
    return Conditioning(
        text=np.zeros((*text, TEXT_WIDTH), np.float32),
        text_mask=np.zeros(text, bool),
        event_text=np.zeros((*events, TEXT_WIDTH), np.float32),
        onset_s=np.zeros(events, np.float32),
        offset_s=np.zeros(events, np.float32),
        gain_db=np.zeros(events, np.float32),
        event_mask=np.zeros(events, bool),
        loudness_db=np.zeros((batch, length), np.float32),
        loudness_mask=np.zeros(batch, bool),
        seconds=np.full(batch, length / LATENT_RATE, np.float32),
        init=np.zeros((batch, length, channels), np.float32),
        init_mask=np.zeros((batch, length), np.float32),
    )


def denoiser_template(model: Denoiser) -> PyTree:
    """Parameter shapes of a denoiser, however it computes attention."""
    one = np.ones(1, np.float32)
    c = empty_conditioning(1, 2, model.channels)
    return initial_shapes(model.clone(attention=None), c.init, one, c, one, one)


def load_params(path: str | os.PathLike, template: PyTree) -> PyTree:
    """Reads a file written by `save_params` into the structure of `template`, strictly.

    Args:
        path: the safetensors file.
        template: a tree of arrays or `jax.ShapeDtypeStruct`, as `jax.eval_shape` gives it. Floats
            come back in the template's dtype, whatever float or int8 they were stored as; integers
            and booleans must have been stored in exactly the template's dtype.

    Returns:
        The template's tree, filled with jax arrays.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or does not fit; the message lists every missing and
            unexpected name and every wrong shape and dtype, up to ten.
    """
    tensors = read_tensors(path)
    wanted = named_leaves(template)
    names = {name for name, _ in wanted}
    problems = [f'missing {name}' for name, _ in wanted if name not in tensors]
    problems += [f'unexpected {name}' for name in sorted(tensors) if name not in names]
    for name, leaf in wanted:
        if name not in tensors:
            continue
        found = tensors[name]
        if found.shape != tuple(leaf.shape):
            problems.append(f'{name} has shape {found.shape}, not {tuple(leaf.shape)}')
        both_float = all(jnp.issubdtype(d, jnp.floating) for d in (found.dtype, leaf.dtype))
        if not both_float and found.dtype != leaf.dtype:
            problems.append(f'{name} has dtype {found.dtype}, not {leaf.dtype}')
    if problems:
        more = f'; and {len(problems) - _LISTED} more' if len(problems) > _LISTED else ''
        raise ValueError(
            f'{path} does not fit the model: {"; ".join(problems[:_LISTED])}{more}; '
            f"load it with its own release's {CONFIG_NAME}"
        )
    leaves = [jnp.asarray(tensors[name], leaf.dtype) for name, leaf in wanted]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(template), leaves)


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads every array of a safetensors file by name; integers with a scale come back as float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated or damaged.
    """
    tensors, metadata = _open(path)
    if 'crc32' in metadata and metadata['crc32'] != checksum(tensors):
        raise ValueError(f'{path} is damaged (its checksum differs); {REMEDY}')
    for name in [n for n in tensors if n.endswith(SCALE_SUFFIX)]:
        owner = name.removesuffix(SCALE_SUFFIX)
        values, scale = tensors.get(owner), tensors[name]
        if values is None or values.dtype not in (np.int8, np.uint8):
            continue  # an orphan: strict loading lists it as unexpected
        if values.dtype == np.uint8:
            values = unpack_int4(values)
        if scale.ndim != values.ndim or any(
            not s or v % s for s, v in zip(scale.shape, values.shape, strict=True)
        ):
            raise ValueError(f'{path}: {name} does not fit {owner} {values.shape}; {REMEDY}')
        tensors[owner] = values.astype(np.float32) * expand_scale(tensors.pop(name), values.shape)
    return tensors


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Reads the metadata strings in a safetensors file's header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated or damaged.
    """
    return _open(path, names=())[1]


def checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """CRC-32 of the arrays' bytes in the order of their names: safetensors itself has none."""
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8), crc)
    return f'{crc:08x}'


def _open(path, names=None) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The raw arrays (only `names`, where given) and the header's strings."""
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f'no weights at {path}; check the name or get the release again')
    try:
        with safetensors.safe_open(path, framework='np') as file:
            keys = file.keys() if names is None else names
            # bfloat16 passes only tensor by tensor.
            return {key: file.get_tensor(key) for key in keys}, dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f'{path} is truncated or damaged ({error}); {REMEDY}') from error
