"""What a student predicts on trajectories of its own, for the recipes whose loss is of its samples.

A loss on samples has to see the student where its sampler will take it. Following the "backward
simulation" of DMD2 (Yin et al. 2024, arXiv 2405.14867, sec. 4.5), its input is reached by the
student's own steps from noise, with no gradient:

    N drawn of the step counts, j = 1 ... N, t = j / N                                       (1)
    x_1 = noise,    x_{s - 1/N} = DDIM(x_s, student(x_s, s; 1/N))    down to s = t           (2)
    sample = student(x_t, t; 1/N)                                                            (3)

Deliberate difference: the steps are those of DDIM, with which students are sampled here, where the
paper adds fresh noise. What a sampler of N steps returns is (3) at j = 1.
"""

import jax
import jax.numpy as jnp

from realaudio_jax.distillation.recipe import Batch, Student, noise_like
from realaudio_jax.noise import NoisePath, ddim_step
from realaudio_jax.typing import Array, Float, Key, PyTree


def own_sample(
    student: Student,
    path: NoisePath,
    params: PyTree,
    batch: Batch,
    guidance: Float[Array, 'B'],
    segments: tuple[int, ...],
    key: Key[Array, ''],
) -> Float[Array, 'B L C']:
    """Equation 3; the gradient passes its one evaluation.

    Args:
        student: see `recipe`.
        path: the noise path.
        params: of the student.
        batch: gives shapes and conditioning.
        guidance: scale.
        segments: step counts, of which one is drawn for the batch.
        key: of the count, the step and the noise.
    """
    key_count, key_step, key_noise = jax.random.split(key, 3)
    steps = jnp.asarray(segments)[jax.random.randint(key_count, (), 0, len(segments))]
    left = jax.random.randint(key_step, (), 1, steps + 1)
    step_size = jnp.full(len(batch.latents), 1.0 / steps)

    def predict(params, x, left):
        return student(params, batch.conditioning, guidance, step_size)(x, left * step_size)

    frozen = jax.lax.stop_gradient(params)

    def step(i, x):
        now = steps - i
        x0 = predict(frozen, x, now)
        return ddim_step(path, x, x0, now * step_size, (now - 1) * step_size).astype(x.dtype)

    x = jax.lax.fori_loop(0, steps - left, step, noise_like(key_noise, batch.latents))
    return predict(params, jax.lax.stop_gradient(x), left)
