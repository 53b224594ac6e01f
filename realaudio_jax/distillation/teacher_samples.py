"""Samples of a guided teacher, made once: what the energy score compares a student's samples with.

They are made of the conditions of cached scenes and kept beside them, many times cheaper than
calling the teacher in every update. Of a caption alone, an unmixed recording can be a better sample
than the teacher's.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import samplers
from realaudio_jax.data import array_cache
from realaudio_jax.data.latent_cache import Latents, LatentScenes
from realaudio_jax.data.teacher_cache import TeacherScenes
from realaudio_jax.distillation.recipe import draw_guidance
from realaudio_jax.distillation.setup import DistillationSetup
from realaudio_jax.models.denoiser import PATCH
from realaudio_jax.noise import time_grid
from realaudio_jax.random import random_key
from realaudio_jax.training.batches import ConditionDropout, to_batch
from realaudio_jax.training.sharding import data_mesh, replicate, shard_batch
from realaudio_jax.typing import Any, Float

Progress = Callable[[int], None]

_STREAM = 7  # of the seed: apart from that of the scenes


def sample_teacher(
    scenes: LatentScenes,
    subject: DistillationSetup,
    guidance_range: tuple[float, float],
    steps: int,
    batch_size: int,
    dropout: ConditionDropout,
    seed: int,
    folder: str | Path,
    progress: Progress | None = None,
) -> Latents:
    """Latents that the guided teacher samples for the conditions of scenes; cached.

    Args:
      scenes: give the conditions.
      subject: the teacher.
      guidance_range: of scales, one for each scene, see `recipe.draw_guidance`.
      steps: of DPM-Solver++(2M), two evaluations each.
      batch_size: of the sampler.
      dropout: how often the teacher is not given text or timeline; a loudness curve never.
      seed: of scales, dropout and noise.
      folder: where caches lie.
      progress: called with the number of samples made.

    Returns:
      The scenes' arrays with the teacher's latents, and besides guidance f32 [N] and timeline_mask
      and loudness_mask [N], whether the teacher was given these; text_mask is False where it was
      not given the text. event_mask stays that of the scenes: a crop needs it to know which caption
      no longer holds.

    Raises:
      ValueError: the range is not 0 < low <= high.
    """
    count, rng = len(scenes), np.random.default_rng(seed + _STREAM)
    guidance = _guidance(seed, guidance_range, count)
    no_text = rng.uniform(size=count) < dropout.text
    no_timeline = rng.uniform(size=count) < dropout.timeline
    frames = scenes.frames // PATCH * PATCH  # what is left has no crop either

    def conditioning(rows):
        batch = scenes.rows(rows)
        batch |= {name: batch[name][:, :frames] for name in ('latents', 'loudness_db')}
        c = to_batch(batch).conditioning
        c = c.replace(loudness_mask=jnp.zeros_like(c.loudness_mask))
        return c.without(jnp.asarray(no_text[rows]), jnp.asarray(no_timeline[rows]))

    def batches():
        shape = (frames, scenes.arrays['latents'].shape[-1])
        for rows, latents in _samples(
            subject, conditioning, guidance, shape, steps, batch_size, seed
        ):
            yield {
                'latents': np.pad(latents, ((0, 0), (0, scenes.frames - frames), (0, 0))),
                'text_mask': scenes.arrays['text_mask'][rows] & ~no_text[rows, None],
                'timeline_mask': ~no_timeline[rows],
                'loudness_mask': np.zeros(len(rows), bool),
                'guidance': guidance[rows],
            }
            if progress:
                progress(int(rows[-1]) + 1)

    parts = {'dropout': dataclasses.asdict(dropout)}
    settings = (guidance_range, steps, batch_size, seed)
    made = _cached(scenes, subject, settings, parts, folder, batches)
    return Latents(dict(scenes.arrays) | made, scenes.frames)


def sample_pretrained_teacher(
    scenes: TeacherScenes,
    subject: DistillationSetup,
    guidance_range: tuple[float, float],
    steps: int,
    batch_size: int,
    seed: int,
    folder: str | Path,
    progress: Progress | None = None,
) -> TeacherScenes:
    """`sample_teacher` for a pretrained teacher, which is always given the caption.

    Args:
      scenes: give the captions.
      subject: the teacher.
      guidance_range, steps, batch_size, seed, folder, progress: see `sample_teacher`.

    Returns:
      The scenes with the teacher's latents, and guidance f32 [N] besides.

    Raises:
      ValueError: the range is not 0 < low <= high.
    """
    guidance = _guidance(seed, guidance_range, len(scenes))
    stored = scenes.arrays['latents']

    def conditioning(rows):
        return subject.to_batch(scenes.rows(rows)).conditioning

    def batches():
        shape = stored.shape[1:]
        for rows, latents in _samples(
            subject, conditioning, guidance, shape, steps, batch_size, seed
        ):
            yield {'latents': latents.astype(stored.dtype), 'guidance': guidance[rows]}
            if progress:
                progress(int(rows[-1]) + 1)

    settings = (guidance_range, steps, batch_size, seed)
    return scenes.replacing(_cached(scenes, subject, settings, {}, folder, batches))


def recordings_as_samples(
    recorded: LatentScenes, guidance_range: tuple[float, float], seed: int
) -> Latents:
    """Recordings as samples of their own captions, in the form of `sample_teacher`.

    Guidance gives more of what a caption names. A recording is all of that, so it is right at every
    scale: each gets one, drawn as a teacher's are. Timeline and loudness count as not given.

    Args:
      recorded: see `prepared.whole_latents`.
      guidance_range: of scales.
      seed: of scales.

    Raises:
      ValueError: the range is not 0 < low <= high.
    """
    count = len(recorded)
    ours = dict(recorded.arrays) | {
        'timeline_mask': np.zeros(count, bool),
        'loudness_mask': np.zeros(count, bool),
        'guidance': _guidance(seed, guidance_range, count),
    }
    return Latents(ours, recorded.frames)


def _samples(
    subject: DistillationSetup,
    conditioning: Callable[[np.ndarray], Any],
    guidance: Float[np.ndarray, ' N'],
    shape: tuple[int, ...],
    steps: int,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, float16 latents [len(rows) *shape]) of the guided teacher by DPM-Solver++(2M).

    One compiled program for all batches, each split over the devices.
    """
    mesh, count = data_mesh(batch_size), len(guidance)
    params, start = replicate(mesh, subject.teacher_params), random_key(seed + _STREAM)

    @jax.jit
    def sample(params, conditioning, scale, key):
        noise = jax.random.normal(key, (batch_size, *shape))
        teacher = subject.teacher(params, conditioning, scale)
        return samplers.dpm_solver_pp_2m(teacher, subject.path, noise, time_grid(steps))

    for first in range(0, count, batch_size):
        rows = np.minimum(np.arange(first, first + batch_size), count - 1)  # of one shape
        split = shard_batch(mesh, (conditioning(rows), guidance[rows]))
        latents = sample(params, *split, jax.random.fold_in(start, first))
        kept = rows[: count - first]
        yield kept, np.asarray(latents[: len(kept)], np.float16)


def _cached(
    scenes: LatentScenes | TeacherScenes,
    subject: DistillationSetup,
    settings: tuple,
    parts: dict[str, Any],
    folder: str | Path,
    batches: Callable[[], Iterator[dict[str, np.ndarray]]],
) -> dict[str, np.ndarray]:
    """The arrays of `batches()`, or what an earlier call left of the same scenes and teacher."""
    key = array_cache.cache_key(
        'teacher samples',
        scenes=array_cache.content_digest(scenes.folder),
        teacher=subject.network,
        weights=array_cache.weights_digest(subject.teacher_params),
        path=type(subject.path).__name__,
        settings=settings,
        code=array_cache.code_digest(samplers),
        **parts,
    )
    made = array_cache.ensure(
        Path(folder) / key, lambda new: array_cache.fill_arrays(new, len(scenes), batches())
    )
    return array_cache.open_arrays(made)[0]


def _guidance(
    seed: int, guidance_range: tuple[float, float], count: int
) -> Float[np.ndarray, ' N']:
    key = jax.random.fold_in(random_key(seed), _STREAM)
    return np.asarray(draw_guidance(key, count, guidance_range))
