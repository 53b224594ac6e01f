"""HiFi-GAN, the vocoder of AudioLDM 2: log-mel frames to samples (Kong et al. 2020, 2010.05646).

Transposed convolutions raise the rate step by step; after each, residual blocks of several widths
and dilations see the signal side by side, and their results are averaged (section 2.2).
"""

import os

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from realaudio_jax.teachers import importing
from realaudio_jax.typing import Array, Float

CLASS_NAME = 'SpeechT5HifiGan'
NAMES = (
    (r'^upsamplers_', 'upsampler_'),
    (r'(upsampler|resblocks|convs1|convs2)_(\d+)/', r'\1/\2/'),
)
IGNORED = '^(mean|scale)$'  # of the input, where it is normalised, which AudioLDM 2's is not
_LAST_SLOPE = 0.01  # the original's last activation leaks less than the others


class TransposedConv(nn.Module):
    """Transposed convolution, computed as a convolution with `stride` outputs for each frame.

    y[n] = sum over i, j with i stride + j - before = n of x[i] w[j]. With n + before = stride m + r
    and j = stride q + r this is y = sum_q x[m - q] w[stride q + r]: for each of the `stride`
    remainders a convolution over frames, so no product is with a zero between frames.

    Attributes:
        features: channels of the result.
        window: taps.
        stride: samples a frame; (window - stride) // 2 are cut at each end.
    """

    features: int
    window: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B N C']) -> Float[Array, 'B S F']:
        batch, frames, channels = x.shape
        shape = (self.window, channels, self.features)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        reach = -(-self.window // self.stride)  # taps of each remainder
        kernel = jnp.pad(kernel, [(0, reach * self.stride - self.window), (0, 0), (0, 0)])
        kernel = kernel.reshape(reach, self.stride, channels, self.features)[::-1]
        kernel = kernel.transpose(0, 2, 1, 3).reshape(reach, channels, -1)
        y = lax.conv_general_dilated(
            x, kernel, (1,), [(reach - 1, reach - 1)], dimension_numbers=('NWC', 'WIO', 'NWC')
        )
        y = y.reshape(batch, -1, self.features)
        before = (self.window - self.stride) // 2
        samples = (frames - 1) * self.stride - 2 * before + self.window
        return y[:, before : before + samples] + bias[None, None]


class ResidualBlock(nn.Module):
    """x + conv(leaky(conv(leaky(x)))), for each dilation in turn."""

    window: int
    dilations: tuple[int, ...]
    slope: float

    @nn.compact
    def __call__(self, x: Float[Array, 'B S C']) -> Float[Array, 'B S C']:
        width = x.shape[-1]
        for i, dilation in enumerate(self.dilations):
            y = nn.leaky_relu(x, self.slope)
            y = _conv(width, self.window, f'convs1_{i}', dilation)(y)
            y = nn.leaky_relu(y, self.slope)
            x = x + _conv(width, self.window, f'convs2_{i}')(y)
        return x


class Vocoder(nn.Module):
    """HiFi-GAN vocoder: log-mel frames to samples; the defaults are AudioLDM 2's at 16 kHz.

    Attributes:
        width: channels of the first layer, halved at each rise of the rate.
        rates: samples a sample becomes, at each rise.
        windows: taps of each transposed convolution.
        block_windows, block_dilations: of the residual blocks side by side.
        slope: of the activations below zero.
    """

    width: int = 1024
    rates: tuple[int, ...] = (5, 4, 2, 2, 2)
    windows: tuple[int, ...] = (16, 16, 8, 4, 4)
    block_windows: tuple[int, ...] = (3, 7, 11)
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
    slope: float = 0.1

    @nn.compact
    def __call__(self, mel: Float[Array, 'B N M']) -> Float[Array, 'B S']:
        """Samples in [-1, 1]; a few more than the product of the rates a frame, at the end.

        Where a window less its rate is odd, the rise gives one sample more than the rate times.
        """
        x = _conv(self.width, 7, 'conv_pre')(mel)
        side_by_side = list(zip(self.block_windows, self.block_dilations, strict=True))
        for i, (rate, window) in enumerate(zip(self.rates, self.windows, strict=True)):
            x = nn.leaky_relu(x, self.slope)
            x = TransposedConv(self.width // 2 ** (i + 1), window, rate, name=f'upsamplers_{i}')(x)
            results = [
                ResidualBlock(*shape, self.slope, name=f'resblocks_{i * len(side_by_side) + j}')(x)
                for j, shape in enumerate(side_by_side)
            ]
            x = sum(results) / len(results)
        x = _conv(1, 7, 'conv_post')(nn.leaky_relu(x, _LAST_SLOPE))
        return jnp.tanh(x)[..., 0]


def _conv(features: int, window: int, name: str, dilation: int = 1) -> nn.Conv:
    return nn.Conv(features, (window,), kernel_dilation=dilation, name=name)


def layout(path: str, array: np.ndarray) -> np.ndarray:
    """Converts arrays from the original's layout (transposed convolutions: input axis first)."""
    if path.startswith('upsamplers_') and path.endswith('/kernel'):
        return np.moveaxis(array, -1, 0)
    return importing.torch_layout(path, array)


def read_vocoder(folder: str | os.PathLike) -> tuple[Vocoder, int, int]:
    """The module that a folder's config describes, its sample rate (Hz) and mel bands.

    Raises:
        FileNotFoundError: no such folder or config.
        ValueError: another model, or a variant that is not ported.
    """
    config = importing.read_model_config(folder, CLASS_NAME)
    fields = {
        'upsample_initial_channel': 'width',
        'upsample_rates': 'rates',
        'upsample_kernel_sizes': 'windows',
        'resblock_kernel_sizes': 'block_windows',
        'resblock_dilation_sizes': 'block_dilations',
        'leaky_relu_slope': 'slope',
        'sampling_rate': 'sample_rate',
        'model_in_dim': 'bands',
    }
    arguments = importing.pick(config, folder, fields, {'normalize_before': False})
    arguments['block_dilations'] = tuple(map(tuple, arguments['block_dilations']))
    sample_rate, bands = arguments.pop('sample_rate'), arguments.pop('bands')
    return Vocoder(**arguments), sample_rate, bands
