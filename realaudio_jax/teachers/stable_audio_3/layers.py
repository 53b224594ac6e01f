"""What several networks of Stable Audio 3 share: norm, Fourier features, attention, gated MLP."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.teachers.layers import attend, attention_weights, weighted
from realaudio_jax.typing import Array, Float

LOWEST, HIGHEST = 0.5, 10_000.0  # frequencies of all Fourier features, as published


class Norm(nn.Module):
    """x / rms(x) * scale (Zhang & Sennrich 2019, arXiv 1910.07467, eq. 4), in float32."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, '*b D']) -> Float[Array, '*b D']:
        scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + self.epsilon)
        scale = jnp.expand_dims(scale.astype(jnp.float32), tuple(range(x.ndim - 1)))
        return (y * scale).astype(x.dtype)


def fourier_features(x: Float[Array, 'B'], count: int) -> Float[Array, 'B N']:
    """cos and sin of 2 pi f x in float32, f evenly in the logarithm from LOWEST to HIGHEST.

    Args:
      x: numbers in [0, 1].
      count: N, even.
    """
    low, high = np.log([LOWEST, HIGHEST])
    # Rounded to float32 at every step, as the original: the highest angles have only two decimals.
    ramp = np.linspace(0, 1, count // 2, dtype=np.float32)
    frequencies = np.exp(ramp * np.float32(high - low) + np.float32(low))
    angle = x.astype(jnp.float32)[:, None] * frequencies[None] * 2 * math.pi
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def attend_maps(
    query: Float[Array, 'B G N F'],
    key: Float[Array, 'B G M F'],
    value: Float[Array, 'B H M F'],
    bias: Float[Array, '#B #G #N M'] | None = None,
) -> Float[Array, 'B N H*F']:
    """Attention, or with G = 2 H differential attention: (softmax of head i - of head i + H) v.

    Source: Ye et al. 2024 (arXiv 2410.05258), eq. 1 with lambda = 1.
    """
    heads = value.shape[1]
    if query.shape[1] == heads:
        return attend(query, key, value, bias)
    weights = attention_weights(query, key, bias)
    # Subtracted in float32: what both maps share cancels, and little is left.
    weights = weights[:, :heads] - weights[:, heads:]
    return weighted(weights.astype(value.dtype), value)
