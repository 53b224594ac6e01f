"""Integers in place of floats: weights as they are stored, and products of integers.

Both are symmetric, with a float32 scale (Jacob et al. 2018, arXiv 1712.05877, eq. 1, offset zero):

    v = s q + error,    q = round(v / s),    s = max |v| / Q,    Q = 127 (int8) or 7 (int4).    (1)

Stored weights have a scale for each output channel, or for each block of inputs of a channel, and
become float32 when they are read. A `Quantised` kernel stays int8: its layer rounds the inputs as
well, with a scale for each token (Dettmers et al. 2022, arXiv 2208.07339, section 2.1), and

    x W = s_x (q_x q_W) s_W + errors,                                                           (2)

whose inner product is exact in int32. It stands in a network's parameters where the float kernel
was, so that the network itself is the same.
"""

import functools
import re

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype

from realaudio_jax.typing import Any, Array, Float, Leaf, PyTree

MOST = {8: 127, 4: 7}  # Q of eq. 1 by bits
PRECISIONS = ('float32', 'int8')  # of a network's products
# Kernels whose products are most of the work: those of attention and of MLPs, one for each token.
_PRODUCTS = re.compile(
    r'(block|layer)_\d+/(attention/)?'
    r'(self_qkv|self_out|cross_query|cross_out|mlp_in|mlp_out|qkv|out|expand|contract|up|down)'
    '/kernel'
)


@flax.struct.dataclass
class Quantised:
    """An int8 kernel [in, out] with a float32 scale for each output channel, [1, out]."""

    values: Leaf['I O']
    scale: Leaf['1 O']


def quantise(
    values: np.ndarray, channel_axis: int = -1, block: int | None = None, bits: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Integers of eq. 1 with one scale per channel, or per block of a channel's inputs.

    Args:
        values: floats of at least two axes.
        channel_axis: the axis that has one scale for each index.
        block: how many inputs (the last axis but one) share a scale, where that divides them; all
            of them where it is None. Only where the channel is the last axis.
        bits: 8 or 4.

    Returns:
        int8 of the same shape, in [-Q, Q], and float32 scales whose axes divide those of `values`:
        whole along the channel, 1 elsewhere, or the number of blocks.

    Raises:
        ValueError: a value is infinite or not a number.
    """
    values, most = np.asarray(values, np.float32), MOST[bits]
    others = tuple(i for i in range(values.ndim) if i != channel_axis % values.ndim)
    size = values.shape[-2]
    if block and channel_axis == -1 and size % block == 0:
        cut = values.reshape(*values.shape[:-2], size // block, block, values.shape[-1])
        # All axes but the blocks' and the channel's; the blocks' then stands where inputs did.
        others = (*range(values.ndim - 2), values.ndim - 1)
        peak = np.max(np.abs(cut), axis=others, keepdims=True).squeeze(values.ndim - 1)
    else:
        peak = np.max(np.abs(values), axis=others, keepdims=True, initial=0.0)
    if not np.isfinite(peak).all():
        raise ValueError('weights that are not finite cannot be stored as integers')
    scale = np.where(peak > 0, peak / most, 1).astype(np.float32)  # 1 for a channel of zeros
    steps = np.round(values / expand_scale(scale, values.shape))
    return np.clip(steps, -most, most).astype(np.int8), scale


def expand_scale(scale: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Repeats each scale over its block, to a shape that broadcasts to `shape`."""
    for axis, (count, size) in enumerate(zip(scale.shape, shape, strict=True)):
        if 1 < count < size:
            scale = np.repeat(scale, size // count, axis)
    return scale


def pack_int4(values: np.ndarray) -> np.ndarray:
    """Pairs of the last axis, which is even, as one uint8 each: the first in the lower half.

    Args:
        values: int8 in [-8, 7].
    """
    low, high = (values[..., i::2].astype(np.uint8) & 15 for i in (0, 1))
    return low | high << 4


def unpack_int4(packed: np.ndarray) -> np.ndarray:
    """The int8 values of `pack_int4`."""
    halves = np.stack([packed & 15, packed >> 4], axis=-1).astype(np.int8)
    return (halves - 16 * (halves > 7)).astype(np.int8).reshape(*packed.shape[:-1], -1)


def quantise_products(params: PyTree) -> PyTree:
    """A network's parameters with `Quantised` kernels in its blocks and layers.

    Embeddings, norms, what depends on times alone, and the first and the last layer stay floats.

    Raises:
        ValueError: as `quantise`.
    """

    def one(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        if leaf.ndim != 2 or not _PRODUCTS.search(name):
            return leaf
        values, scale = quantise(np.asarray(leaf))
        return Quantised(jnp.asarray(values), jnp.asarray(scale))

    return jax.tree_util.tree_map_with_path(one, params)


def _promote(inputs: Array, kernel: Array | Quantised, bias: Array | None, dtype: Any) -> list:
    """As `nn.Dense` brings its arguments to one dtype; an int8 kernel stays what it is."""
    if not isinstance(kernel, Quantised):
        return promote_dtype(inputs, kernel, bias, dtype=dtype)
    inputs, bias = promote_dtype(inputs, bias, dtype=dtype)
    return [inputs, kernel, bias]


def _product(
    x: Float[Array, '... I'], kernel: Array | Quantised, axes: Any, precision: Any = None
) -> Float[Array, '... O']:
    """x W; where W is int8, by eq. 2."""
    if not isinstance(kernel, Quantised):
        return jax.lax.dot_general(x, kernel, axes, precision=precision)
    wide = x.astype(jnp.float32)
    peak = jnp.maximum(jnp.max(jnp.abs(wide), axis=-1, keepdims=True), 1e-12)
    rounded = jnp.round(wide * (MOST[8] / peak)).astype(jnp.int8)
    sums = jax.lax.dot_general(rounded, kernel.values, axes, preferred_element_type=jnp.int32)
    scale = peak / MOST[8] * jnp.expand_dims(kernel.scale[0], tuple(range(x.ndim - 1)))
    return (sums.astype(jnp.float32) * scale).astype(x.dtype)


# `nn.Dense` that takes a `Quantised` kernel as well.
Dense = functools.partial(nn.Dense, promote_dtype=_promote, dot_general=_product)
