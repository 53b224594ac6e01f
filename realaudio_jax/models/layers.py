"""Layers shared by the models, built from matrix products and shifted sums."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from realaudio_jax.quantisation import Dense
from realaudio_jax.typing import Array, Float


def rms_norm(
    x: Float[Array, '*b D'], scale: Float[Array, '*#b D'], epsilon: float = 1e-6
) -> Float[Array, '*b D']:
    """x / rms(x) * scale (Zhang & Sennrich 2019, arXiv 1910.07467, eq. 4), in float32.

    Args:
        x: features.
        scale: of each feature, float32.
        epsilon: added to the mean square.
    """
    y = x.astype(jnp.float32)
    y = y * (jnp.mean(jnp.square(y), -1, keepdims=True) + epsilon) ** -0.5 * scale
    return y.astype(x.dtype)


class NormScale(nn.Module):
    """The scale [D] of an `rms_norm` that is computed beside others."""

    @nn.compact
    def __call__(self, width: int) -> Float[Array, 'D']:
        return self.param('scale', nn.initializers.ones, (width,)).astype(jnp.float32)


class RMSNorm(nn.Module):
    """`rms_norm` with its scale.

    Attributes:
        epsilon: added to the mean square.
        offset: what the parameter is stored less: 1 in Gemma's layers.
    """

    epsilon: float = 1e-6
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, '*b D']) -> Float[Array, '*b D']:
        start = nn.initializers.constant(1.0 - self.offset)
        scale = self.param('scale', start, (x.shape[-1],)).astype(jnp.float32) + self.offset
        return rms_norm(x, jnp.expand_dims(scale, tuple(range(x.ndim - 1))), self.epsilon)


def softmax_product(
    scores: Float[Array, 'A N M'], value: Float[Array, 'A M F']
) -> Float[Array, 'A N F']:
    """softmax(scores) v of A heads; scores are float32.

    The sum of the exponentials divides the product, not the weights: N F quotients in place of
    N M (Rabe & Staats 2021, arXiv 2112.05682).
    """
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    return (weights.astype(value.dtype) @ value / total).astype(value.dtype)


class DepthwiseConv(nn.Module):
    """Depthwise convolution over time, computed as a sum of shifted products.

    XLA's grouped convolution is slow on CPU; this sum fuses into one pass.

    Attributes:
        width: taps, odd; the output has the length of the input (zeros beyond the ends).
    """

    width: int = 7

    @nn.compact
    def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B N D']:
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (self.width, x.shape[-1]))
        bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
        length, reach = x.shape[1], self.width // 2
        padded = jnp.pad(x, [(0, 0), (reach, reach), (0, 0)])
        taps = [padded[:, i : i + length] * kernel[None, None, i] for i in range(self.width)]
        return sum(taps) + bias[None, None, :]


class ConvBlock(nn.Module):
    """Residual block: depthwise convolution, norm, two-layer MLP (ConvNeXt, 2201.03545, fig. 4).

    Attributes:
        expansion: width of the MLP over the width of the input.
        taps: of the depthwise convolution.
    """

    expansion: int = 3
    taps: int = 7

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B N D'], mask: Float[Array, 'B N'] | None = None
    ) -> Float[Array, 'B N D']:
        width = x.shape[-1]
        if mask is not None:  # padding must look like the zeros beyond the end
            x = x * mask[..., None]
        y = DepthwiseConv(self.taps, name='depthwise')(x)
        y = RMSNorm(name='norm')(y)
        y = nn.gelu(Dense(self.expansion * width, name='up')(y))
        # A small start keeps a deep stack close to the identity.
        down = Dense(
            width,
            name='down',
            kernel_init=nn.initializers.variance_scaling(0.1, 'fan_in', 'normal'),
        )
        return x + down(y)
