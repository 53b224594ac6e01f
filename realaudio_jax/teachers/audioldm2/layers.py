"""Layers that the U-Net and the autoencoder of AudioLDM 2 share: planes of time by mel band.

Planes are [B N M C]: batch, time, mel bands, channels (the originals keep channels first). Modules
compute in the precision of their input and parameters; norms and softmax sum in float32. Modules
and parameters have the names of the originals, so that importing is a change of layout alone.

Residual block: He et al. 2016 (1603.05027), fig. 4e; its use in diffusion: Ho et al. 2020
(2006.11239), appendix B.
"""

import flax.linen as nn
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


def group_norm(groups: int, epsilon: float, name: str) -> nn.GroupNorm:
    """Wu & He 2018 (1803.08494); the variance as mean (x - mean)^2, which parity needs."""
    return nn.GroupNorm(groups, epsilon=epsilon, use_fast_variance=False, name=name)


def conv(features: int, name: str, window: int = 3) -> nn.Conv:
    """A convolution that keeps the size of the plane."""
    return nn.Conv(features, (window, window), padding=window // 2, name=name)


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
            x = conv(self.features, 'conv_shortcut', 1)(x)
        return x + y


class Upsample(nn.Module):
    """Every cell doubled in both directions, cut to a size, then a convolution."""

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B N M C'], size: tuple[int, int] | None = None
    ) -> Float[Array, 'B N2 M2 C']:
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        if size is not None:  # an odd plane was halved upwards on the way down
            x = x[:, : size[0], : size[1]]
        return conv(x.shape[-1], 'conv')(x)


class Downsample(nn.Module):
    """A convolution at every other cell.

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
