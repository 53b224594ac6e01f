"""The sound a student's samples are scored against: a guided teacher's, and recordings.

What the teacher makes of cached scenes is made once, many times cheaper than asking it in every
update. Of a caption alone, recordings as they are can be a better answer than the teacher's.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.data.latent_cache import (
    INDEX_NAME,
    Latents,
    LatentScenes,
    fingerprint,
    joined,
    weights_fingerprint,
)
from realaudio_jax.distillation.recipe import Teacher
from realaudio_jax.io import atomic_folder
from realaudio_jax.models.denoiser import PATCH
from realaudio_jax.noise import NoisePath, time_grid
from realaudio_jax.samplers import dpm_solver_pp_2m
from realaudio_jax.training.batches import Absence, to_batch
from realaudio_jax.typing import Float, PyTree

_BATCH = 10
_STREAM = 7  # of the seed: apart from that of the scenes


def teacher_answers(
    scenes: LatentScenes,
    teacher: Teacher,
    params: PyTree,
    path: NoisePath,
    guidance_range: tuple[float, float],
    steps: int,
    absence: Absence,
    seed: int,
    folder: str | Path,
    progress: Callable[[int], None] | None = None,
) -> LatentScenes:
    """The scenes with the teacher's latents, or what an earlier call with these arguments left.

    Args:
      scenes: give the conditions.
      teacher, params, path: see `recipe`.
      guidance_range: of scales, drawn evenly in the logarithm, one for each scene.
      steps: of DPM-Solver++(2M), two evaluations each.
      absence: how often the teacher is not told text or timeline; a loudness curve never.
      seed: of scales, absence and noise.
      folder: where caches lie.
      progress: called with the number of answers made.

    Returns:
      Scenes whose arrays also hold guidance f32 [N] and loudness_mask, False, [N]; their masks are
      those of what the teacher was told.

    Raises:
      ValueError: the range is not 0 < low <= high.
    """
    facts = (guidance_range, steps, dataclasses.astuple(absence), seed)
    key = fingerprint('answers', scenes.folder.name, weights_fingerprint(params), *facts)
    final, count = Path(folder) / key, len(scenes)
    if (final / INDEX_NAME).exists():
        return LatentScenes(final)

    rng = np.random.default_rng(seed + _STREAM)
    guidance = _scales(rng, guidance_range, count)
    no_text = rng.uniform(size=count) < absence.text
    no_timeline = rng.uniform(size=count) < absence.timeline

    @jax.jit
    def answer(params, conditioning, scale, key):
        noise = jax.random.normal(key, conditioning.init.shape)
        guided = teacher(params, conditioning, scale)
        return dpm_solver_pp_2m(guided, path, noise, time_grid(steps)).astype(jnp.float16)

    latents = np.zeros(scenes.arrays['latents'].shape, np.float16)
    frames = scenes.frames // PATCH * PATCH  # what is left has no crop either
    for first in range(0, count, _BATCH):
        rows = np.minimum(np.arange(first, first + _BATCH), count - 1)  # one shape, one program
        batch = scenes.rows(rows)
        batch |= {name: batch[name][:, :frames] for name in ('latents', 'loudness_db')}
        told = to_batch(batch).conditioning
        told = told.replace(loudness_mask=jnp.zeros_like(told.loudness_mask))
        told = told.without(jnp.asarray(no_text[rows]), jnp.asarray(no_timeline[rows]))
        noise_key = jax.random.fold_in(jax.random.key(seed + _STREAM), first)
        latents[rows, :frames] = answer(params, told, jnp.asarray(guidance[rows]), noise_key)
        if progress:
            progress(min(first + _BATCH, count))

    arrays = {
        'latents': latents,
        'text_mask': scenes.arrays['text_mask'] & ~no_text[:, None],
        'event_mask': scenes.arrays['event_mask'] & ~no_timeline[:, None],
        'loudness_mask': np.zeros(count, bool),
        'guidance': guidance,
    }
    with atomic_folder(final, INDEX_NAME) as temporary:
        for file in scenes.folder.iterdir():
            if file.stem not in arrays:
                shutil.copy(file, temporary / file.name)
        for name, array in arrays.items():
            np.save(temporary / f'{name}.npy', array)
        index = json.loads((temporary / INDEX_NAME).read_text()) | {'key': key}
        (temporary / INDEX_NAME).write_text(json.dumps(index))
    return LatentScenes(final)


def beside_recordings(
    answers: LatentScenes,
    recorded: LatentScenes,
    guidance_range: tuple[float, float],
    seed: int,
) -> Latents:
    """A teacher's answers and recordings, as one set.

    Guidance asks for more of what a caption names. A recording is all of that, so it is the answer
    at every scale: each gets one, drawn evenly in the logarithm. Timeline and loudness are not
    told.

    Args:
      answers: of `teacher_answers`.
      recorded: with as many frames, see `prepared.whole_latents`.
      guidance_range: of scales.
      seed: of scales.

    Raises:
      ValueError: the range is not 0 < low <= high.
    """
    count, rng = len(recorded), np.random.default_rng(seed + _STREAM)
    ours = dict(recorded.arrays) | {
        'event_mask': np.zeros_like(recorded.arrays['event_mask']),
        'loudness_mask': np.zeros(count, bool),
        'guidance': _scales(rng, guidance_range, count),
    }
    return joined(answers, Latents(ours, recorded.frames))


def _scales(
    rng: np.random.Generator, guidance_range: tuple[float, float], count: int
) -> Float[np.ndarray, ' N']:
    """Guidance scales, even in the logarithm."""
    low, high = guidance_range
    if not 0 < low <= high:
        raise ValueError(f'guidance {low} to {high}: give scales above 0, the smaller one first')
    return np.float32(low * (high / low) ** rng.uniform(size=count))
