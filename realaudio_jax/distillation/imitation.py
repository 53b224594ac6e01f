"""Multi-teacher distillation: one student learns trajectories that several students share.

What sounds is decided at high noise, how and exactly when at low noise, and a network that is best
at one need not be best at the other (one denoiser for each range of noise levels: Balaji et al.
2022, arXiv 2211.01324, sec. 4). Students of the same size and step counts, the experts, share a
trajectory of n steps: one serves t > 1/2, one the rest. A single student learns both:

    x_1 = noise,    x_{t - 1/n} = DDIM(x_t, expert_t(x_t, t; 1/n))                           (1)
    loss = w(t) |student(x_t, t; 1/n) - expert_t(x_t, t; 1/n)|^2                             (2)

at one step of the trajectory, drawn uniformly. The target is a function of the student's input, so
plain regression suffices. Neither data nor teacher is used.
"""

import flax.struct
import jax
import jax.numpy as jnp

from realaudio_jax.distillation.recipe import (
    Batch,
    Metrics,
    Student,
    draw_guidance,
    noise_like,
    snr_weighted_error,
)
from realaudio_jax.noise import NoisePath, ddim_step
from realaudio_jax.typing import Any, Array, Float, Key, PyTree

Walks = tuple[tuple[int, int, int], ...]


@flax.struct.dataclass
class Imitation:
    """Multi-teacher distillation as a `Recipe`.

    Attributes:
      experts: parameters of all of them, each leaf stacked: [E, ...].
      student: see `recipe`; the experts are called the same way.
      path: the noise path.
      walks: trajectories (steps, expert for t > 1/2, expert below); one is drawn per update.
      guidance_range: guidance scales to cover, where the batch has none.
    """

    experts: Any
    student: Student = flax.struct.field(pytree_node=False)
    path: NoisePath = flax.struct.field(pytree_node=False)
    walks: Walks = flax.struct.field(pytree_node=False)
    guidance_range: tuple[float, float] = flax.struct.field(pytree_node=False, default=(1.0, 4.0))

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
        key_walk, key_step, key_noise, key_guidance = jax.random.split(key, 4)
        walk = jax.random.randint(key_walk, (), 0, len(self.walks))
        steps, above, below = jnp.asarray(self.walks)[walk]
        at = jax.random.randint(key_step, (), 1, steps + 1)  # steps to go when it is asked
        guidance = batch.guidance
        if guidance is None:
            guidance = draw_guidance(key_guidance, size, self.guidance_range)
        length = jnp.full((size,), 1.0 / steps)

        def answer(params, x, to_go):
            return self.student(params, batch.conditioning, guidance, length)(x, to_go * length)

        def expert(x, to_go):
            which = jnp.where(2 * to_go > steps, above, below)
            return answer(jax.tree.map(lambda leaf: leaf[which], self.experts), x, to_go)

        def step(i, x):
            to_go = steps - i
            t, s = to_go * length, (to_go - 1) * length
            return ddim_step(self.path, x, expert(x, to_go), t, s).astype(x.dtype)

        x = jax.lax.fori_loop(0, steps - at, step, noise_like(key_noise, batch.latents))
        target, x = jax.lax.stop_gradient((expert(x, at), x))
        prediction = answer(student_params, x, at)
        loss = snr_weighted_error(prediction, target, self.path, at * length, batch.mask)
        return loss, {'loss': jnp.mean(loss)}
