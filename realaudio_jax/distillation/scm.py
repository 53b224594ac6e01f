"""Continuous-time consistency (sCM) across step counts: `consistency` with a teacher step of zero.

Simplified consistency models (Lu & Song 2024, arXiv 2410.11081) let the teacher's step of
consistency distillation go to zero, which removes its discretisation error and its setting. The
segments, and the step size 1/s that selects one, are those of `consistency`: inside the segment
that ends at b, the student's DDIM step F to b (`flow_map`, 1, with step size 1/s) is constant along
the teacher's ODE:

    g = dF/dt along the teacher's ODE, t -> b (`flow_map`, 3)                                (1)
    n = g / (|g| + floor),  |.| the root mean square over real frames of an item             (2)
    target = stop(student(x_t, t; 1/s) - n)                                                  (3)
    loss = w(t) |student(x_t, t; 1/s) - target|^2                                            (4)

The gradient of (4) is 2 w(t) n d student. With n = g it is the gradient of `Consistency` with the
student itself as target, divided by the teacher step delta and times k of `flow_map`, as
delta -> 0 (k = 1 for one segment). On the cosine path with a network that predicts v this is
TrigFlow, sigma_d = 1: F is cos(a) x_t - sin(a) v, a = pi (t - b) / 2.

Deliberate differences: several segments; the truncated signal-to-noise weight instead of 1 / tan(t)
with a learned one; times are uniform; no warm-up of the tangent, since the student begins as its
teacher and from the progressive stages; (2) normalises g rather than cos(t) g.
"""

import flax.struct
import jax
import jax.numpy as jnp

from realaudio_jax.distillation.consistency import draw_times
from realaudio_jax.distillation.flow_map import flow_map_derivative, total_derivative
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
from realaudio_jax.noise import NoisePath, diffuse, per_item
from realaudio_jax.typing import Array, Float, Key, PyTree


@flax.struct.dataclass
class ContinuousConsistency:
    """Continuous-time consistency distillation as a `Recipe`.

    Attributes:
        student, teacher: see `recipe`.
        path: the noise path.
        segments: counts s to serve; one is drawn per item.
        normalize: divide the tangent as in equation 2; otherwise n = g.
        floor: of equation 2, positive.
        guidance_range: guidance scales to cover.
    """

    student: Student = flax.struct.field(pytree_node=False)
    teacher: Teacher = flax.struct.field(pytree_node=False)
    path: NoisePath = flax.struct.field(pytree_node=False)
    segments: tuple[Count, ...] = flax.struct.field(pytree_node=False, default=(1, 2, 4, 8))
    normalize: bool = flax.struct.field(pytree_node=False, default=True)
    floor: float = flax.struct.field(pytree_node=False, default=0.1)
    guidance_range: tuple[float, float] = flax.struct.field(pytree_node=False, default=(1.0, 4.0))

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """Equation 4 for one random count, time and guidance scale per item; see `recipe`."""
        del target_params  # the target is the student itself
        size, c = len(batch.latents), batch.conditioning
        *keys_times, key_noise, key_guidance = jax.random.split(key, 5)
        count, bound, t = draw_times(keys_times, size, self.segments)
        guidance = draw_guidance(key_guidance, size, self.guidance_range)
        x_t = diffuse(self.path, batch.latents, noise_like(key_noise, batch.latents), t)

        def predict(params):
            return self.student(params, c, guidance, 1.0 / count)

        teacher_x0 = self.teacher(teacher_params, c, guidance)(x_t, t)
        frozen = predict(jax.lax.stop_gradient(student_params))
        x0, derivative = total_derivative(frozen, self.path, x_t, t, teacher_x0)
        tangent = flow_map_derivative(self.path, x0, derivative, teacher_x0, t, bound)
        norm = jnp.sqrt(frame_mean(jnp.mean(jnp.square(tangent), axis=-1), batch.mask))
        if self.normalize:
            tangent = tangent / per_item(norm + self.floor, tangent)
        target = jax.lax.stop_gradient(x0 - tangent)

        prediction = predict(student_params)(x_t, t)
        loss = snr_weighted_error(prediction, target, self.path, t, batch.mask)
        return loss, {'loss': jnp.mean(loss), 'tangent': jnp.mean(norm)}
