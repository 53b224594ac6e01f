"""Consistency trajectory models without their adversary: a flow map between any two times.

Kim et al. 2023, "Consistency Trajectory Models" (arXiv 2310.02279). Their map G(x_t, t, s) is the
flow map F of `flow_map` (on their path the same formula), their g the student's prediction at step
size t - s. With times t > u >= s,

    z_u = DDIM(x_t, guided teacher, t -> u), K steps                                         (1)
    z   = F(z_u, u, s) by the older student                                                  (2)
    z'  = F(x_t, t, s) by the student                                                        (3)
    compared at time 0: a = F(z', s, 0), b = F(z, s, 0), both by the older student           (4)
    loss = |a - b|^2 + lambda w(t) |student(x_t, t; 0) - guided teacher(x_t, t)|^2           (5)

The gradient of (5) passes (4), but not the older student's parameters. (1) starts with the
prediction of the teacher that the last term needs. Deliberate differences: no adversarial term; the
last term regresses on the guided teacher where the paper has the data, so guidance is folded in;
the solver is DDIM; |.|^2 is the masked mean square of latents rather than a perceptual distance,
weighted 1 since (4) has no noise left.
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
    frame_mean,
    noise_like,
    snr_weighted_error,
)
from realaudio_jax.noise import NoisePath, ddim_step, diffuse
from realaudio_jax.typing import Array, Float, Key, Leaf, PyTree


@flax.struct.dataclass
class ConsistencyTrajectory:
    """Consistency trajectory distillation as a `Recipe`.

    Attributes:
        teacher_step: longest step of the teacher's solver.
        student, teacher: see `recipe`.
        path: the noise path.
        teacher_steps: K, steps of the solver.
        denoising_weight: lambda.
        guidance_range: guidance scales to cover.
    """

    teacher_step: Leaf['']
    student: Student = flax.struct.field(pytree_node=False)
    teacher: Teacher = flax.struct.field(pytree_node=False)
    path: NoisePath = flax.struct.field(pytree_node=False)
    teacher_steps: Count = flax.struct.field(pytree_node=False, default=2)
    denoising_weight: float = flax.struct.field(pytree_node=False, default=1.0)
    guidance_range: tuple[float, float] = flax.struct.field(pytree_node=False, default=(1.0, 4.0))

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """Equation 5 for random times and a guidance scale per item; see `recipe`."""
        size, c = len(batch.latents), batch.conditioning
        key_t, key_s, key_u, key_noise, key_guidance = jax.random.split(key, 5)
        t = jax.random.uniform(key_t, (size,), minval=0.02)
        # The lowest tenth is s = 0, where the loss is on the prediction itself.
        s = t * jnp.maximum(jax.random.uniform(key_s, (size,), minval=-0.1, maxval=0.98), 0.0)
        longest = jnp.minimum(self.teacher_steps * self.teacher_step, t - s)
        u = t - longest * (1.0 - jax.random.uniform(key_u, (size,)))
        guidance = draw_guidance(key_guidance, size, self.guidance_range)
        x_t = diffuse(self.path, batch.latents, noise_like(key_noise, batch.latents), t)
        older = jax.lax.stop_gradient(target_params)

        def bound(params, step_size):
            return self.student(params, c, guidance, step_size)

        teacher = self.teacher(teacher_params, c, guidance)
        teacher_x0 = x0 = teacher(x_t, t)
        x, now = x_t, t
        for j in range(1, self.teacher_steps + 1):
            then = t + (u - t) * (j / self.teacher_steps)
            x = ddim_step(self.path, x, x0, now, then)
            now = then
            if j < self.teacher_steps:
                x0 = teacher(x, now)

        def to_data(x):
            return flow_map(self.path, bound(older, s), x, s, jnp.zeros(size))

        target = to_data(flow_map(self.path, bound(older, u - s), x, u, s))
        mine = to_data(flow_map(self.path, bound(student_params, t - s), x_t, t, s))
        square = jnp.square(mine - jax.lax.stop_gradient(target))
        trajectory = frame_mean(jnp.mean(square, axis=-1), batch.mask)
        prediction = bound(student_params, jnp.zeros(size))(x_t, t)
        wanted = jax.lax.stop_gradient(teacher_x0)
        denoising = snr_weighted_error(prediction, wanted, self.path, t, batch.mask)
        loss = trajectory + self.denoising_weight * denoising
        metrics = {
            'loss': jnp.mean(loss),
            'trajectory': jnp.mean(trajectory),
            'denoising': jnp.mean(denoising),
        }
        return loss, metrics
