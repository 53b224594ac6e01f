"""The device mesh ('data', 'model') and the sharding of parameters over it.

Batches are split over 'data', large parameters over 'model'. The rules look at shapes alone, so one
call serves parameters, averages and optimizer states, and XLA inserts the communication.
"""

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
    devices.sort(key=lambda device: device.process_index)  # each process's in one piece
    if model_parallel < 1 or len(devices) % model_parallel:
        raise ValueError(
            f'model_parallel={model_parallel} does not divide the {len(devices)} device(s); '
            'choose a divisor'
        )
    return Mesh(np.asarray(devices).reshape(-1, model_parallel), ('data', 'model'))


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
