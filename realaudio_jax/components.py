"""Files of a release: names, parameter shapes, strict loading, saving.

A release is a folder:

    config.json                 see `release_config.ReleaseConfig`
    SHA256SUMS                  digests of the files that are read, see `integrity`
    text_encoder.safetensors    tokenizer.json
    autoencoder.safetensors     teacher.safetensors     student.safetensors
    audio_tower.safetensors     optional: the release's own embedder for metrics
    teacher_adapter.safetensors student_adapter.safetensors     optional: what is added to them
    student_moments.safetensors optional: what its latents are brought to, by count of steps
    vocabulary.safetensors      optional: labels of its training sounds, see `vocabulary`
    README.md                   the model card
"""

import functools
import os
import pathlib
import shutil
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from realaudio_jax import integrity, low_rank, weights
from realaudio_jax.data.front_end import FrontEnd
from realaudio_jax.io import atomic_path
from realaudio_jax.models import text_encoder as text_lib
from realaudio_jax.models.autoencoder import Autoencoder, samples_per_latent
from realaudio_jax.models.denoiser import Conditioning, Denoiser
from realaudio_jax.program import MOMENTS
from realaudio_jax.random import random_key
from realaudio_jax.release import load_params, read_tensors, save_params
from realaudio_jax.release_config import CONFIG_NAME, ReleaseConfig
from realaudio_jax.typing import (
    LATENT_CHANNELS,
    LATENT_RATE,
    MAX_EVENTS,
    MAX_TEXT_TOKENS,
    SAMPLE_RATE,
    TEXT_WIDTH,
    PyTree,
)
from realaudio_jax.vocabulary import VOCABULARY_NAME

RELEASES = pathlib.Path(__file__).parent / 'releases'
AUTOENCODER_NAME = 'autoencoder.safetensors'
STUDENT_NAME = 'student.safetensors'
TEACHER_NAME = 'teacher.safetensors'
MOMENTS_NAME = f'{MOMENTS}.safetensors'
TOWER_NAME = 'audio_tower.safetensors'
NETWORK_KEY = 'denoiser'  # of a trained teacher's metadata: the module's arguments as JSON

# Files that a new release takes over from an older one where it is not given others.
FROZEN = (
    text_lib.WEIGHTS_NAME,
    text_lib.TOKENIZER_NAME,
    'NOTICE-text-encoder.txt',
    VOCABULARY_NAME,
)


_REMEDY = f'get the release again, or remove {integrity.MANIFEST_NAME} if the change is yours'


def find_release(name: str | os.PathLike) -> pathlib.Path:
    """The folder of a release: shipped, by path, or fetched by its name, see `weights`.

    Raises:
      FileNotFoundError: none of these; the message lists the shipped ones.
      ValueError, weights.FetchError: as `weights.fetch`.
    """
    if weights.is_remote(name):
        return weights.fetch(str(name))
    for folder in (pathlib.Path(name), RELEASES / str(name)):
        if (folder / 'config.json').is_file():
            return folder
    shipped = sorted(p.parent.name for p in RELEASES.glob('*/config.json'))
    raise FileNotFoundError(
        f'no release {str(name)!r}: neither a folder with a config.json nor one of the shipped '
        f'({", ".join(shipped) or "none"})'
    )


def adapter_name(name: str) -> str:
    """The file beside a network's own that holds its adapter, if it has one."""
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
    """The config of a release, whose files were found to be what its manifest lists.

    A release without a manifest is taken as it is, with a warning.

    Args:
        folder: of the release.
        names: the files that will be read besides its config; none: those of a `Generator`.

    Raises:
        FileNotFoundError: there is no such release.
        ValueError: a file is damaged, missing, another one or not listed; a bad config.
    """
    if not integrity.verify(folder, {CONFIG_NAME, *(names or GENERATOR_FILES)}, _REMEDY):
        warnings.warn(
            f'{folder} has no {integrity.MANIFEST_NAME}: damage to its files may go unnoticed',
            stacklevel=2,
        )
    return ReleaseConfig.read(folder)


def template(model, *args, **kwargs) -> PyTree:
    """Parameter shapes of a module, for strict loading; nothing is computed."""
    return jax.eval_shape(functools.partial(model.init, **kwargs), random_key(0), *args)


def autoencoder_template(model: Autoencoder) -> PyTree:
    """Parameter shapes of an autoencoder."""
    audio = jax.ShapeDtypeStruct((1, 2 * samples_per_latent(SAMPLE_RATE), 2), np.float32)
    noise = jax.ShapeDtypeStruct((1, 2, model.channels), np.float32)
    return template(model, audio, noise, sample_rate=SAMPLE_RATE)


def empty_conditioning(batch: int, length: int) -> Conditioning:
    """Empty conditioning of `length` latent frames."""
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
        init=np.zeros((batch, length, LATENT_CHANNELS), np.float32),
        init_mask=np.zeros((batch, length), np.float32),
    )


def denoiser_template(model: Denoiser) -> PyTree:
    """Parameter shapes of a denoiser."""
    one = np.ones(1, np.float32)
    c = empty_conditioning(1, 2)
    return template(model, c.init, one, c, one, one)


def load_denoiser(folder: pathlib.Path, name: str, shapes: PyTree) -> PyTree:
    """A release's teacher or student, with its adapter where there is one; see `denoiser_parts`."""
    return low_rank.whole(*denoiser_parts(folder, name, shapes))


def denoiser_parts(folder: pathlib.Path, name: str, shapes: PyTree) -> tuple[PyTree, PyTree | None]:
    """A release's teacher or student without its adapter, and that adapter or None.

    A student may have its teacher's adapter besides, times `student.teacher_adapter` of
    config.json: what the teacher has learnt since the student was made is added to the student as
    it is (task arithmetic, Ilharco et al. 2022, arXiv 2212.04089).

    Args:
      folder: of the release.
      name: TEACHER_NAME or STUDENT_NAME.
      shapes: see `denoiser_template`.

    Raises:
      FileNotFoundError, ValueError: as `release.load_params`, and for an adapter that does not fit.
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
      ValueError: as `release.load_params`.
    """
    if not (folder / MOMENTS_NAME).is_file():
        return {}
    channel = jax.ShapeDtypeStruct((LATENT_CHANNELS,), np.float32)
    counts = ReleaseConfig.read(folder).student.steps
    shapes = {str(steps): {'gain': channel, 'shift': channel} for steps in counts}
    return load_params(folder / MOMENTS_NAME, shapes)


def weights_of(source: str | os.PathLike, name: str) -> pathlib.Path:
    """Path of a run's initial weights: `source` itself, or the file in that release.

    Args:
      source: a .safetensors file, or the name or folder of a release.
      name: TEACHER_NAME or STUDENT_NAME.

    Raises:
      FileNotFoundError: as `find_release`.
    """
    path = pathlib.Path(source)
    return path if path.suffix == '.safetensors' else find_release(source) / name


def starting_parts(
    source: str | os.PathLike, name: str, shapes: PyTree
) -> tuple[PyTree, PyTree | None]:
    """Initial weights of a run and, separately, an adapter or None.

    Args:
      source: see `weights_of`; a file has no adapter.
      name, shapes: see `denoiser_parts`.

    Raises:
      FileNotFoundError, ValueError: as `find_release` and `denoiser_parts`.
    """
    path = weights_of(source, name)
    if path == pathlib.Path(source):
        return load_params(path, shapes), None
    read_release(path.parent)
    return denoiser_parts(path.parent, name, shapes)


def _read_adapter(path: pathlib.Path, params: PyTree) -> PyTree:
    """An adapter that fits these parameters."""
    adapter = jax.tree.map(jnp.asarray, unflatten_dict(read_tensors(path), sep='/'))
    try:
        jax.eval_shape(low_rank.add, params, adapter)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    return adapter


def load_front_end(
    release: str | os.PathLike, autoencoder: str | os.PathLike | None = None
) -> FrontEnd:
    """The text encoder and autoencoder of a release, for preparing training data.

    Args:
      release: name or folder; only its frozen networks are read.
      autoencoder: a safetensors file to use instead of the release's.
    """
    folder = find_release(release)
    config = read_release(folder, AUTOENCODER_NAME, text_lib.WEIGHTS_NAME, text_lib.TOKENIZER_NAME)
    model = Autoencoder(**config.autoencoder.to_dict())
    path = pathlib.Path(autoencoder) if autoencoder else folder / AUTOENCODER_NAME
    return FrontEnd(
        model,
        load_params(path, autoencoder_template(model)),
        text_lib.TextEncoder(),
        load_params(folder / text_lib.WEIGHTS_NAME, text_lib.parameter_shapes()),
        text_lib.Tokenizer(folder / text_lib.TOKENIZER_NAME),
    )


def save_release(
    folder: str | os.PathLike,
    config: ReleaseConfig | Mapping[str, Any],
    params: Mapping[str, PyTree],
    base: str | os.PathLike,
    dtype: str = 'float16',
    block: int | None = None,
) -> None:
    """Writes a release: the networks given, and the other files of an older one beside them.

    Args:
      folder: where; made if it is missing.
      config: or what its JSON holds; an audio tower is copied if this describes one.
      params: by file stem: 'autoencoder', 'teacher', 'student', or 'student_adapter' and the like.
        One that is not given is copied; moments are, if the student and the teacher are.
      base: name or folder of the release that gives the rest.
      dtype, block: how the networks given are stored, see `release.save_params`.

    Raises:
      OSError: the disk is full or the folder cannot be written.
      ValueError: a bad config, or a base that is damaged.
    """
    folder, base, config = pathlib.Path(folder), find_release(base), ReleaseConfig.of(config)
    integrity.verify(base, remedy=_REMEDY)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / integrity.MANIFEST_NAME).unlink(missing_ok=True)  # true again at the end
    given = {f'{stem}.safetensors' for stem in params}
    given |= {adapter_name(name) for name in given}
    tower = (TOWER_NAME,) if config.audio_tower else ()
    networks = (TEACHER_NAME, STUDENT_NAME)
    copied = [*FROZEN, *tower, AUTOENCODER_NAME, *networks, *map(adapter_name, networks)]
    if given & {*networks, *map(adapter_name, networks)}:
        (folder / MOMENTS_NAME).unlink(missing_ok=True)
    else:
        copied.append(MOMENTS_NAME)
    for name in copied:
        if name not in given and (base / name).is_file() and base != folder:
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(base / name, temporary)
    for stem, tree in params.items():
        (folder / adapter_name(f'{stem}.safetensors')).unlink(missing_ok=True)
        save_params(folder / f'{stem}.safetensors', tree, dtype=dtype, block=block)
    config.write(folder)
    read = (CONFIG_NAME, *GENERATOR_FILES, *tower)
    integrity.write_manifest(folder, [name for name in read if (folder / name).exists()])
