"""Consistency distillation across step counts: one network for 1, 2, 4 and 8 steps.

Multistep consistency models (Heek et al. 2024, arXiv 2403.06807) cut [0, 1] into s equal segments;
inside a segment that ends at b, the student's DDIM step to b arrives at the same point from every
time:

    t in (b, b + 1/s],  t' = max(t - delta, b)                                               (1)
    z_t  = alpha_t x + sigma_t eps                                                           (2)
    z_t' = DDIM(z_t, guided teacher(z_t, t), t -> t')                                        (3)
    z_b  = DDIM(z_t', target student(z_t', t'), t' -> b)                                     (4)
    target: the x_0 for which one DDIM step from z_t at t lands on z_b at b                  (5)
    loss = w(t) |student(z_t, t; 1/s) - target|^2                                            (6)

(algorithm 1 of the paper with the deterministic teacher step of its distillation variant, and a
teacher whose guidance is drawn per item). Two deliberate differences: s is drawn per item and given
to the student as its step size, so one set of weights serves all counts; and the target
student is the exponential average of the student rather than the student itself.
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp

from realaudio_jax.distillation.recipe import (
    Batch,
    Count,
    Metrics,
    Student,
    Teacher,
    draw_guidance,
    noise_like,
    snr_weighted_error,
)
from realaudio_jax.noise import NoisePath, ddim_step, diffuse, invert_ddim_step
from realaudio_jax.typing import Array, Float, Key, Leaf, PyTree


@flax.struct.dataclass
class Consistency:
    """Multistep consistency distillation as a `Recipe`.

    Attributes:
        student, teacher: see `recipe`.
        path: the noise path.
        teacher_step: delta, length of the teacher's step.
        segments: counts s to serve; one is drawn per item.
        guidance_range: guidance scales to cover.
    """

    teacher_step: Leaf['']
    student: Student = flax.struct.field(pytree_node=False)
    teacher: Teacher = flax.struct.field(pytree_node=False)
    path: NoisePath = flax.struct.field(pytree_node=False)
    segments: tuple[Count, ...] = flax.struct.field(pytree_node=False, default=(1, 2, 4, 8))
    guidance_range: tuple[float, float] = flax.struct.field(pytree_node=False, default=(1.0, 4.0))

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """Equation 6 for one random count, time and guidance scale per item; see `recipe`."""
        size = batch.latents.shape[0]
        *keys_times, key_noise, key_guidance = jax.random.split(key, 5)
        s, bound, t = draw_times(keys_times, size, self.segments)
        earlier = jnp.maximum(t - self.teacher_step, bound)
        guidance = draw_guidance(key_guidance, size, self.guidance_range)
        c, step_size = batch.conditioning, 1.0 / s

        x_t = diffuse(self.path, batch.latents, noise_like(key_noise, batch.latents), t)
        x0 = self.teacher(teacher_params, c, guidance)(x_t, t)
        x_earlier = ddim_step(self.path, x_t, x0, t, earlier)
        x0 = self.student(target_params, c, guidance, step_size)(x_earlier, earlier)
        x_bound = ddim_step(self.path, x_earlier, x0, earlier, bound)
        target = jax.lax.stop_gradient(invert_ddim_step(self.path, x_t, x_bound, t, bound))

        prediction = self.student(student_params, c, guidance, step_size)(x_t, t)
        loss = snr_weighted_error(prediction, target, self.path, t, batch.mask)
        metrics = {'loss': jnp.mean(loss)}
        for count in self.segments:
            mine = (s == count).astype(loss.dtype)
            metrics[f'loss_{count}'] = jnp.sum(loss * mine) / jnp.maximum(jnp.sum(mine), 1.0)
        return loss, metrics


def draw_times(
    keys: Sequence[Key[Array, '']], size: int, segments: tuple[int, ...]
) -> tuple[Float[Array, 'B'], Float[Array, 'B'], Float[Array, 'B']]:
    """A count s, the end b of a segment and a time t in it, per item: equation 1.

    Args:
        keys: three random keys.
        size: B.
        segments: counts to choose from.
    """
    key_count, key_segment, key_time = keys
    counts = jnp.asarray(segments, jnp.float32)
    s = counts[jax.random.randint(key_count, (size,), 0, len(segments))]
    bound = jnp.floor(jax.random.uniform(key_segment, (size,)) * s) / s
    # A step shorter than a fiftieth of the segment would divide by almost nothing in (5).
    t = bound + jax.random.uniform(key_time, (size,), minval=0.02, maxval=1.0) / s
    return s, bound, t
