"""The Oobleck autoencoder of Stable Audio: stereo samples to latents and back, by convolutions.

The encoder shortens time in blocks of three residual units and a strided convolution; the decoder
mirrors it with transposed convolutions. Between convolutions stands the snake (Ziyin et al. 2020,
arXiv 2006.08195, eq. 3, with a magnitude of its own as in BigVGAN, arXiv 2206.04658):

    snake(x) = x + sin^2(e^a x) / e^b                                                            (1)

and every kernel is a direction and a length for each of the original's first axis (Salimans &
Kingma 2016, arXiv 1602.07868, eq. 2):

    w = g v / |v|                                                                                (2)

A strided convolution has twice as many taps as its stride, so it is two matrix products of whole
blocks of samples, and so is a transposed one: no device has to skip or interleave.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.teachers import importing
from realaudio_jax.trees import initial_shapes
from realaudio_jax.typing import Array, Float, PyTree

CLASS_NAME = 'AutoencoderOobleck'
DILATIONS = (1, 3, 9)  # of the three residual units
TAPS = 7
# From paths here to the original's names, see `importing.original_name`.
NAMES = (
    (r'/block_(\d+)/', r'/block/\1/'),
    (r'/unit_(\d)/', r'/res_unit\1/'),
    (r'/snake_(\d)/', r'/snake\1/'),
    (r'/snake/', '/snake1/'),
    (r'/(in|down|dilated)/', '/conv1/'),
    (r'/(out|pointwise)/', '/conv2/'),
    (r'/up/', '/conv_t1/'),
    (r'/direction$', '/weight_v'),
    (r'/length$', '/weight_g'),
)


# sin r = r (1 - r^2 / 3! + ...); at r = pi / 2 the first term left out is 6e-10.
_SINE = tuple((-1) ** i / math.factorial(2 * i + 1) for i in range(7))
_NEAR_PI = 3.140625  # of so few bits that its whole multiples are exact in float32


def sin_squared(x: Float[Array, '*b']) -> Float[Array, '*b']:
    """sin^2(x), by its series within half a period of pi; to 3e-7 for |x| up to 1e3.

    On CPU `jnp.sin` takes 10 ns a number, a third of the convolution after it; this takes 0.6.
    """
    y = x.astype(jnp.float32)
    periods = jnp.round(y * (1 / math.pi))
    r = (y - periods * _NEAR_PI) - periods * (math.pi - _NEAR_PI)
    square, sine = r * r, jnp.full_like(r, _SINE[-1])
    for coefficient in reversed(_SINE[:-1]):
        sine = sine * square + coefficient
    return (square * sine * sine).astype(x.dtype)


class Snake(nn.Module):
    """Snake activation, equation (1), with log-scale parameters for each channel."""

    @nn.compact
    def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B N D']:
        alpha = self.param('alpha', nn.initializers.zeros, (x.shape[-1],))
        beta = self.param('beta', nn.initializers.zeros, (x.shape[-1],))
        wave = sin_squared(jnp.exp(alpha)[None, None] * x)
        return x + wave / (jnp.exp(beta)[None, None] + 1e-9)


class Conv(nn.Module):
    """Convolution over time that keeps the length, with the weight-normalised kernel (2).

    Attributes:
        features: of the output.
        taps: odd.
        dilation: samples from one tap to the next.
        bias: is there one.
    """

    features: int
    taps: int
    dilation: int = 1
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B N F']:
        kernel, bias = _kernel(self, x, self.taps, self.features, self.bias)
        reach = (self.taps // 2) * self.dilation
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (1,),
            [(reach, reach)],
            rhs_dilation=(self.dilation,),
            dimension_numbers=('NWC', 'WIO', 'NWC'),
        )
        return y if bias is None else y + bias[None, None]


class Down(nn.Module):
    """Convolution of 2 s taps and stride s, with ceil(s / 2) zeros at both ends."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B M F']:
        s, pad = self.stride, math.ceil(self.stride / 2)
        kernel, bias = _kernel(self, x, 2 * s, self.features, True)
        batch, length, width = x.shape
        frames = (length + 2 * pad) // s - 1
        x = jnp.pad(x, [(0, 0), (pad, max(0, (frames + 1) * s - length - pad)), (0, 0)])
        blocks = x[:, : (frames + 1) * s].reshape(batch, frames + 1, s * width)
        first, second = kernel.reshape(2, s * width, self.features)
        return blocks[:, :-1] @ first + blocks[:, 1:] @ second + bias[None, None]


class Up(nn.Module):
    """Transposed convolution of 2 s taps and stride s, ceil(s / 2) samples cut at both ends."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B M F']:
        s, pad = self.stride, math.ceil(self.stride / 2)
        kernel, bias = _kernel(self, x, 2 * s, self.features, True, of_input=True)
        # [2 s, D, F] to two of [D, s F]: what a frame adds to its own block, and to the next
        first, second = jnp.moveaxis(kernel.reshape(2, s, -1, self.features), 1, 2).reshape(
            2, -1, s * self.features
        )
        own = jnp.pad(x @ first, [(0, 0), (0, 1), (0, 0)])
        y = own + jnp.pad(x @ second, [(0, 0), (1, 0), (0, 0)])
        y = y.reshape(x.shape[0], -1, self.features)
        return y[:, pad : y.shape[1] - pad] + bias[None, None]


def _kernel(
    module: nn.Module,
    x: Float[Array, 'B N D'],
    taps: int,
    features: int,
    bias: bool,
    of_input: bool = False,
) -> tuple[Float[Array, 'K D F'], Float[Array, 'F'] | None]:
    """Equation (2) and the bias, as parameters of `module`; a length is of an output, or input."""
    width = x.shape[-1]
    normal = nn.initializers.lecun_normal()
    direction = module.param('direction', normal, (taps, width, features))
    length = module.param('length', nn.initializers.ones, (width if of_input else features,))
    axes, shape = ((0, 2), (1, -1, 1)) if of_input else ((0, 1), (1, 1, -1))
    norm = jnp.sqrt(jnp.sum(jnp.square(direction), axis=axes, keepdims=True))
    kernel = direction * (length.reshape(shape) / norm)
    return kernel, module.param('bias', nn.initializers.zeros, (features,)) if bias else None


class Unit(nn.Module):
    """Residual unit: x + pointwise(snake(dilated(snake(x))))."""

    dilation: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B N D']:
        width = x.shape[-1]
        y = Conv(width, TAPS, self.dilation, name='dilated')(Snake(name='snake_1')(x))
        return x + Conv(width, 1, name='pointwise')(Snake(name='snake_2')(y))


class EncoderBlock(nn.Module):
    """Three residual units, then downsampling by the stride."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B M F']:
        for i, dilation in enumerate(DILATIONS):
            x = Unit(dilation, name=f'unit_{i + 1}')(x)
        return Down(self.features, self.stride, name='down')(Snake(name='snake')(x))


class DecoderBlock(nn.Module):
    """Upsampling by the stride, then three residual units."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B M F']:
        x = Up(self.features, self.stride, name='up')(Snake(name='snake')(x))
        for i, dilation in enumerate(DILATIONS):
            x = Unit(dilation, name=f'unit_{i + 1}')(x)
        return x


class Encoder(nn.Module):
    """Encodes samples to mean and standard deviation of the latents."""

    width: int
    strides: Sequence[int]
    multiples: Sequence[int]

    @nn.compact
    def __call__(self, audio: Float[Array, 'B S A']) -> Float[Array, 'B L Z']:
        x = Conv(self.width, TAPS, name='in')(audio)
        for i, (stride, multiple) in enumerate(zip(self.strides, self.multiples, strict=True)):
            x = EncoderBlock(self.width * multiple, stride, name=f'block_{i}')(x)
        return Conv(self.width, 3, name='out')(Snake(name='snake')(x))


class Decoder(nn.Module):
    """Decodes latents to samples."""

    width: int
    strides: Sequence[int]
    multiples: Sequence[int]
    audio_channels: int

    @nn.compact
    def __call__(self, latents: Float[Array, 'B L C']) -> Float[Array, 'B S A']:
        multiples = (1, *self.multiples)
        x = Conv(self.width * multiples[-1], TAPS, name='in')(latents)
        for i, stride in enumerate(reversed(self.strides)):
            x = DecoderBlock(self.width * multiples[-2 - i], stride, name=f'block_{i}')(x)
        x = Snake(name='snake')(x)
        return Conv(self.audio_channels, TAPS, bias=False, name='out')(x)


class Oobleck(nn.Module):
    """The autoencoder; the defaults are the published one, 156 million parameters.

    Attributes:
        encoder_width, decoder_width: features next to the samples.
        strides: of the encoder's blocks; their product is `samples_per_latent`.
        multiples: of the width, one for each block.
        channels: C, of the latents; half of `encoder_width`.
        audio_channels: A.
        sample_rate: Hz.
    """

    encoder_width: int = 128
    decoder_width: int = 128
    strides: tuple[int, ...] = (2, 4, 4, 8, 8)
    multiples: tuple[int, ...] = (1, 2, 4, 8, 16)
    channels: int = 64
    audio_channels: int = 2
    sample_rate: int = 44_100

    @property
    def samples_per_latent(self) -> int:
        """Samples of one latent frame."""
        return math.prod(self.strides)

    def setup(self):
        self.encoder = Encoder(self.encoder_width, self.strides, self.multiples)
        self.decoder = Decoder(
            self.decoder_width, self.strides, self.multiples, self.audio_channels
        )

    def __call__(self, audio: Float[Array, 'B S A']) -> Float[Array, 'B R A']:
        """Encodes and decodes; for initialisation. With odd strides some samples are lost."""
        return self.decode(self.encode(audio)[0])

    def encode(
        self, audio: Float[Array, 'B S A']
    ) -> tuple[Float[Array, 'B L C'], Float[Array, 'B L C']]:
        """Mean and standard deviation of the latents.

        Args:
            audio: at `sample_rate`, a whole number of latent frames.
        """
        mean, spread = jnp.split(self.encoder(audio), 2, axis=-1)
        return mean, nn.softplus(spread) + 1e-4

    def decode(self, latents: Float[Array, 'B L C']) -> Float[Array, 'B S A']:
        """Decodes latents to sound."""
        return self.decoder(latents)


def read_autoencoder(folder: str | os.PathLike) -> Oobleck:
    """The module that a folder's config describes.

    Raises:
        FileNotFoundError, ValueError: see `importing.read_model_config` and `importing.pick`.
    """
    config = importing.read_model_config(folder, CLASS_NAME)
    fields = {
        'encoder_hidden_size': 'encoder_width',
        'decoder_channels': 'decoder_width',
        'downsampling_ratios': 'strides',
        'channel_multiples': 'multiples',
        'decoder_input_channels': 'channels',
        'audio_channels': 'audio_channels',
        'sampling_rate': 'sample_rate',
    }
    fixed = {'encoder_hidden_size': 2 * config.get('decoder_input_channels', 0)}
    return Oobleck(**importing.pick(config, folder, fields, fixed))


def parameter_shapes(model: Oobleck) -> PyTree:
    """The parameters as `jax.ShapeDtypeStruct`."""
    shape = (1, 2 * model.samples_per_latent, model.audio_channels)
    audio = jax.ShapeDtypeStruct(shape, jnp.float32)
    return initial_shapes(model, audio)['params']


def layout(path: str, array: np.ndarray) -> np.ndarray:
    """Transposes weight-norm directions to [taps, in, out], of transposed convolutions too."""
    if not path.endswith('/direction'):
        return array.reshape(-1)
    return array.transpose((2, 0, 1) if '/up/' in path else (2, 1, 0))


def import_autoencoder(
    folder: str | os.PathLike, dtype: Any = np.float32
) -> tuple[Oobleck, PyTree]:
    """The autoencoder in a folder saved by diffusers, and its parameters.

    Args:
        folder: `vae` of Stable Audio Open.
        dtype: of the parameters; None keeps each as it is stored.
    """
    model = read_autoencoder(folder)
    shapes = parameter_shapes(model)
    return model, importing.import_params(folder, shapes, NAMES, layout=layout, dtype=dtype)
