"""Initialises a denoiser from a shallower one, or from one of another latent basis."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from realaudio_jax.models.denoiser import PATCH, curve_features
from realaudio_jax.typing import Array, Float, PyTree

_BLOCK = 'block_'
_BRANCH_ENDS = ('self_out', 'cross_out', 'mlp_out')


def deepen(params: PyTree, depth: int) -> PyTree:
    """Adds blocks that leave the function unchanged until they are trained.

    A new block is a copy of the one before it whose three branches end in zeros; the new ones are
    spread evenly (stacking, Gong et al. 2019; zero ends as in Net2Net, arXiv 1511.05641).

    Args:
        params: of a `Denoiser`.
        depth: blocks of the result.

    Raises:
        ValueError: `params` has more blocks than `depth`.
    """
    tree = dict(params['params'])
    old = [tree.pop(f'{_BLOCK}{i}') for i in range(sum(name.startswith(_BLOCK) for name in tree))]
    if len(old) > depth:
        raise ValueError(f'{len(old)} blocks do not fit into {depth}; give a depth of {len(old)}')
    source = [i * len(old) // depth for i in range(depth)]
    for i, j in enumerate(source):
        block = old[j]
        if i and source[i - 1] == j:
            block = block | {
                k: {'kernel': jnp.zeros_like(block[k]['kernel'])} for k in _BRANCH_ENDS
            }
        tree[f'{_BLOCK}{i}'] = jax.tree.map(jnp.array, block)  # copies: a step may donate them
    return {'params': tree}


def with_curves(params: PyTree, curves: Sequence[str]) -> PyTree:
    """Adds the inputs of the curves that are not there yet, as zeros: the function stays.

    Args:
        params: of a `Denoiser`.
        curves: names, as its attribute has them.
    """
    tree = dict(params['params'])
    width = tree['embed']['kernel'].shape[1]
    rows = PATCH * curve_features(jnp.zeros((1, 1)), jnp.zeros((1, 1), bool)).shape[-1]
    for name in curves:
        tree.setdefault(f'curve_{name}', {'kernel': jnp.zeros((rows, width))})
    return {'params': tree}


def change_code(params: PyTree, old_code: PyTree, new_code: PyTree) -> PyTree:
    """Reprojects first and last layers to the latents of another linear basis.

    With z = A (e - mu) and e = mu + D z (eq. 1 of `models.autoencoder`), what one code holds of the
    other is z_old = M z_new + b with M = A_old D_new, and the reverse. Exact where one code is a
    rotation of the other; otherwise a start that training mends.

    Args:
        params: of a `Denoiser` trained on latents of `old_code`.
        old_code, new_code: parameters of `Autoencoder`.
    """
    to_old, old_shift = _between(new_code, old_code)
    to_new, _ = _between(old_code, new_code)
    tree = dict(params['params'])

    # Rows of one latent frame: x_t, event features, known latents, their mask.
    rows = tree['embed']['kernel'].reshape(PATCH, -1, tree['embed']['kernel'].shape[-1])
    count = len(old_shift)
    noisy, events = rows[:, :count], rows[:, count : -count - 1]
    given, flag = rows[:, -count - 1 : -1], rows[:, -1:]
    flag = flag + jnp.einsum('c,pcd->pd', old_shift, given)[:, None]
    noisy, given = (jnp.einsum('nc,pcd->pnd', to_old, x) for x in (noisy, given))
    kernel = jnp.concatenate([noisy, events, given, flag], axis=1)
    tree['embed'] = tree['embed'] | {'kernel': kernel.reshape(-1, kernel.shape[-1])}

    kernel, bias = tree['out']['kernel'], tree['out']['bias']
    width = kernel.shape[0]
    tree['out'] = {
        'kernel': (kernel.reshape(width, PATCH, -1) @ to_new).reshape(width, -1),
        'bias': (bias.reshape(PATCH, -1) @ to_new).reshape(-1),
    }
    return {'params': tree}


def _between(source: PyTree, target: PyTree) -> tuple[Float[Array, 'C C'], Float[Array, 'C']]:
    """(M, b) of z_target = z_source M + b."""
    source, target = source['params']['decoder'], target['params']['encoder']
    return (
        source['kernel'] @ target['kernel'],
        (source['mean'] - target['mean']) @ target['kernel'],
    )
