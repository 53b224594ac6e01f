"""What rounding the products of a student changes at each of its steps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import noise
from realaudio_jax.data.scenes import Scene
from realaudio_jax.generator import Generator
from realaudio_jax.metrics.evaluation.generate import (
    BATCH,
    SamplerConfig,
    bucket_of,
    one_duration,
)
from realaudio_jax.metrics.rows import mean_row
from realaudio_jax.metrics.similarity import step_coherence
from realaudio_jax.models.denoiser import PATH, as_denoiser
from realaudio_jax.program import condition, start_noise
from realaudio_jax.random import random_key
from realaudio_jax.timeline import Timeline

STEP_COSINE = 'cosine of the prediction, worst step'


def step_cosine_row(
    generator: Generator,
    scenes: Sequence[Scene],
    sampler: SamplerConfig,
    against: SamplerConfig,
    seed: int = 0,
    batch: int = BATCH,
) -> dict:
    """Cosine between the x_0 that two precisions predict, at the step where it is the lowest.

    Both are given the latents that `against` comes through, so that a step is not charged with the
    steps before it; each encodes the text itself.

    Args:
        generator: the release.
        scenes: what is asked for, all of one duration.
        sampler, against: of a student, with as many steps of DDIM.
        seed: of the first sound's noise, and of the interval.
        batch: sounds per call.
    """
    seconds = one_duration(scenes)
    bucket = bucket_of(sampler, seconds, batch)
    pair = [generator.in_precision(of.precision) for of in (against, sampler)]
    networks, weights = generator.networks, [of.programs.weights_for(bucket) for of in pair]
    power = dict(networks.grid_powers).get(bucket.steps, 1.0)
    grid = noise.time_grid(bucket.steps, power=power).tolist()
    key_start, _ = jax.random.split(random_key(0))

    @jax.jit
    def predictions(weights, request):
        x = start_noise(key_start, request.seed, bucket.length, networks.channels)
        nothing = jnp.zeros_like(x)
        conditions = [condition(networks, w, request, nothing, nothing[..., 0]) for w in weights]
        found = []
        for t, s in zip(grid[:-1], grid[1:], strict=True):
            u = jnp.full(bucket.batch, t, jnp.float32)
            step = noise.step_size(u, bucket.steps, power)
            both = [
                as_denoiser(networks.denoiser, w['student'], c, request.guidance_scale, step)(x, u)
                for w, c in zip(weights, conditions, strict=True)
            ]
            found.append(both)
            x = noise.ddim_step(PATH, x, both[0], t, s)
        return found

    cosines = []
    for first in range(0, len(scenes), batch):
        part = scenes[first : first + batch]
        rows = [min(i, len(part) - 1) for i in range(batch)]
        request = generator.request(
            [part[i].caption for i in rows],
            [Timeline(part[i].events) for i in rows],
            seconds,
            [seed + first + i for i in rows],
            sampler.columns(generator)['guidance'],
            bucket.length,
        )
        steps = jax.device_get(predictions(weights, request))
        cosines.append(np.stack([step_coherence(*both)[: len(part)] for both in steps], axis=1))
    of_steps = np.concatenate(cosines)
    worst = of_steps[:, of_steps.mean(0).argmin()]
    row = mean_row(STEP_COSINE, worst, seed=seed) | {'against': against.label}
    return row | sampler.columns(generator)
