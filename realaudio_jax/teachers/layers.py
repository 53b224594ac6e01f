"""Layers shared by the teachers: attention, rotary positions, tiling of a batch."""

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.models.layers import softmax_product
from realaudio_jax.typing import Array, Bool, Float

# A score so low that softmax gives 0; finite, so that a row with no key at all stays a number.
HIDDEN = -1e9
LONG = 2**18  # scores of a head, 1 MB


def split_heads(x: Float[Array, 'B N D'], heads: int) -> Float[Array, 'B H N F']:
    """Features of a token cut into heads, heads before tokens; F = D / H."""
    return jnp.swapaxes(x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads), 1, 2)


def merge_heads(x: Float[Array, 'B H N F']) -> Float[Array, 'B N H*F']:
    """Concatenates the features of all heads."""
    x = jnp.swapaxes(x, 1, 2)
    return x.reshape(*x.shape[:2], -1)


def attend(
    query: Float[Array, 'B H N F'],
    key: Float[Array, 'B H M F'],
    value: Float[Array, 'B H M F'],
    bias: Float[Array, '#B #H #N M'] | None = None,
    scale: float | None = None,
    cap: float | None = None,
) -> Float[Array, 'B N H*F']:
    """softmax(scale q k^T + bias) v (Vaswani et al. 2017, arXiv 1706.03762, eq. 1).

    On CPU, heads whose scores would fill its caches come one after the other (Rabe & Staats 2021,
    arXiv 2112.05682).

    Args:
        query, key, value: as `split_heads` gives them.
        bias: added to the scores: positions, or `mask_bias` where keys are hidden.
        scale: None is 1 / sqrt(F).
        cap: see `attention_scores`.

    Returns:
        heads side by side again.
    """

    def mixed(query, key, value):
        scores = attention_scores(query, key, bias, scale, cap)
        return softmax_product(scores, heads_as_batch(value))

    def in_turn(*parts):
        heads = [heads_as_batch(x)[:, None, None] for x in parts]
        return jax.lax.map(lambda head: mixed(*head), heads)[:, 0]

    if bias is None and query.shape[2] * key.shape[2] >= LONG:
        out = jax.lax.platform_dependent(query, key, value, cpu=in_turn, default=mixed)
    else:
        out = mixed(query, key, value)
    return merge_heads(out.reshape(*query.shape[:-1], value.shape[-1]))


def attention_scores(
    query: Float[Array, 'B H N F'],
    key: Float[Array, 'B H M F'],
    bias: Float[Array, '#B #H #N M'] | None = None,
    scale: float | None = None,
    cap: float | None = None,
) -> Float[Array, 'B*H N M']:
    """scale q k^T + bias, in float32.

    Args:
        query, key, bias, scale: see `attend`.
        cap: scores s become cap tanh(s / cap) before the bias (Gemma 2, arXiv 2408.00118, section
            2); None leaves them.
    """
    heads = query.shape[:2]
    query, key = heads_as_batch(query), heads_as_batch(key)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    # In float32: half precision holds neither the sum of many exponentials nor HIDDEN.
    scores = (query * scale @ jnp.swapaxes(key, -1, -2)).astype(jnp.float32)
    if cap is not None:
        scores = cap * jnp.tanh(scores / cap)
    if bias is not None:
        scores = scores + heads_as_batch(jnp.broadcast_to(bias, (*heads, *bias.shape[2:])))
    return scores


def heads_as_batch(x: Float[Array, 'B H N F']) -> Float[Array, 'B*H N F']:
    """Merges batch and heads into one axis, up to twice as fast on CPU."""
    return x.reshape(-1, *x.shape[2:])


def tile_like(x: Float[Array, 'B ...'], like: Float[Array, 'P ...']) -> Float[Array, 'P ...']:
    """Tiles the batch of x to the batch size of `like`."""
    return jnp.tile(x, (len(like) // len(x), *[1] * (x.ndim - 1)))


def mask_bias(mask: Bool[Array, 'B M']) -> Float[Array, 'B 1 1 M']:
    """Additive attention bias: 0 where `mask` is True, HIDDEN where it is False."""
    return jnp.where(mask, 0.0, HIDDEN)[:, None, None]


def rotary_table(
    positions: int, features: int, longest: float = 10_000.0
) -> tuple[Float[Array, 'N R'], Float[Array, 'N R']]:
    """cos and sin of n / longest^(2 i / features), each of the R = features / 2 angles once.

    Source: Su et al. 2021 (arXiv 2104.09864), eq. 15.
    """
    rate = 1.0 / longest ** (np.arange(0, features, 2, dtype=np.float32) / features)
    angle = np.outer(np.arange(positions, dtype=np.float32), rate)
    return jnp.cos(angle), jnp.sin(angle)


def rotate_halves(
    x: Float[Array, 'B H N F'], cos: Float[Array, 'N R'], sin: Float[Array, 'N R']
) -> Float[Array, 'B H N F']:
    """Turns features i and i + R together by the angle i of each position; those from 2 R stay.

    In float32, like the originals: half precision blurs the angles of late positions.
    """
    turned = cos.shape[-1]
    a, b, rest = x[..., :turned], x[..., turned : 2 * turned], x[..., 2 * turned :]
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    cos, sin = cos[None, None], sin[None, None]
    parts = [(a * cos - b * sin).astype(x.dtype), (b * cos + a * sin).astype(x.dtype)]
    return jnp.concatenate([*parts, rest], axis=-1)
