"""Progressive distillation: each student step learns several steps of its teacher.

Salimans & Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models" (arXiv
2202.00512), with the guidance of the first teacher folded into the student by an embedding (Meng et
al. 2022, arXiv 2210.03142). A run is a sequence of stages, for instance

    64 (guidance)  ->  32  ->  16  ->  8  ->  4.

With N student steps of length 1/N and ratio k, time t = i/N and s = (i - 1)/N:

    z_0 = alpha_t x + sigma_t eps                                                            (1)
    z_{j+1} = DDIM(z_j, teacher(z_j, t_j), t_j -> t_{j+1}),  t_j = t - j / (k N),  j < k      (2)
    target: the x_0 for which one DDIM step from z_0 at t lands on z_k at s                  (3)
    loss = w(t) |student(z_0, t; 1/N) - target|^2                                            (4)

(2) and (3) are algorithm 2 of the paper (k = 2 there), solved for x_0 by `noise.invert_ddim_step`.
With k = 1 the target is the guided teacher's own prediction: the stage that folds guidance in.
"""

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
from realaudio_jax.typing import Any, Array, Float, Key, Leaf, PyTree


@flax.struct.dataclass
class Progressive:
    """One stage of progressive distillation as a `Recipe`.

    Attributes:
        student, teacher: see `recipe`.
        path: the noise path.
        student_steps: N, steps over [0, 1] of the student being trained.
        ratio: k, steps of the previous student in one of this one.
        from_teacher: the target is the guided teacher; otherwise `target_params`, the student of
            the stage before, which has the guidance folded in.
        guidance_range: guidance scales to cover.
    """

    student_steps: Leaf['']
    student: Student = flax.struct.field(pytree_node=False)
    teacher: Teacher = flax.struct.field(pytree_node=False)
    path: NoisePath = flax.struct.field(pytree_node=False)
    ratio: Count = flax.struct.field(pytree_node=False, default=2)
    from_teacher: bool = flax.struct.field(pytree_node=False, default=False)
    guidance_range: tuple[float, float] = flax.struct.field(pytree_node=False, default=(1.0, 4.0))

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """Equation 4 for one random step and guidance scale per item; see `recipe`."""
        size = batch.latents.shape[0]
        key_step, key_noise, key_guidance = jax.random.split(key, 3)
        steps = jnp.asarray(self.student_steps, jnp.float32)
        index = jnp.ceil(jax.random.uniform(key_step, (size,), minval=1e-6) * steps)
        t, s = index / steps, (index - 1) / steps
        guidance = draw_guidance(key_guidance, size, self.guidance_range)
        c = batch.conditioning

        if self.from_teacher:
            previous = self.teacher(teacher_params, c, guidance)
        else:
            shorter = jnp.full((size,), 1.0) / (steps * self.ratio)
            previous = self.student(target_params, c, guidance, shorter)
        x_t = diffuse(self.path, batch.latents, noise_like(key_noise, batch.latents), t)
        x, now = x_t, t
        for j in range(1, self.ratio + 1):
            then = t + (s - t) * (j / self.ratio)
            x = ddim_step(self.path, x, previous(x, now), now, then)
            now = then
        target = jax.lax.stop_gradient(invert_ddim_step(self.path, x_t, x, t, s))

        step_size = jnp.full((size,), 1.0) / steps
        prediction = self.student(student_params, c, guidance, step_size)(x_t, t)
        loss = snr_weighted_error(prediction, target, self.path, t, batch.mask)
        return loss, {'loss': jnp.mean(loss)}


def stages(steps: tuple[int, ...], **settings: Any) -> list[dict[str, Any]]:
    """A run of progressive distillation as stages of a config, the guidance stage first.

    Args:
        steps: of the student after each stage, strictly decreasing, each a multiple of the next,
            such as (64, 32, 16, 8, 4) or (48, 24, 12, 4).
        settings: of every stage, such as updates and learning_rate.

    Raises:
        ValueError: the sequence is empty, does not decrease, or one count does not divide another.
    """
    if not steps or min(steps) < 1:
        raise ValueError(
            f'steps {steps} must be one or more positive counts, such as 64, 32, 16, 8, 4'
        )
    for before, after in zip(steps, steps[1:], strict=False):
        if after >= before or before % after:
            raise ValueError(
                f'steps {steps}: {after} must be smaller than {before} and divide it, so that one '
                'student step covers whole teacher steps'
            )
    ratios = [1, *(before // after for before, after in zip(steps, steps[1:], strict=False))]
    return [
        dict(
            name=f'progressive {count}',
            recipe='progressive',
            student_steps=count,
            ratio=ratio,
            from_teacher=count == steps[0],
            target='previous',
            **settings,
        )
        for count, ratio in zip(steps, ratios, strict=True)
    ]
