"""Samples of a guided teacher, made once: what the energy score compares a student's samples with.

They are made of the conditions of encoded scenes and cached, many times cheaper than calling the
teacher in every update. For a caption alone, an unmixed recording can be a better sample than the
teacher's.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from realaudio_jax import samplers
from realaudio_jax.data import cache
from realaudio_jax.data.cache import EncodedScenes
from realaudio_jax.distillation.recipe import draw_guidance
from realaudio_jax.noise import time_grid
from realaudio_jax.random import random_key
from realaudio_jax.teachers import ConditionDropout, Teacher
from realaudio_jax.training.sharding import data_mesh, replicate, shard_batch
from realaudio_jax.typing import Float

Rows = Mapping[str, np.ndarray]

_STREAM = 7  # of the seed: apart from that of the scenes


def sample_teacher(
    scenes: EncodedScenes,
    teacher: Teacher,
    guidance_range: tuple[float, float],
    steps: int,
    batch_size: int,
    dropout: ConditionDropout,
    seed: int,
    folder: str | Path,
    progress: Callable[[int], None] | None = None,
) -> EncodedScenes:
    """Latents that the guided teacher samples for the conditions of scenes; cached.

    Args:
        scenes: give the conditions.
        teacher: of any kind.
        guidance_range: of scales, one for each scene, see `recipe.draw_guidance`.
        steps: of DPM-Solver++(2M), two evaluations each.
        batch_size: of the sampler.
        dropout: how often the teacher is not given a condition, see `Teacher.drop_rows`.
        seed: of scales, dropout and noise.
        folder: where caches lie.
        progress: called with the number of samples made.

    Returns:
        The scenes with the teacher's latents, with guidance f32 [N], and with the conditions that
        the teacher was given.

    Raises:
        ValueError: the range is not 0 < low <= high.
    """
    guidance = _guidance(seed, guidance_range, len(scenes))
    given = _dropped(scenes, teacher, dropout, seed)
    key = cache.cache_key(
        'teacher samples',
        scenes=cache.content_digest(scenes.folder),
        given=cache.weights_digest(given),
        teacher=teacher.network,
        weights=cache.weights_digest(teacher.teacher_params),
        path=type(teacher.path).__name__,
        settings=(guidance_range, steps, batch_size, seed),
        code=cache.code_digest(samplers),
    )

    def batches() -> Iterator[dict[str, np.ndarray]]:
        done = 0
        asked = scenes.replacing(given)
        for latents in _samples(asked, teacher, guidance, steps, batch_size, seed):
            yield {'latents': latents}
            done += len(latents)
            if progress:
                progress(done)

    made = cache.ensure(
        Path(folder) / key, lambda new: cache.fill_arrays(new, len(scenes), batches())
    )
    return scenes.replacing(cache.open_arrays(made)[0] | given | {'guidance': guidance})


def recordings_as_samples(
    recorded: EncodedScenes, teacher: Teacher, guidance_range: tuple[float, float], seed: int
) -> EncodedScenes:
    """Recordings as samples of their own captions, in the form of `sample_teacher`.

    Guidance gives more of what a caption names. A recording is all of that, so it is right at every
    scale: each gets one, drawn as a teacher's are. It is conditioned on its caption alone.

    Args:
        recorded: unmixed recordings.
        teacher: in whose arrays.
        guidance_range: of scales.
        seed: of scales.

    Raises:
        ValueError: the range is not 0 < low <= high.
    """
    given = _dropped(recorded, teacher, ConditionDropout(text=0.0, timeline=1.0), seed)
    return recorded.replacing(given | {'guidance': _guidance(seed, guidance_range, len(recorded))})


def _samples(
    scenes: EncodedScenes,
    teacher: Teacher,
    guidance: Float[np.ndarray, ' N'],
    steps: int,
    batch_size: int,
    seed: int,
) -> Iterator[np.ndarray]:
    """Float16 latents of the guided teacher by DPM-Solver++(2M), some scenes at a time.

    One compiled program for all batches, each split over this process's devices. What a batch
    lacks of the stored frames, which are not always whole tokens, is zero.
    """
    # Where there are several processes, one makes them for all.
    mesh, count = data_mesh(batch_size, devices=jax.local_devices()), len(scenes)
    params, start = replicate(mesh, teacher.teacher_params), random_key(seed + _STREAM)
    frames = scenes.arrays['latents'].shape[1]

    @jax.jit
    def sample(params, batch, scale, key):
        noise = jax.random.normal(key, batch.latents.shape)
        guided = teacher.guided(params, batch.conditioning, scale)
        return samplers.dpm_solver_pp_2m(guided, teacher.path, noise, time_grid(steps))

    for first in range(0, count, batch_size):
        rows = np.minimum(np.arange(first, first + batch_size), count - 1)  # of one shape
        split = shard_batch(mesh, (teacher.to_batch(scenes.rows(rows)), guidance[rows]))
        latents = sample(params, *split, jax.random.fold_in(start, first))
        latents = np.asarray(latents[: count - first], np.float16)
        yield np.pad(latents, ((0, 0), (0, frames - latents.shape[1]), (0, 0)))


def _dropped(
    scenes: EncodedScenes, teacher: Teacher, dropout: ConditionDropout, seed: int
) -> dict[str, np.ndarray]:
    return teacher.drop_rows(scenes.arrays, dropout, np.random.default_rng(seed + _STREAM))


def _guidance(
    seed: int, guidance_range: tuple[float, float], count: int
) -> Float[np.ndarray, ' N']:
    key = jax.random.fold_in(random_key(seed), _STREAM)
    return np.asarray(draw_guidance(key, count, guidance_range))
