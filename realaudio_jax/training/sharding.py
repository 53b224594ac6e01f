"""Batches of a training run on a mesh: split over its axis 'data', as evenly as they allow."""

from __future__ import annotations

import math
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from realaudio_jax.mesh import make_mesh
from realaudio_jax.typing import PyTree


def data_mesh(*batch_sizes: int) -> Mesh:
    """Mesh over as many devices as every batch can be split over evenly; the model is on each.

    Args:
        batch_sizes: B of the batches of a run. Devices that are left over are named on standard
            error.
    """
    devices = jax.devices()
    divisor = math.gcd(*batch_sizes)
    count = max(n for n in range(1, len(devices) + 1) if divisor % n == 0)
    if count < len(devices):
        sizes = ' and '.join(map(str, dict.fromkeys(batch_sizes)))
        print(
            f'batches of {sizes} are split over {count} of {len(devices)} devices; a batch size '
            f'that is a multiple of {len(devices)} uses all',
            file=sys.stderr,
        )
    return make_mesh(devices=devices[:count])


def shard_batch(mesh: Mesh, batch: PyTree) -> PyTree:
    """Put a batch on the mesh, its first axis split over 'data'.

    With several processes each gives its own share of the batch as numpy arrays.

    Args:
        mesh: see `mesh.make_mesh`.
        batch: pytree of arrays [B ...], B a multiple of the mesh's 'data' size.

    Returns:
        The batch as device arrays.

    Raises:
        ValueError: an array has no first axis or one that cannot be split evenly.
    """
    shares = mesh.shape['data']
    local_shares = max(1, shares // jax.process_count())
    sharding = NamedSharding(mesh, P('data'))

    def put(path: tuple, leaf: Any) -> jax.Array:
        if np.ndim(leaf) == 0 or np.shape(leaf)[0] % local_shares:
            raise ValueError(
                f'batch{jax.tree_util.keystr(path)} of shape {np.shape(leaf)} cannot be split over '
                f'{local_shares} data-parallel device(s); make the batch size a multiple of that'
            )
        if isinstance(leaf, jax.Array):
            return jax.device_put(leaf, sharding)
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    return jax.tree_util.tree_map_with_path(put, batch)


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
    """Put a full copy of every array on every device of the mesh.

    Args:
        mesh: see `mesh.make_mesh`.
        tree: pytree of arrays.

    Returns:
        The tree as device arrays.
    """
    return jax.device_put(tree, NamedSharding(mesh, P()))
