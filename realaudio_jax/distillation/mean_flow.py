"""Improved MeanFlow: regression of a flow map on the velocity of its teacher.

MeanFlow (Geng et al. 2025, arXiv 2505.13447) learns the average velocity u between two times from
its identity u = v - (t - s) du/dt; the improved version (Geng et al. 2025, arXiv 2512.02012) writes
it as a regression on v whose input is x_t alone:

    V = u(x_t, t, s) + (t - s) stop(du/dt),     loss = |V - v|^2                             (1)

du/dt is the total derivative along the marginal velocity, predicted by the network itself at s = t.
In the student interface, with F, dF/dt, c and the teacher's D_T of `flow_map`, (1) is

    target = stop(D + dF/dt / c) = stop(D + r (D_T - D) + (k / c) dD/dt)                     (2)
    loss = w(t) a |student(x_t, t; t - s) - target|^2                                        (3)
    a = 1 / (error + 0.001)^p, not differentiated; error is the masked mean square of (3)    (4)

On the straight path c = -1/t and u = (x_t - D) / t, and (2) is the identity, term by term. At s = t
the target is the teacher's prediction. Deliberate differences: v is the velocity of the guided
teacher, not a sample's (its variance is gone, and guidance is folded in at every scale); the
derivative is taken along this same v unless `own_direction`; w is the project's weight; times are
uniform.
"""

import flax.struct
import jax
import jax.numpy as jnp

from realaudio_jax.distillation.flow_map import (
    flow_map_derivative,
    teacher_rate,
    total_derivative,
)
from realaudio_jax.distillation.recipe import (
    Batch,
    Metrics,
    Student,
    Teacher,
    draw_guidance,
    noise_like,
    snr_weighted_error,
)
from realaudio_jax.noise import NoisePath, diffuse, per_item
from realaudio_jax.typing import Array, Float, Key, PyTree


@flax.struct.dataclass
class MeanFlow:
    """Improved MeanFlow distillation as a `Recipe`.

    Attributes:
        student, teacher: see `recipe`.
        path: the noise path.
        instant_share: of items with s = t, in [0, 1]: plain regression on the teacher.
        adaptive_power: p of equation 4; 0 weights all errors alike.
        own_direction: the derivative follows the student's velocity at s = t, as in the paper (one
            forward pass more), instead of the teacher's.
        guidance_range: guidance scales to cover.
    """

    student: Student = flax.struct.field(pytree_node=False)
    teacher: Teacher = flax.struct.field(pytree_node=False)
    path: NoisePath = flax.struct.field(pytree_node=False)
    instant_share: float = flax.struct.field(pytree_node=False, default=0.5)
    adaptive_power: float = flax.struct.field(pytree_node=False, default=1.0)
    own_direction: bool = flax.struct.field(pytree_node=False, default=False)
    guidance_range: tuple[float, float] = flax.struct.field(pytree_node=False, default=(1.0, 4.0))

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """Equation 3 for one random pair of times and guidance scale per item; see `recipe`."""
        del target_params
        size, c = len(batch.latents), batch.conditioning
        key_times, key_instant, key_noise, key_guidance = jax.random.split(key, 4)
        times = jax.random.uniform(key_times, (2, size), minval=0.02, maxval=1.0)
        t, s = jnp.max(times, axis=0), jnp.min(times, axis=0)
        # 0.02 stands for the data itself: a sampler's last step ends at s = 0.
        s = jnp.where(s < 0.04, 0.0, s)
        s = jnp.where(jax.random.uniform(key_instant, (size,)) < self.instant_share, t, s)
        guidance = draw_guidance(key_guidance, size, self.guidance_range)
        x_t = diffuse(self.path, batch.latents, noise_like(key_noise, batch.latents), t)

        def predict(params, x, t):
            return self.student(params, c, guidance, t - s)(x, t)

        frozen = jax.lax.stop_gradient(student_params)
        teacher_x0 = self.teacher(teacher_params, c, guidance)(x_t, t)
        direction = teacher_x0
        if self.own_direction:
            direction = self.student(frozen, c, guidance, jnp.zeros(size))(x_t, t)
        x0, derivative = total_derivative(
            lambda x, t: predict(frozen, x, t), self.path, x_t, t, direction
        )
        change = flow_map_derivative(self.path, x0, derivative, teacher_x0, t, s)
        target = jax.lax.stop_gradient(x0 + change / per_item(teacher_rate(self.path, t), x0))

        prediction = predict(student_params, x_t, t)
        error = snr_weighted_error(prediction, target, self.path, t, batch.mask)
        loss = error * jax.lax.stop_gradient(error + 1e-3) ** -self.adaptive_power
        return loss, {'loss': jnp.mean(loss), 'error': jnp.mean(error)}
