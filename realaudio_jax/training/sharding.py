"""Sharding: a (data, model) mesh, batches over 'data', large parameters over 'model'.

The rules look at shapes alone, so one call serves parameters, averages and optimizer states, and
XLA inserts the communication.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from realaudio_jax.typing import PyTree

# Below this many elements an array is replicated: gathering it costs more than holding it.
SMALL = 2**14


def make_mesh(model_parallel: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh with axes ('data', 'model') over the devices.

    Args:
        model_parallel: devices among which one copy of the model is split; divides their number.
        devices: devices to use; all by default.

    Returns:
        A mesh of shape (devices / model_parallel, model_parallel).

    Raises:
        ValueError: `model_parallel` does not divide the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    if model_parallel < 1 or len(devices) % model_parallel:
        raise ValueError(
            f'model_parallel={model_parallel} does not divide the {len(devices)} device(s); '
            'choose a divisor'
        )
    return Mesh(np.asarray(devices).reshape(-1, model_parallel), ('data', 'model'))


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
        mesh: from `make_mesh`.
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


def param_sharding(mesh: Mesh, params: PyTree, small: int = SMALL) -> PyTree:
    """Sharding of each array: its largest divisible axis over 'model', small arrays replicated.

    Of equally large axes the last one is split. Depends on shapes only, so it also serves a whole
    training state and `jax.eval_shape` results.

    Args:
        mesh: from `make_mesh`.
        params: pytree of arrays or of `jax.ShapeDtypeStruct`.
        small: arrays with fewer elements are replicated.

    Returns:
        Pytree of `NamedSharding`, for `jax.device_put` or `jax.jit(out_shardings=...)`.
    """
    parts = mesh.shape['model']

    def rule(leaf: Any) -> NamedSharding:
        shape = leaf.shape if hasattr(leaf, 'shape') else np.shape(leaf)
        axes = [axis for axis, size in enumerate(shape) if size and size % parts == 0]
        if parts == 1 or not axes or np.prod(shape) < small:
            return NamedSharding(mesh, P())
        axis = max(axes, key=lambda a: (shape[a], a))
        return NamedSharding(mesh, P(*(None,) * axis, 'model'))

    return jax.tree.map(rule, params)


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
    """Put a full copy of every array on every device of the mesh.

    Args:
        mesh: from `make_mesh`.
        tree: pytree of arrays.

    Returns:
        The tree as device arrays.
    """
    return jax.device_put(tree, NamedSharding(mesh, P()))
