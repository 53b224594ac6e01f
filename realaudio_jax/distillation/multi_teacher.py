"""Multi-teacher distillation: one student learns trajectories that several teachers share.

What sounds is decided at high noise, how and exactly when at low noise, and a network that is best
at one need not be best at the other (one denoiser for each range of noise levels: Balaji et al.
2022, arXiv 2211.01324, sec. 4). The teachers here are earlier students of the same size and step
counts. Two of them share a trajectory of n steps: one serves t > 1/2, one the rest. A single
student learns both:

    x_1 = noise,    x_{t - 1/n} = DDIM(x_t, teacher_t(x_t, t; 1/n))                          (1)
    loss = w(t) |student(x_t, t; 1/n) - teacher_t(x_t, t; 1/n)|^2                            (2)

at one step of the trajectory, drawn uniformly. The target is a function of the student's input, so
plain regression suffices. Neither data nor the guided teacher is used.
"""

import flax.struct
import jax
import jax.numpy as jnp

from realaudio_jax.distillation.recipe import (
    Batch,
    Metrics,
    Student,
    guidance_of,
    noise_like,
    snr_weighted_error,
)
from realaudio_jax.noise import NoisePath, ddim_step
from realaudio_jax.typing import Any, Array, Float, Key, PyTree

Trajectories = tuple[tuple[int, int, int], ...]


@flax.struct.dataclass
class MultiTeacher:
    """Multi-teacher distillation as a `Recipe`.

    Attributes:
        teachers: parameters of all of them, each leaf stacked: [E, ...].
        student: see `recipe`; the teachers are called the same way.
        path: the noise path.
        trajectories: (steps, teacher for t > 1/2, teacher below); one is drawn per update.
        guidance_range: guidance scales to cover, where the batch has none.
    """

    teachers: Any
    student: Student = flax.struct.field(pytree_node=False)
    path: NoisePath = flax.struct.field(pytree_node=False)
    trajectories: Trajectories = flax.struct.field(pytree_node=False)
    guidance_range: tuple[float, float] = flax.struct.field(pytree_node=False, default=(1.0, 4.0))

    @classmethod
    def require(cls, teachers: Any, trajectories: Trajectories, **given: Any) -> None:
        """Refuses trajectories of teachers that are not there, with a ValueError."""
        del given
        count = len(jax.tree.leaves(teachers)[0]) if jax.tree.leaves(teachers) else 0
        if not all(0 <= which < count for trajectory in trajectories for which in trajectory[1:]):
            raise ValueError(
                f'trajectories {trajectories} ask for teachers that are not there: --multi_teacher '
                f'gives {count}, counted from 0'
            )

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """Equation 2 at one random step of one random trajectory; see `recipe`."""
        del target_params, teacher_params
        size = len(batch.latents)
        key_trajectory, key_step, key_noise, key_guidance = jax.random.split(key, 4)
        drawn = jax.random.randint(key_trajectory, (), 0, len(self.trajectories))
        steps, above, below = jnp.asarray(self.trajectories)[drawn]
        at = jax.random.randint(key_step, (), 1, steps + 1)  # steps left at the student's input
        guidance = guidance_of(batch, key_guidance, self.guidance_range)
        step_size = jnp.full((size,), 1.0 / steps)

        def predict(params, x, left):
            return self.student(params, batch.conditioning, guidance, step_size)(
                x, left * step_size
            )

        def teacher(x, left):
            which = jnp.where(2 * left > steps, above, below)
            return predict(jax.tree.map(lambda leaf: leaf[which], self.teachers), x, left)

        def step(i, x):
            left = steps - i
            t, s = left * step_size, (left - 1) * step_size
            return ddim_step(self.path, x, teacher(x, left), t, s).astype(x.dtype)

        x = jax.lax.fori_loop(0, steps - at, step, noise_like(key_noise, batch.latents))
        target, x = jax.lax.stop_gradient((teacher(x, at), x))
        prediction = predict(student_params, x, at)
        loss = snr_weighted_error(prediction, target, self.path, at * step_size, batch.mask)
        return loss, {'loss': jnp.mean(loss)}
