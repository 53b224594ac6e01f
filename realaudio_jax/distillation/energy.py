"""Energy-score loss on samples of the student, in windows of latents.

A student that regresses on single targets learns their conditional mean, so few steps sound
blurred. A proper score is minimal where the whole distribution is right. With y, y' two samples of
the student from independent noise, x a reference sample of the same condition, and |.| the
Euclidean norm in a window,

    loss = (|y - x| + |y' - x|) / 2 - |y - y'| / 2                                           (1)

is the energy score (Gneiting & Raftery 2007, sec. 4.3; for spectra: Gritsenko et al. 2020, arXiv
2008.01160; for denoisers: De Bortoli et al. 2025, arXiv 2502.02483), without bias at two samples.
The first terms pull samples towards the reference, the last keeps them apart. No critic is trained,
and the teacher is not called.

The norm of a whole sound is nearly the same for all pairs and says little about its parts. So (1)
is averaged over windows of several lengths, with all channels and with groups of channels.

The number of sampler steps is drawn for each update. The gradient passes the last two steps, so a
sampler of two steps also learns its intermediate point. Earlier steps are trained by
`Consistency`, which is added to this loss by `WeightedSum`. `Batch.guidance`
is the scale with which a guided teacher made x; for a recording it is drawn from the range, since a
recording fits its caption at every scale.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp

from realaudio_jax.distillation.recipe import Batch, Count, Metrics, Student, noise_like
from realaudio_jax.noise import NoisePath, ddim_step
from realaudio_jax.typing import Array, Float, Int, Key, PyTree

# (latent frames, channels) of the windows; None: all channels.
WINDOWS = ((1, None), (4, None), (16, None), (1, 8), (4, 8))


@flax.struct.dataclass
class Energy:
    """Energy score of the student's own samples as a `Recipe`.

    Attributes:
        student: see `recipe`.
        path: the noise path.
        segments: counts of steps to serve; one is drawn per update, for all items.
        backprop_steps: how many of the last steps the gradient passes; 1 or more.
        windows: (latent frames, channels) of the windows, None for all channels.
    """

    student: Student = flax.struct.field(pytree_node=False)
    path: NoisePath = flax.struct.field(pytree_node=False)
    segments: tuple[Count, ...] = flax.struct.field(pytree_node=False, default=(1, 2, 4))
    backprop_steps: Count = flax.struct.field(pytree_node=False, default=2)
    windows: tuple[tuple[Count, Count | None], ...] = flax.struct.field(
        pytree_node=False, default=WINDOWS
    )

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """Equation 1 for one random step count; see `recipe`. Calls neither teacher nor target."""
        del target_params, teacher_params
        key_count, key_window, *keys = jax.random.split(key, 4)
        steps = jnp.asarray(self.segments)[jax.random.randint(key_count, (), 0, len(self.segments))]
        x = batch.latents
        noise = jnp.stack([noise_like(k, x) for k in keys])
        y, other = jax.vmap(lambda z: self._sample(student_params, batch, z, steps))(noise)
        loss = energy_score(y, other, x, batch.mask, self.windows, key_window)
        return loss, {'loss': jnp.mean(loss)}

    def _sample(
        self, params: PyTree, batch: Batch, x: Float[Array, 'B L C'], steps: Int[Array, '']
    ) -> Float[Array, 'B L C']:
        """Samples by DDIM; the gradient passes the last steps only."""
        size = len(x)
        step_size = jnp.full((size,), 1.0 / steps)
        guidance = jnp.ones(size) if batch.guidance is None else batch.guidance

        def step(params, x, left):
            """From t = left / steps, one step on."""
            t, s = left * step_size, (left - 1) * step_size
            denoise = self.student(params, batch.conditioning, guidance, step_size)
            return ddim_step(self.path, x, denoise(x, t), t, s).astype(x.dtype)

        frozen = jax.lax.stop_gradient(params)
        x = jax.lax.fori_loop(
            0, steps - self.backprop_steps, lambda i, x: step(frozen, x, steps - i), x
        )

        def last(x, left):
            x = jax.lax.cond(left <= steps, lambda x: step(params, x, left), lambda x: x, x)
            return x, None

        x, _ = jax.lax.scan(last, x, jnp.arange(self.backprop_steps, 0, -1))
        return x


def energy_score(
    y: Float[Array, 'B L C'],
    other: Float[Array, 'B L C'],
    x: Float[Array, 'B L C'],
    mask: Float[Array, 'B L'],
    windows: tuple[tuple[int, int | None], ...],
    key: Key[Array, ''],
) -> Float[Array, 'B']:
    """Energy score (1), averaged over windows; each norm is a root mean square.

    Args:
        y, other: two samples.
        x: the reference sample.
        mask: weight of each frame; frames of weight 0 are in no norm.
        windows: (latent frames, channels), None for all channels.
        key: of the random start of the first window.
    """
    heard = (mask > 0)[..., None]
    y, other, x = y * heard, other * heard, x * heard
    total = jnp.zeros(len(x))
    for i, (frames, channels) in enumerate(windows):
        shift = jax.random.randint(jax.random.fold_in(key, i), (), 0, frames)
        a, b, c = (cut(v, frames, channels or x.shape[-1], shift) for v in (y, other, x))
        score = (_norm(a - c) + _norm(b - c) - _norm(a - b)) / 2
        weight = jnp.sum(cut(mask[..., None], frames, 1, shift), axis=-1)  # [B, windows, 1]
        total += jnp.sum(jnp.mean(score, axis=-1) * weight[..., 0], axis=-1)
    return total / (len(windows) * jnp.maximum(jnp.sum(mask, axis=-1), 1.0))


def cut(
    x: Float[Array, 'B L C'], frames: int, channels: int, shift: Int[Array, '']
) -> Float[Array, 'B N G F']:
    """Cuts an array into windows without overlap: N along time, G along channels, F values each.

    The first and last window and the last group of channels are padded with zeros.

    Args:
        x: the array.
        frames, channels: of a window.
        shift: frames that the first window lacks, less than `frames`.
    """
    batch, length, width = x.shape
    count, groups = math.ceil((length + frames - 1) / frames), math.ceil(width / channels)
    fill = ((0, 0), (0, count * frames - length), (0, groups * channels - width))
    x = jnp.roll(jnp.pad(x, fill), shift, axis=1)
    x = x.reshape(batch, count, frames, groups, channels)
    return jnp.moveaxis(x, 3, 2).reshape(batch, count, groups, frames * channels)


def _norm(x: Float[Array, '... F']) -> Float[Array, '...']:
    """Root mean square, smooth at zero."""
    return jnp.sqrt(jnp.mean(jnp.square(x), axis=-1) + 1e-6)
