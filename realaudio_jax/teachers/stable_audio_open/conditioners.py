"""Conditioning of Stable Audio Open: text states and excerpt timing, as tokens.

Training excerpts carried their start in the whole recording and its length; both are numbers in
seconds turned into tokens of their own (Evans et al. 2024, arXiv 2402.04825, section 3.3), which
the transformer sees beside the text and, side by side, as one vector.
"""

import os
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.teachers import importing
from realaudio_jax.trees import initial_shapes
from realaudio_jax.typing import Array, Float, Leaf, PyTree

CLASS_NAME = 'StableAudioProjectionModel'
FEATURES = 256  # Fourier features of a number; the published value, not in the config
NAMES = (
    (r'^text/', 'text_projection/'),
    (r'^(start|end)/frequencies$', r'\1_number_conditioner/time_positional_embedding/0/weights'),
    (r'^(start|end)/out/', r'\1_number_conditioner/time_positional_embedding/1/'),
)


@flax.struct.dataclass
class Conditioning:
    """Text states and excerpt timing of a batch.

    Attributes:
        text: states of the T5 encoder; text_mask: real tokens.
        start_s, end_s: of the excerpt within the recording, seconds.
        present: False is the condition "nothing said": all tokens zero, while the transformer's
            timing vector stays.
    """

    text: Leaf['B T I']
    text_mask: Leaf['B T']
    start_s: Leaf['B']
    end_s: Leaf['B']
    present: Leaf['B']

    def unconditional(self) -> 'Conditioning':
        """The unconditional input of guidance, used without a negative prompt."""
        return self.replace(present=jnp.zeros_like(self.present))


class NumberConditioner(nn.Module):
    """Embeds a number as a token: x, sin(2 pi f x) and cos(2 pi f x), then a linear layer.

    Attributes:
        width: of the token.
        low, high: the range, mapped to [0, 1]; numbers beyond are clipped.
    """

    width: int
    low: float
    high: float

    @nn.compact
    def __call__(self, x: Float[Array, 'B']) -> Float[Array, 'B W']:
        frequencies = self.param('frequencies', nn.initializers.normal(1.0), (FEATURES // 2,))
        x = (jnp.clip(x, self.low, self.high) - self.low) / (self.high - self.low)
        x = x[:, None].astype(frequencies.dtype)
        angle = 2 * jnp.pi * x * frequencies[None]
        features = jnp.concatenate([x, jnp.sin(angle), jnp.cos(angle)], axis=-1)
        return nn.Dense(self.width, name='out')(features)


class Projection(nn.Module):
    """Projects text states and timing to the transformer's tokens and timing vector.

    Attributes:
        text_width: of the text states.
        width: W, of all tokens.
        low, high: range of start and end, seconds.
    """

    text_width: int = 768
    width: int = 768
    low: float = 0.0
    high: float = 512.0

    @nn.compact
    def __call__(self, c: Conditioning) -> tuple[Float[Array, 'B M W'], Float[Array, 'B 2*W']]:
        """Tokens [B, T + 2, W] and timing [B, 2 W]."""
        text = c.text
        if self.width != self.text_width:
            text = nn.Dense(self.width, name='text')(text)
        text = text * c.text_mask[..., None]
        start = NumberConditioner(self.width, self.low, self.high, name='start')(c.start_s)
        end = NumberConditioner(self.width, self.low, self.high, name='end')(c.end_s)
        tokens = jnp.concatenate([text, start[:, None], end[:, None]], axis=1)
        timing = jnp.concatenate([start, end], axis=-1)
        return tokens * c.present[:, None, None], timing


def read_projection(folder: str | os.PathLike) -> Projection:
    """The module that a folder's config describes.

    Raises:
        FileNotFoundError, ValueError: see `importing.read_model_config` and `importing.pick`.
    """
    config = importing.read_model_config(folder, CLASS_NAME)
    fields = {
        'text_encoder_dim': 'text_width',
        'conditioning_dim': 'width',
        'min_value': 'low',
        'max_value': 'high',
    }
    arguments = importing.pick(config, folder, fields, {})
    seconds = {name: float(arguments.pop(name)) for name in ('low', 'high')}
    return Projection(**arguments, **seconds)


def parameter_shapes(model: Projection) -> PyTree:
    """The parameters as `jax.ShapeDtypeStruct`."""
    number = jax.ShapeDtypeStruct((1,), jnp.float32)
    conditioning = Conditioning(
        text=jax.ShapeDtypeStruct((1, 2, model.text_width), jnp.float32),
        text_mask=jax.ShapeDtypeStruct((1, 2), jnp.bool_),
        start_s=number,
        end_s=number,
        present=jax.ShapeDtypeStruct((1,), jnp.bool_),
    )
    return initial_shapes(model, conditioning)['params']


def import_projection(
    folder: str | os.PathLike, dtype: Any = np.float32
) -> tuple[Projection, PyTree]:
    """The projection model in a folder saved by diffusers, and its parameters.

    Args:
        folder: `projection_model` of Stable Audio Open.
        dtype: of the parameters; None keeps each as it is stored.
    """
    model = read_projection(folder)
    return model, importing.import_params(folder, parameter_shapes(model), NAMES, dtype=dtype)
