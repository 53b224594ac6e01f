"""Shortcut models: a step of any size equals two of half the size; the smallest are the teacher's.

Frans et al. 2024, "One Step Diffusion via Shortcut Models" (arXiv 2410.12557), as a distillation.
Step sizes are d = 1/N, N a power of two up to `finest`; F is the flow map of `flow_map`, so the
shortcut s(x_t, t, d) of the paper is the direction of a DDIM step of length d:

    instant updates: target = guided teacher(x_t, t),  at step size 0, any t                 (1)
    others, N drawn, t = i / N:
        z = F(x_t, t, t - d/2),  z = F(z, t - d/2, t - d)  by the average of the student     (2)
        target: the x_0 for which one DDIM step from x_t at t lands on z at t - d            (3)
    loss = w(t) |student(x_t, t; d) - target|^2                                              (4)

For N = `finest` the halves in (2) are made at step size 0. (2) and (3) are `progressive` at every
count at once. Deliberate differences: (1) regresses on the guided teacher in place of data (same
minimiser, less variance, guidance folded in); the kind of target is drawn for the whole batch
rather than for a quarter of its items, so that only one kind is computed.
"""

import flax.struct
import jax
import jax.numpy as jnp

from realaudio_jax.distillation.flow_map import flow_map
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
from realaudio_jax.noise import NoisePath, diffuse, invert_ddim_step
from realaudio_jax.typing import Array, Float, Key, PyTree


@flax.struct.dataclass
class Shortcut:
    """Shortcut models as a `Recipe`.

    Attributes:
        student, teacher: see `recipe`.
        path: the noise path.
        finest: N of the smallest step, a power of two.
        instant_share: of updates that regress on the teacher, in [0, 1].
        guidance_range: guidance scales to cover.
    """

    student: Student = flax.struct.field(pytree_node=False)
    teacher: Teacher = flax.struct.field(pytree_node=False)
    path: NoisePath = flax.struct.field(pytree_node=False)
    finest: Count = flax.struct.field(pytree_node=False, default=64)
    instant_share: float = flax.struct.field(pytree_node=False, default=0.75)
    guidance_range: tuple[float, float] = flax.struct.field(pytree_node=False, default=(1.0, 4.0))

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """Equation 4 for one random kind of update, and a size and time per item; see `recipe`.

        Raises:
            ValueError: `finest` is not a power of two.
        """
        if self.finest < 1 or self.finest & (self.finest - 1):
            raise ValueError(f'finest is {self.finest}: pass a power of two, such as 64')
        size, c = len(batch.latents), batch.conditioning
        key_kind, key_count, key_time, key_noise, key_guidance = jax.random.split(key, 5)
        instant = jax.random.uniform(key_kind) < self.instant_share
        powers = jax.random.randint(key_count, (size,), 0, self.finest.bit_length())
        count = 2.0 ** powers.astype(jnp.float32)
        index = jnp.ceil(jax.random.uniform(key_time, (size,), minval=0.02) * count)
        uniform = jax.random.uniform(jax.random.fold_in(key_time, 1), (size,), minval=0.02)
        t = jnp.where(instant, uniform, index / count)
        length = jnp.where(instant, 0.0, 1.0 / count)
        guidance = draw_guidance(key_guidance, size, self.guidance_range)
        x_t = diffuse(self.path, batch.latents, noise_like(key_noise, batch.latents), t)

        def two_steps():
            half = length / 2
            step_size = jnp.where(count == self.finest, 0.0, half)
            older = self.student(target_params, c, guidance, step_size)
            x = flow_map(self.path, older, x_t, t, t - half)
            x = flow_map(self.path, older, x, t - half, (index - 1) / count)
            return invert_ddim_step(self.path, x_t, x, t, (index - 1) / count).astype(x_t.dtype)

        def teacher():
            return self.teacher(teacher_params, c, guidance)(x_t, t).astype(x_t.dtype)

        target = jax.lax.stop_gradient(jax.lax.cond(instant, teacher, two_steps))
        prediction = self.student(student_params, c, guidance, length)(x_t, t)
        loss = snr_weighted_error(prediction, target, self.path, t, batch.mask)
        return loss, {'loss': jnp.mean(loss)}
