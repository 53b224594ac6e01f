"""Conditioning of Stable Audio 3: text states and a duration."""

import os
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.teachers import importing
from realaudio_jax.teachers.stable_audio_3.layers import HIGHEST, LOWEST, fourier_features
from realaudio_jax.trees import initial_shapes
from realaudio_jax.typing import Array, Float, Leaf, PyTree

CLASS_NAME = 'StableAudio3DurationEmbedder'
TABLES = r'^freqs$'  # in the original's weights, and in `fourier_features` here


@flax.struct.dataclass
class Conditioning:
    """Text states and duration of a batch.

    Attributes:
        text: states of the text encoder; text_mask: real tokens.
        seconds: duration of the sound.
        local: of each frame, latents to be kept and behind them 1 where they are; None is not
            given, which is not the same as all zero.
    """

    text: Leaf['B T I']
    text_mask: Leaf['B T']
    seconds: Leaf['B']
    local: Leaf['B L J'] | None = None

    def unconditional(self) -> 'Conditioning':
        """The unconditional input of guidance, used without a negative prompt."""
        return self.replace(text_mask=jnp.zeros_like(self.text_mask))


class Duration(nn.Module):
    """Embeds a duration in seconds; the defaults are those of the published models.

    Attributes:
        width: of the vector.
        features: Fourier features.
        low, high: the range in seconds, mapped to [0, 1]; numbers beyond are clipped.
    """

    width: int = 768
    features: int = 256
    low: float = 0.0
    high: float = 384.0

    @nn.compact
    def __call__(self, seconds: Float[Array, 'B']) -> Float[Array, 'B W']:
        # Behind a barrier, as XLA multiplies by the inverse of a constant: an error that the
        # highest frequency turns into 0.007 radians.
        x = jnp.clip(seconds, self.low, self.high) - self.low
        x, span = jax.lax.optimization_barrier((x, jnp.full_like(x, self.high - self.low)))
        x = x / span
        return nn.Dense(self.width, name='linear')(fourier_features(x, self.features))


def read_duration(folder: str | os.PathLike) -> Duration:
    """The module that a folder's config describes.

    Raises:
        FileNotFoundError, ValueError: see `importing.read_model_config` and `importing.pick`.
    """
    config = importing.read_model_config(folder, CLASS_NAME)
    fields = {'output_dim': 'width', 'fourier_dim': 'features', 'min_val': 'low', 'max_val': 'high'}
    fixed = {'min_freq': LOWEST, 'max_freq': HIGHEST}
    arguments = importing.pick(config, folder, fields, fixed)
    seconds = {name: float(arguments.pop(name)) for name in ('low', 'high')}
    return Duration(**arguments, **seconds)


def parameter_shapes(model: Duration) -> PyTree:
    """The parameters as `jax.ShapeDtypeStruct`."""
    seconds = jax.ShapeDtypeStruct((1,), jnp.float32)
    return initial_shapes(model, seconds)['params']


def import_duration(folder: str | os.PathLike, dtype: Any = np.float32) -> tuple[Duration, PyTree]:
    """The duration embedder in a folder saved by diffusers, and its parameters.

    Args:
        folder: `duration_embedder` of Stable Audio 3.
        dtype: of the parameters; None keeps each as it is stored.
    """
    model = read_duration(folder)
    shapes = parameter_shapes(model)
    return model, importing.import_params(folder, shapes, ignored=TABLES, dtype=dtype)
