"""Layers shared by AudioLDM 2's U-Net and autoencoder, on planes of time by mel band.

Planes are [B N M C]: batch, time, mel bands, channels (the originals keep channels first). Modules
compute in the precision of their input and parameters; norms and softmax sum in float32. Modules
and parameters have the names of the originals, so that importing is a change of layout alone.

Residual block: He et al. 2016 (1603.05027), fig. 4e; its use in diffusion: Ho et al. 2020
(2006.11239), appendix B.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from realaudio_jax.teachers import layers
from realaudio_jax.typing import Array, Bool, Float

# From our path of a parameter to the original's: lists are numbered with a dot there.
NAMES = (
    (r'(\w+s|to_out)_(\d+)/', r'\1/\2/'),
    (r'^time_linear', 'time_embedding/linear'),
    (r'/ff_in/', '/ff/net/0/proj/'),
    (r'/ff_out/', '/ff/net/2/'),
)


class GroupNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon), over cells and a group's channels; scale and bias.

    The variance is mean (x - mean)^2, which parity needs. Sums run over cells first, so that a row
    of channels is read as it lies: twice as fast on CPU as over both at once. Source: Wu & He 2018
    (1803.08494).
    """

    groups: int
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, 'B N M C']) -> Float[Array, 'B N M C']:
        channels = x.shape[-1]
        scale = self.param('scale', nn.initializers.ones, (channels,))
        bias = self.param('bias', nn.initializers.zeros, (channels,))

        def of_groups(values):  # the mean of every channel's group, [B N M C] to [B 1 1 C]
            means = jnp.mean(values, axis=(1, 2)).reshape(len(values), self.groups, -1)
            means = jnp.repeat(jnp.mean(means, axis=-1), channels // self.groups, axis=1)
            return means[:, None, None]

        y = x.astype(jnp.float32)
        y = y - of_groups(y)
        rate = jax.lax.rsqrt(of_groups(jnp.square(y)) + self.epsilon) * scale[None, None, None]
        return (y * rate + bias[None, None, None]).astype(x.dtype)


def group_norm(groups: int, epsilon: float, name: str) -> GroupNorm:
    """Group norm with the settings that a plane's layers share."""
    return GroupNorm(groups, epsilon, name=name)


def conv(features: int, name: str) -> nn.Conv:
    """A convolution of 3 x 3 cells that keeps the size of the plane."""
    return nn.Conv(features, (3, 3), padding=1, name=name)


class CellConv(nn.Module):
    """1 x 1 convolution as a matrix product, up to twice as fast on CPU."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, 'B N M C']) -> Float[Array, 'B N M F']:
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        return x @ kernel[0, 0] + bias[None, None, None]


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + level))), with x projected where widths differ.

    Attributes:
        features: channels of the result.
        groups, epsilon: of the norms.
    """

    features: int
    groups: int = 32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B N M C'], level: Float[Array, 'B D'] | None = None
    ) -> Float[Array, 'B N M F']:
        y = nn.silu(group_norm(self.groups, self.epsilon, 'norm1')(x))
        y = conv(self.features, 'conv1')(y)
        if level is not None:
            y = y + nn.Dense(self.features, name='time_emb_proj')(nn.silu(level))[:, None, None]
        y = nn.silu(group_norm(self.groups, self.epsilon, 'norm2')(y))
        y = conv(self.features, 'conv2')(y)
        if x.shape[-1] != self.features:
            x = CellConv(self.features, name='conv_shortcut')(x)
        return x + y


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by two, cropped to a size, then a convolution."""

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B N M C'], size: tuple[int, int] | None = None
    ) -> Float[Array, 'B N2 M2 C']:
        return DoubledConv(name='conv')(x, size)


class DoubledConv(nn.Module):
    """Convolution of a plane upsampled by two, without building that plane."""

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B N M C'], size: tuple[int, int] | None = None
    ) -> Float[Array, 'B N2 M2 C']:
        shape = (3, 3, x.shape[-1], x.shape[-1])
        kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
        bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
        if size in (None, (2 * x.shape[1], 2 * x.shape[2])):
            y = conv_of_doubled(x, kernel)
        else:  # an odd plane was halved upwards on the way down, and zeros follow where it ends
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, : size[0], : size[1]]
            y = _convolve(x, kernel, ((1, 1), (1, 1)))
        return y + bias[None, None, None]


def conv_of_doubled(
    x: Float[Array, 'B N M C'], kernel: Float[Array, '3 3 C F']
) -> Float[Array, 'B 2*N 2*M F']:
    """Convolves a plane upsampled by two, without building it.

    Of the three cells that a tap row or column sees, two are the same: an even cell of the result
    is w_0 x[n - 1] + (w_1 + w_2) x[n], an odd one (w_0 + w_1) x[n] + w_2 x[n + 1], in each
    direction. So each quarter of the result is a convolution of 2 x 2 taps over the plane as it
    was: 4 / 9 of the products.
    """
    batch, rows, columns, _ = x.shape

    def halves(taps):  # of three along the first axis: for even cells, for odd cells
        first, middle, last = taps
        return jnp.stack([first, middle + last]), jnp.stack([first + middle, last])

    quarters = [
        _convolve(x, jnp.swapaxes(both, 0, 1), ((1 - row, row), (1 - column, column)))
        for row, tall in enumerate(halves(kernel))
        for column, both in enumerate(halves(jnp.swapaxes(tall, 0, 1)))
    ]
    y = jnp.stack(quarters, axis=3).reshape(batch, rows, columns, 2, 2, -1)
    return jnp.swapaxes(y, 2, 3).reshape(batch, 2 * rows, 2 * columns, -1)


def _convolve(x, kernel, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


class Downsample(nn.Module):
    """Convolution with stride 2.

    Attributes:
        before: rows and columns of zeros before the plane: 1, or 0 as the autoencoder has it. There
            is always one behind it.
    """

    before: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, 'B N M C']) -> Float[Array, 'B N2 M2 C']:
        pads = [(self.before, 1)] * 2
        return nn.Conv(x.shape[-1], (3, 3), strides=2, padding=pads, name='conv')(x)


def attend(
    query: Float[Array, 'B Q D'],
    key: Float[Array, 'B K D'],
    value: Float[Array, 'B K D'],
    heads: int,
    mask: Bool[Array, 'B K'] | None = None,
) -> Float[Array, 'B Q D']:
    """`teachers.layers.attend` of heads side by side; keys are seen where `mask` is True."""
    query, key, value = (layers.split_heads(x, heads) for x in (query, key, value))
    return layers.attend(query, key, value, None if mask is None else layers.mask_bias(mask))
