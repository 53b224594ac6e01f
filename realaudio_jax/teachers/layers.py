"""What the teachers truly share: attention as batched products."""

import jax
import jax.numpy as jnp

from realaudio_jax.typing import Array, Bool, Float


def split_heads(x: Float[Array, 'B N D'], heads: int) -> Float[Array, 'B H N F']:
    """Features of a token cut into heads, heads before tokens; F = D / H."""
    return jnp.swapaxes(x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads), 1, 2)


def attend(
    query: Float[Array, 'B H N F'],
    key: Float[Array, 'B H M F'],
    value: Float[Array, 'B H M F'],
    bias: Float[Array, '#B #H #N M'] | None = None,
    scale: float | None = None,
) -> Float[Array, 'B N H*F']:
    """softmax(scale q k^T + bias) v (Vaswani et al. 2017, arXiv 1706.03762, eq. 1).

    Args:
      query, key, value: as `split_heads` gives them.
      bias: added to the scores: positions, or `mask_bias` where keys are hidden.
      scale: None is 1 / sqrt(F).

    Returns:
      heads side by side again.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = jnp.matmul(query * scale, jnp.swapaxes(key, -1, -2))
    if bias is not None:
        scores = scores + jnp.broadcast_to(bias, scores.shape).astype(scores.dtype)
    # In half precision the sum of exponentials over many keys would lose its last digits.
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(value.dtype)
    out = jnp.swapaxes(jnp.matmul(weights, value), 1, 2)
    return out.reshape(*out.shape[:2], -1)


def mask_bias(mask: Bool[Array, 'B M']) -> Float[Array, 'B 1 1 M']:
    """0 at keys that are seen, and where `mask` is False so low that softmax gives 0.

    Finite, so that a row with no key at all stays a number.
    """
    return jnp.where(mask, 0.0, -1e9)[:, None, None]
