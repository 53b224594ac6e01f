"""Adversarial post-training: a discriminator of latents compares the student's samples with data.

Novack et al. 2025, "Fast Text-to-Audio Generation with Adversarial Post-Training" (ARC, arXiv
2505.08175). No teacher is followed. A discriminator D sees noisy latents, their noise level and the
conditioning, and the student learns to make its samples look likelier than the data of the same
conditioning (relativistic pairs, Jolicoeur-Martineau 2018, arXiv 1807.00734). It also has to tell
data with their own conditioning from the same data with that of another item, so that it listens to
the prompt. With a sample x of the student (`own_samples`, 3), data y of the same conditioning c,
c' that of the next item of the batch, u uniform:

    x_u = alpha_u x + sigma_u eps,    y_u = alpha_u y + sigma_u eps'                         (1)
    loss of the student = softplus(D(y_u, c) - D(x_u, c))                                    (2)
    loss of D = softplus(D(x_u, c) - D(y_u, c)) + lambda softplus(D(y_u, c') - D(y_u, c))    (3)

softplus(-z) = -log sigmoid(z). As in the paper D is the denoiser with a small head, and begins as
the denoiser; here as the student. Recipes see networks as functions to x_0 alone, so its features
are the C channels that the network predicts (with step size 0), next to its noisy input:

    D = mean over real frames of head([y_u, student network(y_u, u; 0)])                     (4)

Deliberate differences: (4), where the paper cuts the denoiser at three quarters of its depth; the
student's input comes from its own trajectories rather than from noisy data; u is uniform.
Data are those of the batch: samples of the guided teacher ('data': 'teacher_samples') have a
guidance scale, which student and discriminator are told; recordings fit any.
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
    frame_mean,
    guidance_of,
    noise_like,
)
from realaudio_jax.models.discriminator import LatentHead
from realaudio_jax.noise import NoisePath, diffuse
from realaudio_jax.typing import Any, Array, Float, Key, PyTree

DISCRIMINATOR = 'discriminator'


@flax.struct.dataclass
class AdversarialPostTraining:
    """Adversarial relativistic-contrastive post-training as a recipe that `HasExtraNetworks`.

    Attributes:
        student: see `recipe`.
        path: the noise path.
        segments: step counts to serve; one is drawn per update.
        contrast: lambda of equation 3.
        discriminator_rate: learning rate of the discriminator over that of the student.
        width: features of the discriminator's head.
        guidance_range: guidance scales to cover, where the batch has none.
    """

    student: Student = flax.struct.field(pytree_node=False)
    path: NoisePath = flax.struct.field(pytree_node=False)
    segments: tuple[Count, ...] = flax.struct.field(pytree_node=False, default=(1, 2, 4, 8))
    contrast: float = flax.struct.field(pytree_node=False, default=1.0)
    discriminator_rate: float = flax.struct.field(pytree_node=False, default=2.0)
    width: Count = flax.struct.field(pytree_node=False, default=64)
    guidance_range: tuple[float, float] = flax.struct.field(pytree_node=False, default=(1.0, 4.0))

    @property
    def extra_rates(self) -> dict[str, float]:
        """Of the discriminator."""
        return {DISCRIMINATOR: self.discriminator_rate}

    def extra_networks(
        self, student_params: PyTree, batch: Batch, key: Key[Array, '']
    ) -> dict[str, PyTree]:
        """The discriminator: a network that begins as the student, and a random head."""
        both = jnp.concatenate([batch.latents] * 2, axis=-1)
        head = LatentHead(self.width).init(key, both, batch.mask)
        return {DISCRIMINATOR: {'network': student_params, 'head': head}}

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """Equations 2 and 3, added, for one sample and noise level per item; see `recipe`."""
        del target_params, teacher_params
        size, c = len(batch.latents), batch.conditioning
        key_sample, key_level, key_guidance, *keys_noise = jax.random.split(key, 5)
        guidance = guidance_of(batch, key_guidance, self.guidance_range)
        x = own_sample(
            self.student,
            self.path,
            student_params[STUDENT],
            batch,
            guidance,
            self.segments,
            key_sample,
        )
        u = jax.random.uniform(key_level, (size,), minval=0.02, maxval=0.98)
        made, data = (
            diffuse(self.path, latents, noise_like(k, batch.latents), u)
            for k, latents in zip(keys_noise, (x, batch.latents), strict=True)
        )

        def score(params: PyTree, noisy: Float[Array, 'B L C'], c: Any) -> Float[Array, 'B']:
            """Equation 4."""
            seen = self.student(params['network'], c, guidance, jnp.zeros(size))(noisy, u)
            both = jnp.concatenate([noisy, seen], axis=-1)
            logits = LatentHead(self.width).apply(params['head'], both, batch.mask)
            return frame_mean(logits, batch.mask)

        own = student_params[DISCRIMINATOR]
        frozen = jax.lax.stop_gradient(own)
        other_c = jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=0), c)
        # Equal evaluations with and without a stopped gradient are one in the compiled step.
        adversarial = jax.nn.softplus(score(frozen, data, c) - score(frozen, made, c))
        of_data = score(own, data, c)
        relativistic = jax.nn.softplus(score(own, jax.lax.stop_gradient(made), c) - of_data)
        contrastive = jax.nn.softplus(score(own, data, other_c) - of_data)
        loss = adversarial + relativistic + self.contrast * contrastive
        metrics = {
            'loss': jnp.mean(loss),
            'adversarial': jnp.mean(adversarial),
            'relativistic': jnp.mean(relativistic),
            'contrastive': jnp.mean(contrastive),
        }
        return loss, metrics
