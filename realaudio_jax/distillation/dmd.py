"""Distribution matching: samples of the student are moved to where the teacher finds them likelier.

Yin et al. 2024, "Improved Distribution Matching Distillation" (DMD2, arXiv 2405.14867), after DMD
(Yin et al. 2023, arXiv 2311.18828). The student need not follow the teacher's trajectories: the
divergence KL(student's samples || teacher's) at every noise level has a gradient that is the
difference of two scores. The teacher gives one; the other is of the student's own samples and is
learned beside it by a second network, here called fake. In predictions of x_0, with
a sample x of the student (`own_samples`, 3), u uniform, eps normal:

    x_u = alpha_u x + sigma_u eps                                                            (1)
    real = guided teacher(x_u, u),    fake = fake network(x_u, u; 0)                         (2)
    d = (fake - real) / (mean |x - real| + floor),  the mean over real frames of an item     (3)
    loss of the student = |x - stop(x - d)|^2 / 2,  whose gradient by x is d                 (4)
    loss of the fake network = w(u) |fake - stop(x)|^2                                       (5)

(3) is DMD's weight (its eq. 8): score differences are alpha_u (fake - real) / sigma_u^2. The fake
network is one like the student, which it begins as; it is told the guidance scale, since the
distribution of the samples depends on it, and step size 0. It learns by a higher rate than the
student ("two time-scale", sec. 4.2).

Deliberate differences: the time scales are two learning rates (as in Heusel et al. 2017, arXiv
1706.08500) where the paper makes five updates of the fake network for one of the student; (4) and
(5) share x, u and eps, so that the fake network is evaluated once; no adversarial term, which is
`arc`, and which a weighted sum adds; own trajectories by DDIM, see `own_samples`.
"""

import flax.struct
import jax
import jax.numpy as jnp

from realaudio_jax.distillation.own_samples import own_sample
from realaudio_jax.distillation.recipe import (
    STUDENT,
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

FAKE = 'fake'  # the network that learns the scores of the student's samples


@flax.struct.dataclass
class DistributionMatching:
    """Distribution matching distillation as a recipe that `HasExtraNetworks`.

    Attributes:
        student, teacher: see `recipe`.
        path: the noise path.
        segments: step counts to serve; one is drawn per update.
        fake_rate: learning rate of the fake network over that of the student.
        floor: of equation 3, positive.
        guidance_range: guidance scales to cover.
    """

    student: Student = flax.struct.field(pytree_node=False)
    teacher: Teacher = flax.struct.field(pytree_node=False)
    path: NoisePath = flax.struct.field(pytree_node=False)
    segments: tuple[Count, ...] = flax.struct.field(pytree_node=False, default=(1, 2, 4, 8))
    fake_rate: float = flax.struct.field(pytree_node=False, default=2.0)
    floor: float = flax.struct.field(pytree_node=False, default=1e-3)
    guidance_range: tuple[float, float] = flax.struct.field(pytree_node=False, default=(1.0, 4.0))

    @property
    def extra_rates(self) -> dict[str, float]:
        """Of the fake network."""
        return {FAKE: self.fake_rate}

    def extra_networks(
        self, student_params: PyTree, batch: Batch, key: Key[Array, '']
    ) -> dict[str, PyTree]:
        """The fake network begins as the student."""
        del batch, key
        return {FAKE: student_params}

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """Equations 4 and 5, added, for one sample and noise level per item; see `recipe`."""
        del target_params
        size, c = len(batch.latents), batch.conditioning
        key_sample, key_level, key_noise, key_guidance = jax.random.split(key, 4)
        guidance = draw_guidance(key_guidance, size, self.guidance_range)
        x = own_sample(
            self.student,
            self.path,
            student_params[STUDENT],
            batch,
            guidance,
            self.segments,
            key_sample,
        )
        sample = jax.lax.stop_gradient(x)
        u = jax.random.uniform(key_level, (size,), minval=0.02, maxval=0.98)
        x_u = diffuse(self.path, sample, noise_like(key_noise, batch.latents), u)
        real = self.teacher(teacher_params, c, guidance)(x_u, u)
        fake = self.student(student_params[FAKE], c, guidance, jnp.zeros(size))(x_u, u)

        distance = frame_mean(jnp.mean(jnp.abs(sample - real), axis=-1), batch.mask)
        direction = jax.lax.stop_gradient((fake - real) / per_item(distance + self.floor, fake))
        moved = jnp.mean(jnp.square(x - (sample - direction)), axis=-1) / 2
        matching = frame_mean(moved, batch.mask)
        denoising = snr_weighted_error(fake, sample, self.path, u, batch.mask)
        loss = matching + denoising
        metrics = {
            'loss': jnp.mean(loss),
            'direction': jnp.mean(matching),
            'denoising': jnp.mean(denoising),
        }
        return loss, metrics
