"""The contract of distillation recipes: a pure loss over three sets of parameters.

    loss(student_params, target_params, teacher_params, batch, key) -> (loss [B], metrics)

`student_params` receive the gradient; `target_params` are an older student (the average of the
current one, or the result of the stage before); `teacher_params` belong to the teacher. A recipe
sees networks only as two functions that return `denoise(x_t, t) -> x_0`:

    student(params, conditioning, guidance_scale [B], step_size [B]) -> denoise
    teacher(params, conditioning, guidance_scale [B]) -> denoise     (already guided)

A recipe is itself a pytree, so numbers that change between stages (a count of steps) are arguments
of the compiled step, not constants of it.

A recipe may train further networks beside the student, such as a critic, see `HasExtraNetworks`.
Its `student_params` are then {'student': ..., NAME: ...}, and its loss is a sum of terms, each with
the gradient stopped at the networks that it is not for. Only the student is averaged into
`target_params`, and only the student is saved.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp

from realaudio_jax.noise import Denoise, NoisePath
from realaudio_jax.typing import Array, Float, Key, Leaf, PyTree

Student = Callable[[PyTree, Any, Float[Array, 'B'], Float[Array, 'B']], Denoise]
Teacher = Callable[[PyTree, Any, Float[Array, 'B']], Denoise]
Metrics = dict[str, Float[Array, '']]
Count = Annotated[int, '1 or more']  # a recipe's setting
STUDENT = 'student'  # its name among the networks that a stage trains


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


@runtime_checkable
class HasExtraNetworks(Recipe, Protocol):
    """A recipe that trains networks of its own beside the student.

    Attributes:
        extra_rates: the learning rate of each by its name, over that of the student.
    """

    extra_rates: dict[str, float]

    def extra_networks(
        self, student_params: PyTree, batch: Batch, key: Key[Array, '']
    ) -> dict[str, PyTree]:
        """The parameters they begin with, by name.

        Args:
            student_params: of the student alone, as the stage begins.
            batch: any one, for its shapes.
            key: of what is random.
        """


def extra_rates(recipe: Recipe) -> dict[str, float]:
    """`HasExtraNetworks.extra_rates`, empty for a recipe that trains the student alone."""
    return dict(getattr(recipe, 'extra_rates', {}))


def all_networks(
    recipe: Recipe,
    trained: PyTree,
    student_params: PyTree,
    batch: Batch | None,
    key: Key[Array, ''],
) -> dict[str, PyTree]:
    """What a stage trains: {'student': ...} with the further networks of its recipe, if any.

    Args:
        recipe: of the stage.
        trained: what is trained of the student: all its parameters, or an adapter.
        student_params, batch, key: see `HasExtraNetworks.extra_networks`; no batch is needed where
            the recipe has none.
    """
    if not extra_rates(recipe):
        return {STUDENT: trained}
    return {STUDENT: trained, **recipe.extra_networks(student_params, batch, key)}


def as_student_params(networks: Mapping[str, PyTree]) -> PyTree:
    """The `student_params` of a recipe: those of the student, or all networks if there are more."""
    return dict(networks) if len(networks) > 1 else networks[STUDENT]


@flax.struct.dataclass
class WeightedSum:
    """Weighted sum of the losses of several recipes on one batch, as a `Recipe`.

    A further network of one of them, see `HasExtraNetworks`, has the name RECIPE_NETWORK.

    Attributes:
        weights, recipes: by the names under which their metrics appear.
    """

    weights: Any
    recipes: Any  # not checked: a pytree's fields hold other things while JAX takes it apart

    @property
    def extra_rates(self) -> dict[str, float]:
        """Of the further networks of all recipes."""
        return {
            f'{name}_{network}': rate
            for name, recipe in self.recipes.items()
            for network, rate in extra_rates(recipe).items()
        }

    def extra_networks(
        self, student_params: PyTree, batch: Batch, key: Key[Array, '']
    ) -> dict[str, PyTree]:
        """Those of all recipes, each from a key of its own."""
        keys = jax.random.split(key, len(self.recipes))
        return {
            f'{name}_{network}': params
            for own, (name, recipe) in zip(keys, self.recipes.items(), strict=True)
            if extra_rates(recipe)
            for network, params in recipe.extra_networks(student_params, batch, own).items()
        }

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
        student = student_params[STUDENT] if self.extra_rates else student_params
        keys = jax.random.split(key, len(self.recipes))
        for own, (name, recipe) in zip(keys, self.recipes.items(), strict=True):
            extra = {k: student_params[f'{name}_{k}'] for k in extra_rates(recipe)}
            params = as_student_params({STUDENT: student, **extra})
            loss, found = recipe.loss(params, target_params, teacher_params, batch, own)
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


def guidance_of(
    batch: Batch, key: Key[Array, ''], low_high: tuple[float, float]
) -> Float[Array, 'B']:
    """The guidance scales of a batch's latents, or drawn ones (`draw_guidance`) if it has none."""
    if batch.guidance is not None:
        return batch.guidance
    return draw_guidance(key, len(batch.latents), low_high)


def noise_like(key: Key[Array, ''], x: Float[Array, 'B L C']) -> Float[Array, 'B L C']:
    """Standard normal noise in the shape of x."""
    return jax.random.normal(key, x.shape, x.dtype)


def frame_mean(per_frame: Float[Array, 'B L'], mask: Float[Array, 'B L']) -> Float[Array, 'B']:
    """Mean over frames, each counted as often as the mask says."""
    return jnp.sum(per_frame * mask, axis=-1) / jnp.maximum(jnp.sum(mask, axis=-1), 1.0)


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
    return weight * frame_mean(jnp.mean(jnp.square(prediction - target), axis=-1), mask)
