"""The device mesh ('data', 'model') and the sharding of parameters over it.

Batches are split over 'data', large parameters over 'model'. The rules look at names and shapes
alone, so one call serves parameters, averages and optimizer states, and XLA inserts the
communication.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from realaudio_jax.typing import PyTree

# Below this many elements an array is replicated: gathering it costs more than holding it.
SMALL = 2**14
# Kernels that come second in attention and MLP: their inputs are split, where the first ones'
# outputs are, so that a device needs no other's between them (Shoeybi et al. 2019, 1909.08053).
SECOND = re.compile(r'\b(self_out|cross_out|mlp_out)\b.*\bkernel\b')


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
    devices.sort(key=lambda device: device.process_index)  # each process's in one piece
    if model_parallel < 1 or len(devices) % model_parallel:
        raise ValueError(
            f'model_parallel={model_parallel} does not divide the {len(devices)} device(s); '
            'choose a divisor'
        )
    return Mesh(np.asarray(devices).reshape(-1, model_parallel), ('data', 'model'))


def param_sharding(mesh: Mesh, params: PyTree, small: int | None = None) -> PyTree:
    """Sharding of each array: one divisible axis over 'model', small arrays replicated.

    It is the inputs' of the kernels named in `SECOND`; of others the largest, of equally large ones
    the last. Depends on names and shapes only, so it also serves a whole training state and
    `jax.eval_shape` results.

    Args:
        mesh: from `make_mesh`.
        params: pytree of arrays or of `jax.ShapeDtypeStruct`.
        small: arrays with fewer elements are replicated; None: `SMALL`.

    Returns:
        Pytree of `NamedSharding`, for `jax.device_put` or `jax.jit(out_shardings=...)`.
    """
    parts, least = mesh.shape['model'], SMALL if small is None else small

    def rule(path: tuple, leaf: Any) -> NamedSharding:
        shape = leaf.shape if hasattr(leaf, 'shape') else np.shape(leaf)
        axes = [axis for axis, size in enumerate(shape) if size and size % parts == 0]
        if parts == 1 or not axes or np.prod(shape) < least:
            return NamedSharding(mesh, P())
        axis = max(axes, key=lambda a: (shape[a], a))
        if 0 in axes and SECOND.search(jax.tree_util.keystr(path)):
            axis = 0
        return NamedSharding(mesh, P(*(None,) * axis, 'model'))

    return jax.tree_util.tree_map_with_path(rule, params)
