"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685).

Every kernel W [in, out] with both sides longer than twice the rank r becomes W + A B. Only
A [in, r] and B [r, out] are trained. A is initialised at random and B with zeros, so the network
is unchanged at first. An adapter of a shipped network is an eighth of its size, and is stored
beside it.
"""

from collections.abc import Mapping

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.typing import Any, Array, Key, PyTree

BASE, ADAPTER = 'base', 'adapter'  # keys of a combined tree
A, B = 'down', 'up'  # names of the two matrices in an adapter and in its file
_ROUNDING = 1e-4  # relative error that weight averaging leaves in untrained parameters


def adapts(name: tuple[str, ...], leaf, rank: int) -> bool:
    """Whether a parameter gets an adapter of this rank."""
    return name[-1] == 'kernel' and leaf.ndim == 2 and min(leaf.shape) > 2 * rank


def init(key: Key[Array, ''], params: PyTree, rank: int) -> PyTree:
    """A network with a new adapter: {'base': params, 'adapter': A and B of each kernel}.

    `merge` stops the gradient of the base, so an optimizer without weight decay leaves it as it is.

    Args:
        key: of A, normal with variance 1 / in; B is zero.
        params: nested dicts.
        rank: r, 1 or more.

    Raises:
        ValueError: no kernel is large enough.
    """
    kernels = {k: v for k, v in _flat(params).items() if adapts(k, v, rank)}
    if rank < 1 or not kernels:
        raise ValueError(f'no kernel takes an adapter of rank {rank}; take less, and at least 1')
    adapter = {}
    for i, (name, kernel) in enumerate(sorted(kernels.items())):
        size, width = kernel.shape
        a = jax.random.normal(jax.random.fold_in(key, i), (size, rank)) / jnp.sqrt(size)
        adapter[name + (A,)], adapter[name + (B,)] = a, jnp.zeros((rank, width))
    return combine(params, flax.traverse_util.unflatten_dict(adapter))


def combine(params: PyTree, adapter: PyTree | None) -> PyTree:
    """A network and its adapter as one tree, as `init` gives it; without one, the network."""
    return params if adapter is None else {BASE: params, ADAPTER: adapter}


def trainable(key: Key[Array, ''], params: PyTree, adapter: PyTree | None, rank: int) -> PyTree:
    """The tree to train: the whole network, or with a rank the network and an adapter.

    Args:
        key: of a new adapter.
        params: nested dicts.
        adapter: an existing one of any rank, to be trained further; None begins a new one.
        rank: of a new one; 0: none, and an existing one becomes part of the network.

    Raises:
        ValueError: as `init` and `add`.
    """
    if adapter is None and rank:
        return init(key, params, rank)
    combined = combine(params, adapter)
    return combined if rank else merge(combined)


def merge(params: PyTree) -> PyTree:
    """Plain parameters of a combined tree, W + A B; other trees are returned unchanged."""
    if set(params) != {BASE, ADAPTER}:
        return params
    return add(jax.lax.stop_gradient(params[BASE]), params[ADAPTER])


def add(base: PyTree, adapter: Mapping, scale: float = 1.0) -> PyTree:
    """Parameters W + scale A B.

    Args:
        base: nested dicts.
        adapter: the same dicts, {'down': A, 'up': B} in place of some kernels and nothing else.
        scale: of what is added.

    Raises:
        ValueError: the adapter is of another network; the message names every misfit.
    """
    merged, factors = _flat(base), _flat(adapter)
    names = sorted({name[:-1] for name in factors})
    wrong = []
    for name in names:
        sides = [factors.get(name + (side,)) for side in (A, B)]
        if name not in merged or any(side is None or side.ndim != 2 for side in sides):
            wrong.append('/'.join(name))
            continue
        a, b = sides
        shape = (a.shape[0], b.shape[1])
        if merged[name].shape != shape or a.shape[1] != b.shape[0]:
            wrong.append(f'{"/".join(name)} {a.shape} {b.shape}')
            continue
        merged[name] = merged[name] + scale * (jnp.asarray(a) @ jnp.asarray(b))
    if wrong or not names:
        raise ValueError(
            f'the adapter does not fit the network: {", ".join(wrong) or "it is empty"}'
        )
    return flax.traverse_util.unflatten_dict(merged)


def extract(base: PyTree, params: PyTree, rank: int, known: PyTree | None = None) -> PyTree:
    """Extracts an adapter from `params` - `base` by a truncated SVD of each difference.

    Exact where the difference comes from adapters of this rank in all.

    Args:
        base, params: the same nested dicts.
        rank: of the adapter.
        known: an earlier adapter of `base`. Its matrices stay, to the bit, where `params` is still
            W + A B as near as half precision can tell: a run may not have trained them.

    Raises:
        ValueError: parameters that have no adapter differ; they are named.
    """
    old, new = _flat(base), _flat(params)
    before, known = _flat(merge(combine(base, known))), _flat(known or {})
    adapter, others = {}, []
    for name, leaf in old.items():
        factors = [name + (side,) for side in (A, B)]
        if factors[0] in known and np.allclose(new[name], before[name], rtol=2**-10, atol=1e-7):
            adapter |= {factor: known[factor] for factor in factors}
            continue
        difference = np.asarray(new[name], np.float32) - np.asarray(leaf, np.float32)
        if adapts(name, leaf, rank):
            u, s, v = np.linalg.svd(difference, full_matrices=False)
            root = np.sqrt(s[:rank])
            adapter[name + (A,)] = u[:, :rank] * root
            adapter[name + (B,)] = root[:, None] * v[:rank]
        elif np.max(np.abs(difference), initial=0) > _ROUNDING * np.max(np.abs(leaf), initial=0):
            others.append('/'.join(name))
    if others:
        raise ValueError(f'no adapter holds what is new in {", ".join(others)}; save it whole')
    return flax.traverse_util.unflatten_dict(adapter)


def _flat(tree: Mapping) -> dict[tuple[str, ...], Any]:
    return flax.traverse_util.flatten_dict(tree)
