"""The contract of distillation recipes: a pure loss over three sets of parameters.

    loss(student_params, target_params, teacher_params, batch, key) -> (loss [B], metrics)

`student_params` receive the gradient; `target_params` are an older student (the average of the
current one, or the result of the stage before); `teacher_params` belong to the teacher. A recipe
sees networks only as two functions that return `denoise(x_t, t) -> x_0`:

    student(params, conditioning, guidance_scale [B], step_size [B]) -> denoise
    teacher(params, conditioning, guidance_scale [B]) -> denoise     (already guided)

A recipe is itself a pytree, so numbers that change between stages (a count of steps) are arguments
of the compiled step, not constants of it.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp

from realaudio_jax.noise import Denoise, NoisePath
from realaudio_jax.typing import Array, Float, Key, Leaf, PyTree

Student = Callable[[PyTree, Any, Float[Array, 'B'], Float[Array, 'B']], Denoise]
Teacher = Callable[[PyTree, Any, Float[Array, 'B']], Denoise]
Metrics = dict[str, Float[Array, '']]


@flax.struct.dataclass
class Batch:
    """Clean latents with their mask and conditioning.

    Attributes:
        latents: data, unit variance.
        mask: what the error of a frame counts: 0 where it is padding, 1 or more where it is sound.
        conditioning: whatever the networks take; recipes only pass it on.
        guidance: scale [B] at which the latents are samples of the target: the one that a teacher
            made them with, any one for recordings. None: the recipe chooses.
    """

    latents: Leaf['B L C']
    mask: Leaf['B L']
    conditioning: Any
    guidance: Leaf['B'] = None


@runtime_checkable
class Recipe(Protocol):
    """Signature of all recipes, so that they are interchangeable in `experiments/distill.py`."""

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """The loss of each item and the metrics to log; pure, and random by its key alone."""


@flax.struct.dataclass
class WeightedSum:
    """Weighted sum of the losses of several recipes on one batch, as a `Recipe`.

    Attributes:
        weights, recipes: by the names under which their metrics appear.
    """

    weights: Any
    recipes: Any  # not checked: a pytree's fields hold other things while JAX takes it apart

    def loss(
        self,
        student_params: PyTree,
        target_params: PyTree,
        teacher_params: PyTree,
        batch: Batch,
        key: Key[Array, ''],
    ) -> tuple[Float[Array, 'B'], Metrics]:
        """Each recipe draws from a key of its own."""
        total, metrics = jnp.zeros(len(batch.latents)), {}
        keys = jax.random.split(key, len(self.recipes))
        for own, (name, recipe) in zip(keys, self.recipes.items(), strict=True):
            loss, found = recipe.loss(student_params, target_params, teacher_params, batch, own)
            total += self.weights[name] * loss
            metrics |= {f'{name}_{k}': value for k, value in found.items()}
        return total, metrics | {'loss': jnp.mean(total)}


def draw_guidance(
    key: Key[Array, ''], batch: int, low_high: tuple[float, float]
) -> Float[Array, 'B']:
    """Guidance scales, uniform in [low, high] (Meng et al. 2022, arXiv 2210.03142, sec. 3.1).

    Every stage draws by this law. The guided prediction is linear in the scale, so none of them
    counts more than another.

    Raises:
        ValueError: the range is not 0 < low <= high.
    """
    low, high = low_high
    if not 0 < low <= high:
        raise ValueError(f'guidance {low} to {high}: give scales above 0, the smaller one first')
    return jax.random.uniform(key, (batch,), minval=low, maxval=high)


def noise_like(key: Key[Array, ''], x: Float[Array, 'B L C']) -> Float[Array, 'B L C']:
    """Standard normal noise in the shape of x."""
    return jax.random.normal(key, x.shape, x.dtype)


def snr_weighted_error(
    prediction: Float[Array, 'B L C'],
    target: Float[Array, 'B L C'],
    path: NoisePath,
    t: Float[Array, 'B'],
    mask: Float[Array, 'B L'],
    largest: float = 10.0,
) -> Float[Array, 'B']:
    """SNR-weighted squared error: min(max(SNR, 1), largest) |x_0 - target|^2, mean over frames.

    The truncated signal-to-noise weight of Salimans & Ho 2022 (arXiv 2202.00512, eq. 9), bounded
    above because steps here may start close to t = 0.
    """
    snr = jnp.square(path.alpha(t) / jnp.maximum(path.sigma(t), 1e-4))
    weight = jnp.clip(snr, 1.0, largest)
    error = jnp.mean(jnp.square(prediction - target), axis=-1) * mask
    return weight * jnp.sum(error, axis=-1) / jnp.maximum(jnp.sum(mask, axis=-1), 1.0)
