"""Layers shared by the networks of Stable Audio 3: Fourier features and attention."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.teachers.layers import HIDDEN, attention_scores, heads_as_batch
from realaudio_jax.typing import Array, Float

LOWEST, HIGHEST = 0.5, 10_000.0  # frequencies of all Fourier features, as published


def fourier_features(x: Float[Array, 'B'], count: int) -> Float[Array, 'B N']:
    """cos and sin of 2 pi f x in float32, f evenly in the logarithm from LOWEST to HIGHEST.

    Args:
        x: numbers in [0, 1].
        count: N, even.
    """
    low, high = np.log([LOWEST, HIGHEST])
    # Rounded to float32 where the original is: the highest angles have only two decimals.
    i = np.arange(count // 2)
    step = np.float32(1) / np.float32(max(count // 2 - 1, 1))
    ramp = np.where(i < count // 4, i * step, 1 - (count // 2 - 1 - i) * step).astype(np.float32)
    rise = ramp * np.float32(high - low) + np.float32(low)
    frequencies = np.exp(rise.astype(np.float64)).astype(np.float32)
    angle = x.astype(jnp.float32)[:, None] * frequencies[None] * 2 * math.pi
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def mix(
    query: Float[Array, 'B G N F'],
    key: Float[Array, 'B G M F'],
    value: Float[Array, 'B H M F'],
    bias: Float[Array, '#B #G #N M'] | None = None,
) -> Float[Array, 'B H N F']:
    """Attention, or differential attention where G = 2 H.

    That is the softmax of head i less the softmax of head i + H (Ye et al. 2024, arXiv 2410.05258,
    eq. 1 with lambda = 1).
    """
    heads = value.shape[1]
    weights = jax.nn.softmax(attention_scores(query, key, bias), axis=-1)
    if query.shape[1] != heads:
        # In float32: what both maps share cancels, and little is left.
        maps = weights.reshape(-1, 2, heads, *weights.shape[1:])
        weights = heads_as_batch(maps[:, 0] - maps[:, 1])
    mixed = weights.astype(value.dtype) @ heads_as_batch(value)
    return mixed.reshape(*query.shape[:1], heads, *mixed.shape[1:])


def mix_near(
    query: Float[Array, 'B G N F'],
    key: Float[Array, 'B G N F'],
    value: Float[Array, 'B H N F'],
    reach: int,
) -> Float[Array, 'B H N F']:
    """`mix` restricted to tokens at most `reach` positions away.

    Blocks of 2 reach tokens see themselves and reach tokens on either side, so the cost grows with
    N and not with its square.
    """
    length, block = query.shape[2], 2 * reach
    count = -(-length // block)
    ends = [(0, 0), (0, 0), (0, count * block - length), (0, 0)]

    def blocks(x):  # [B G N F] to [B G*count block F]
        x = jnp.pad(x, ends)
        return x.reshape(len(x), -1, block, x.shape[-1])

    def with_neighbours(x):
        x = jnp.pad(x, ends).reshape(*x.shape[:2], count, block, x.shape[-1])
        before = jnp.pad(x[:, :, :-1, reach:], [(0, 0), (0, 0), (1, 0), (0, 0), (0, 0)])
        behind = jnp.pad(x[:, :, 1:, :reach], [(0, 0), (0, 0), (0, 1), (0, 0), (0, 0)])
        x = jnp.concatenate([before, x, behind], axis=3)
        return x.reshape(len(x), -1, 2 * block, x.shape[-1])

    start = np.arange(count)[:, None, None] * block
    i = start + np.arange(block)[None, :, None]
    j = start + np.arange(-reach, block + reach)[None, None]
    seen = (abs(i - j) <= reach) & (j >= 0) & (j < length)
    bias = jnp.tile(jnp.where(seen, 0.0, HIDDEN), (query.shape[1], 1, 1))[None]
    y = mix(blocks(query), with_neighbours(key), with_neighbours(value), bias)
    return y.reshape(*value.shape[:2], count * block, -1)[:, :, :length]
