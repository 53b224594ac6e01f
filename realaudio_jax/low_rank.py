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

A, B = 'down', 'up'  # names of the two matrices in an adapter and in its file
_ROUNDING = 1e-4  # relative error that weight averaging leaves in untrained parameters


def adapts(name: tuple[str, ...], leaf, rank: int) -> bool:
    """Whether a parameter gets an adapter of this rank."""
    return name[-1] == 'kernel' and leaf.ndim == 2 and min(leaf.shape) > 2 * rank


def init(key: Key[Array, ''], params: PyTree, rank: int) -> PyTree:
    """A new adapter of a network, which leaves its function unchanged: A random, B zero.

    Args:
        key: of A, normal with variance 1 / in.
        params: nested dicts.
        rank: r, 1 or more.

    Returns:
        {'down': A, 'up': B} in place of each kernel that gets one, and nothing else.

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
    return flax.traverse_util.unflatten_dict(adapter)


def merge(params: PyTree, adapter: PyTree | None) -> PyTree:
    """A network with its adapter in its kernels; None is no adapter. Raises as `add`."""
    return params if adapter is None else add(params, adapter)


def trainable(
    key: Key[Array, ''], params: PyTree, adapter: PyTree | None, rank: int
) -> tuple[PyTree | None, PyTree]:
    """What a run keeps as it is and what it trains; `join` makes the network of the two.

    Args:
        key: of a new adapter.
        params: nested dicts.
        adapter: one that there is already, to go on with, of any rank; None begins a new one.
        rank: of a new one; 0: none, and the one there is becomes part of the network.

    Returns:
        (params, adapter), or (None, the whole network) with rank 0.

    Raises:
        ValueError: as `init` and `add`.
    """
    if not rank:
        return None, merge(params, adapter)
    return params, init(key, params, rank) if adapter is None else adapter


def join(base: PyTree | None, trained: PyTree) -> PyTree:
    """The network of both results of `trainable`, in which only the second is differentiated."""
    return trained if base is None else add(jax.lax.stop_gradient(base), trained)


def add(base: PyTree, adapter: Mapping, scale: float = 1.0) -> PyTree:
    """Parameters W + scale A B.

    Args:
        base: nested dicts.
        adapter: the same dicts, with {'down': A, 'up': B} in place of some kernels, no more.
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
    """An adapter that gives `params` - `base`, by a truncated SVD of each difference.

    Exact where the difference comes from adapters of this rank in all.

    Args:
        base, params: the same nested dicts.
        rank: of the adapter.
        known: an earlier adapter of `base`. Its factors stay, to the bit, where `params` is still
            what they give, as near as half precision can tell: a run may have left them alone.

    Raises:
        ValueError: parameters that have no adapter differ; they are named.
    """
    old, new = _flat(base), _flat(params)
    before, known = _flat(merge(base, known)), _flat(known or {})
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
