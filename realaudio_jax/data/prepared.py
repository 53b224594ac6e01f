"""Prepares sound sources and cached latents for training and evaluation."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from realaudio_jax.data import augment as augmentation
from realaudio_jax.data import (
    captions,
    crops,
    fresh,
    latent_cache,
    mixtures,
    scenes,
    synonyms,
    wording,
)
from realaudio_jax.data import curves as curve_extraction
from realaudio_jax.data import whole as unmixed
from realaudio_jax.data.array_cache import cache_key, code_digest
from realaudio_jax.data.fresh import ENCODED_AT_ONCE, FRESH_SCENES, FreshCrops, SceneMaker
from realaudio_jax.data.frozen_encoders import FrozenEncoders
from realaudio_jax.data.latent_cache import LatentScenes, SceneEncoder, build_latent_scenes
from realaudio_jax.data.mixtures import FoleySource, MixedSource
from realaudio_jax.data.scenes import make_scenes
from realaudio_jax.data.sources import Recordings, Source
from realaudio_jax.data.teacher_cache import TeacherScenes, build_teacher_scenes
from realaudio_jax.data.whole import fitting, whole_recordings
from realaudio_jax.io import resample
from realaudio_jax.teachers import Distillable
from realaudio_jax.typing import SAMPLE_RATE


def scene_source(
    recordings: str | None, foley_weight: float, split: str = 'train', log=None, balance=0.5
) -> Source:
    """Procedural foley, recordings, or both.

    Args:
      recordings: folder of recordings, see `sources.Recordings`; None for foley alone.
      foley_weight: share of sounds from procedural foley, 0 to 1, where there are recordings.
      split: 'train' or 'held_out', of the recordings and of the foley.
      log: takes a line about each file that is left out.
      balance: of the recordings, see `sources.Recordings`.
    """
    if recordings is None or foley_weight >= 1:
        return FoleySource(split)
    recorded = Recordings(recordings, split, log=log, balance=balance)
    if foley_weight <= 0:
        return recorded
    return MixedSource([FoleySource(split), recorded], [foley_weight, 1.0 - foley_weight])


def require_data(recordings: str | None, foley_weight: float, seconds: float) -> int:
    """Tries what a run will ask of its recordings, so that nothing fails after it has trained.

    Both splits are opened, which decodes the recordings once, and a scene of each is drawn.

    Args:
        recordings, foley_weight: see `scene_source`.
        seconds: of a scene.

    Returns:
        How many recordings of the training split `whole_latents` can take at this length.

    Raises:
        FileNotFoundError, ValueError: the folder cannot be used; one line with the remedy.
    """
    for split in ('train', 'held_out'):
        next(make_scenes(0, scene_source(recordings, foley_weight, split), 1, seconds))
    return len(fitting(Recordings(recordings), seconds)) if recordings else 0


def scenes_key(
    kind: str, source: Source, count: int, seconds: float, seed: int, networks: str
) -> str:
    """The `cache_key` of encoded scenes: their sounds, how they are mixed, what encodes them.

    Args:
      kind: of what is made of the scenes.
      source: of their sounds; where they lie does not matter.
      count, seconds, seed: of the scenes.
      networks: digest of those that encode them.
    """
    return cache_key(
        kind,
        source=source.digest,
        count=count,
        seconds=seconds,
        seed=seed,
        networks=networks,
        code=_code(),
    )


def _code() -> str:
    """Of the modules that decide what a scene is; foley has a version of its own."""
    return code_digest(
        augmentation,
        captions,
        crops,
        curve_extraction,
        fresh,
        latent_cache,
        mixtures,
        scenes,
        synonyms,
        unmixed,
        wording,
    )


def latent_scenes(
    encoders: FrozenEncoders,
    source: Source,
    count: int,
    seconds: float,
    seed: int,
    folder: pathlib.Path,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 0,
    curves: tuple[str, ...] = (),
) -> LatentScenes:
    """Mixes and encodes `count` scenes, or opens what an earlier run with the same arguments left.

    Args:
      encoders: the frozen networks.
      source: of sounds.
      count, seconds, seed: of the scenes.
      folder: where caches lie.
      progress: called with (done, count).
      workers: processes that mix them, see `scenes.make_scenes`.
      curves: that the denoiser has besides loudness, see `latent_cache.SceneEncoder`.
    """
    mixed = make_scenes(seed, source, count, seconds, workers=workers)
    kind = ' '.join(('mixed', *curves))
    key = scenes_key(kind, source, count, seconds, seed, encoders.fingerprint())
    return _encoded(encoders, mixed, count, seconds, folder / key, progress, curves)


def fresh_crops(
    encoders: FrozenEncoders,
    source: Source,
    seconds: float,
    seed: int,
    batch_size: int,
    min_seconds: float,
    pool: int,
    uses: float,
    whole: float,
    responses: str | None,
    folder: pathlib.Path,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    curves: tuple[str, ...] = (),
) -> FreshCrops:
    """Batches of crops of scenes that are mixed anew all along and augmented; see `data.fresh`.

    Args:
      encoders: the frozen networks.
      source: of sounds.
      seconds, seed: of the scenes.
      batch_size, min_seconds, pool, uses, workers, progress: see `fresh.FreshCrops`.
      whole: share of recordings as they are, see `fresh.SceneMaker`.
      responses: folder of measured impulse responses; None or '' for synthetic rooms alone.
      folder: where caches lie.
      curves: see `latent_scenes`.
    """
    augment = dataclasses.replace(FRESH_SCENES.augment, responses=responses or None)
    config = dataclasses.replace(FRESH_SCENES, augment=augment)
    key = cache_key(
        'fresh',
        source=source.digest,
        seconds=seconds,
        seed=seed,
        whole=whole,
        scenes=str(config),
        curves=curves,
        networks=encoders.fingerprint(),
        code=_code(),
    )
    return FreshCrops(
        SceneMaker(seed, source, seconds, config, whole),
        SceneEncoder(encoders.encode_audio, encoders.encode_text, seconds, ENCODED_AT_ONCE, curves),
        seconds,
        batch_size,
        seed,
        min_seconds,
        pool,
        uses,
        workers,
        folder / f'{key}-{batch_size}-{pool}-{uses:g}',
        progress,
    )


def whole_latents(
    encoders: FrozenEncoders,
    recordings: str,
    count: int,
    seconds: float,
    seed: int,
    folder: pathlib.Path,
    progress: Callable[[int, int], None] | None = None,
    curves: tuple[str, ...] = (),
) -> LatentScenes:
    """`latent_scenes` for recordings of the training split as they are, see `data.whole`.

    Args:
      recordings: folder with metadata.csv.
      encoders, count, seconds, seed, folder, progress, curves: see `latent_scenes`.

    Raises:
      ValueError: no recording is of such a length.
    """
    source = Recordings(recordings)
    kind = ' '.join(('unmixed', *curves))
    key = scenes_key(kind, source, count, seconds, seed, encoders.fingerprint())
    whole = whole_recordings(seed, source, count, seconds)
    return _encoded(encoders, whole, count, seconds, folder / key, progress, curves)


def _encoded(encoders, made, count, seconds, folder, progress, curves=()) -> LatentScenes:
    return build_latent_scenes(
        made,
        count,
        seconds,
        encoders.encode_audio,
        encoders.encode_text,
        folder,
        progress=progress,
        curves=curves,
    )


def teacher_scenes(
    teacher: Distillable,
    source: Source,
    count: int,
    seconds: float,
    seed: int,
    folder: pathlib.Path,
    progress: Callable[[int, int], None] | None = None,
) -> TeacherScenes:
    """`latent_scenes` for a foreign teacher: its own latents, and its own states of the captions.

    Args:
      teacher: whose autoencoder and text encoder are used, at its sample rate.
      source, count, seconds, seed, folder, progress: see `latent_scenes`.

    Raises:
      ValueError: scenes longer than the teacher makes.
    """
    teacher.require_seconds(seconds)

    def encode(batch):
        audio = [resample(scene.audio, SAMPLE_RATE, teacher.sample_rate) for scene in batch]
        return teacher.encode_scenes(np.stack(audio), [scene.caption for scene in batch])

    key = scenes_key('mixed', source, count, seconds, seed, teacher.fingerprint())
    mixed = make_scenes(seed, source, count, seconds)
    return build_teacher_scenes(mixed, count, encode, folder / key, progress=progress)
