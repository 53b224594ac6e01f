"""The sound a student's samples are scored against: a guided teacher's, and recordings.

What the teacher makes of cached scenes is made once, many times cheaper than asking it in every
update. Of a caption alone, recordings as they are can be a better answer than the teacher's.
"""

import dataclasses
import functools
import json
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
    weights_fingerprint,
)
from realaudio_jax.data.teacher_cache import TeacherScenes
from realaudio_jax.distillation.recipe import Teacher, draw_guidance
from realaudio_jax.distillation.subject import Subject
from realaudio_jax.io import atomic_folder
from realaudio_jax.models.denoiser import PATCH
from realaudio_jax.noise import NoisePath, time_grid
from realaudio_jax.random import random_key
from realaudio_jax.samplers import dpm_solver_pp_2m
from realaudio_jax.training.batches import Absence, to_batch
from realaudio_jax.training.sharding import data_mesh, replicate, shard_batch
from realaudio_jax.typing import Any, Float, PyTree

Progress = Callable[[int], None]

_STREAM = 7  # of the seed: apart from that of the scenes


def teacher_answers(
    scenes: LatentScenes,
    teacher: Teacher,
    params: PyTree,
    path: NoisePath,
    guidance_range: tuple[float, float],
    steps: int,
    batch_size: int,
    absence: Absence,
    seed: int,
    folder: str | Path,
    progress: Progress | None = None,
) -> Latents:
    """The scenes with the teacher's latents, or what an earlier call with these arguments left.

    Args:
      scenes: give the conditions.
      teacher, params, path: see `recipe`.
      guidance_range: of scales, one for each scene, see `recipe.draw_guidance`.
      steps: of DPM-Solver++(2M), two evaluations each.
      batch_size: of the sampler.
      absence: how often the teacher is not told text or timeline; a loudness curve never.
      seed: of scales, absence and noise.
      folder: where caches lie.
      progress: called with the number of answers made.

    Returns:
      The scenes' arrays with the teacher's latents, and besides guidance f32 [N] and timeline_mask
      and loudness_mask [N], whether the teacher was told these; text_mask is False where it was not
      told the text. event_mask stays that of the scenes: a crop needs it to know which caption no
      longer holds.

    Raises:
      ValueError: the range is not 0 < low <= high.
    """
    count, rng = len(scenes), np.random.default_rng(seed + _STREAM)
    guidance = _guidance(seed, guidance_range, count)
    no_text = rng.uniform(size=count) < absence.text
    no_timeline = rng.uniform(size=count) < absence.timeline
    frames = scenes.frames // PATCH * PATCH  # what is left has no crop either

    def told(rows):
        batch = scenes.rows(rows)
        batch |= {name: batch[name][:, :frames] for name in ('latents', 'loudness_db')}
        c = to_batch(batch).conditioning
        c = c.replace(loudness_mask=jnp.zeros_like(c.loudness_mask))
        return c.without(jnp.asarray(no_text[rows]), jnp.asarray(no_timeline[rows]))

    def make():
        latents = np.zeros(scenes.arrays['latents'].shape, np.float16)
        sampler = _Sampler(teacher, params, path, steps, batch_size, seed)
        sampler.fill(latents[:, :frames], told, guidance, progress)
        return {
            'latents': latents,
            'text_mask': scenes.arrays['text_mask'] & ~no_text[:, None],
            'timeline_mask': ~no_timeline,
            'loudness_mask': np.zeros(count, bool),
            'guidance': guidance,
        }

    facts = (guidance_range, steps, batch_size, dataclasses.astuple(absence), seed)
    key = fingerprint('answers', scenes.folder.name, weights_fingerprint(params), *facts)
    return Latents(dict(scenes.arrays) | _kept(Path(folder) / key, make), scenes.frames)


def foreign_answers(
    scenes: TeacherScenes,
    subject: Subject,
    guidance_range: tuple[float, float],
    steps: int,
    batch_size: int,
    seed: int,
    folder: str | Path,
    progress: Progress | None = None,
) -> TeacherScenes:
    """`teacher_answers` of a foreign teacher, which is always told the caption.

    Args:
      scenes: give the captions.
      subject: the teacher.
      guidance_range, steps, batch_size, seed, folder, progress: see `teacher_answers`.

    Returns:
      The scenes with the teacher's latents, and guidance f32 [N] besides.

    Raises:
      ValueError: the range is not 0 < low <= high.
    """
    guidance = _guidance(seed, guidance_range, len(scenes))

    def told(rows):
        return subject.to_batch(scenes.rows(rows)).conditioning

    def make():
        latents = np.zeros_like(scenes.arrays['latents'])
        params = subject.teacher_params
        sampler = _Sampler(subject.teacher, params, subject.path, steps, batch_size, seed)
        sampler.fill(latents, told, guidance, progress)
        return {'latents': latents, 'guidance': guidance}

    weights = weights_fingerprint(subject.teacher_params)
    facts = (guidance_range, steps, batch_size, seed)
    key = fingerprint('answers', scenes.folder.name, weights, *facts)
    return scenes.replacing(_kept(Path(folder) / key, make))


class _Sampler:
    """A guided teacher's DPM-Solver++(2M), compiled once, for as many conditions as there are."""

    def __init__(
        self, teacher: Teacher, params: PyTree, path: NoisePath, steps: int, batch_size: int,
        seed: int,
    ):  # fmt: skip
        self.mesh = data_mesh(batch_size)
        params = replicate(self.mesh, params)
        self.params, self.key = params, random_key(seed + _STREAM)
        self.batch_size = batch_size

        @functools.partial(jax.jit, static_argnums=4)
        def sample(params, conditioning, scale, key, shape):
            noise = jax.random.normal(key, shape)
            return dpm_solver_pp_2m(
                teacher(params, conditioning, scale), path, noise, time_grid(steps)
            )

        self.sample = sample

    def fill(
        self,
        latents: Float[np.ndarray, 'N L C'],
        told: Callable[[np.ndarray], Any],
        guidance: Float[np.ndarray, ' N'],
        progress: Progress | None,
    ) -> None:
        """Writes the answer to `told(rows)` at the scales `guidance[rows]` into all rows."""
        count, size = len(latents), self.batch_size
        for first in range(0, count, size):
            rows = np.minimum(np.arange(first, first + size), count - 1)  # one shape, one program
            shape = (size, *latents.shape[1:])
            key = jax.random.fold_in(self.key, first)
            told_here = shard_batch(self.mesh, (told(rows), guidance[rows]))
            latents[rows] = self.sample(self.params, *told_here, key, shape)
            if progress:
                progress(min(first + size, count))


def _kept(folder: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays from a folder, where they are put if it is not there."""
    if not (folder / INDEX_NAME).exists():
        arrays = make()
        with atomic_folder(folder, INDEX_NAME) as temporary:
            for name, array in arrays.items():
                np.save(temporary / f'{name}.npy', array)
            (temporary / INDEX_NAME).write_text(json.dumps({'key': folder.name}))
    return {path.stem: np.load(path, mmap_mode='r') for path in sorted(folder.glob('*.npy'))}


def recordings_as_answers(
    recorded: LatentScenes, guidance_range: tuple[float, float], seed: int
) -> Latents:
    """Recordings as the answers to their own captions, in the form of `teacher_answers`.

    Guidance asks for more of what a caption names. A recording is all of that, so it is the answer
    at every scale: each gets one, drawn as a teacher's are. Timeline and loudness are not told.

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


def _guidance(
    seed: int, guidance_range: tuple[float, float], count: int
) -> Float[np.ndarray, ' N']:
    key = jax.random.fold_in(random_key(seed), _STREAM)
    return np.asarray(draw_guidance(key, count, guidance_range))
