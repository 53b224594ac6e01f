"""Imitation: one student of several, each of which knows a part of the way best.

What sounds is settled while there is much noise, how it sounds and when while there is little, so
networks that are best at one are not best at the other (denoisers of one noise level each: Balaji
et al. 2022, arXiv 2211.01324, sec. 4). Students of the same size and step counts, the experts,
share a walk of n steps, one above t = 1/2 and one from there on. A single student learns both:

    x_1 = noise,    x_{t - 1/n} = DDIM(x_t, expert_t(x_t, t; 1/n))                           (1)
    loss = w(t) |student(x_t, t; 1/n) - expert_t(x_t, t; 1/n)|^2                             (2)

at one step of the walk, drawn evenly. There is one answer to each question, so this needs a tenth
of the updates of a score of samples; sound is not looked at, and no teacher asked.
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
)
from realaudio_jax.noise import NoisePath, ddim_step, weighted_error
from realaudio_jax.typing import Any, Array, Float, Key, PyTree

Walks = tuple[tuple[int, int, int], ...]


@flax.struct.dataclass
class Imitation:
    """Imitation of experts as a `Recipe`.

    Attributes:
      experts: parameters of all of them, each leaf stacked: [E, ...].
      student: see `recipe`; the experts are called the same way.
      path: the noise path.
      walks: (steps, which expert above t = 1/2, which from there on); one is drawn per update.
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
        """Equation 2 at one random step of one random walk; see `recipe`."""
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
        loss = weighted_error(prediction, target, self.path, at * length, batch.mask)
        return loss, {'loss': jnp.mean(loss)}
