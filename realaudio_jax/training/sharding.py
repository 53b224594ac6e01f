"""What a training run splits over its devices: batches over 'data', large parameters over 'model'.

    mesh = training_mesh(batch_size, model_parallel=1)
    state = place(mesh, create_state(params, tx))
    step = jit_update(step, mesh)
    state, metrics = step(state, shard_batch(mesh, batch), ...)

`processes` says what a run of several processes is.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from realaudio_jax import processes
from realaudio_jax.mesh import make_mesh, param_sharding
from realaudio_jax.typing import PyTree


def training_mesh(*batch_sizes: int, model_parallel: int = 1) -> Mesh:
    """The mesh of a training loop, as `data_mesh`, and a line on standard error about it."""
    mesh = data_mesh(*batch_sizes, model_parallel=model_parallel)
    if processes.is_first():
        print(describe(mesh, *batch_sizes), file=sys.stderr, flush=True)
    return mesh


def describe(mesh: Mesh, *batch_sizes: int) -> str:
    """Processes, devices, mesh and batch per device, in a line."""
    data, model = mesh.shape['data'], mesh.shape['model']
    sizes = sorted(set(batch_sizes), reverse=True)
    each, whole = (' and '.join(map(str, n)) for n in ([b // data for b in sizes], sizes))
    return (
        f'{_counted(processes.count(), "process", "es")}, {_counted(mesh.size, "device")} '
        f'({mesh.devices.flat[0].device_kind}), mesh of {data} data x {model} model: '
        f'batch per device {each} (of {whole})'
    )


def _counted(count: int, noun: str, plural: str = 's') -> str:
    return f'{count} {noun}{plural if count != 1 else ""}'


def data_mesh(
    *batch_sizes: int, model_parallel: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Mesh over the devices of all processes.

    Args:
        batch_sizes: B of the batches of a run, of all processes together. One process leaves out
            devices over which they cannot be split evenly, and names them on standard error.
        model_parallel: devices that share one copy of the model; they belong to one process.
        devices: to use; all by default.

    Raises:
        ValueError: several processes, or the parts of a model, and a batch that cannot be split
            evenly; or a model that would lie in several processes.
    """
    devices = jax.devices() if devices is None else devices
    holders = {device.process_index for device in devices}
    local = len(devices) // len(holders)
    if local % model_parallel:
        raise ValueError(
            f'--model_parallel={model_parallel} does not divide the {_counted(local, "device")} of '
            'a process, within which the parts of a model lie; choose a divisor'
        )
    divisor, shares = math.gcd(*batch_sizes), len(devices) // model_parallel
    sizes = ' and '.join(map(str, dict.fromkeys(batch_sizes)))
    if divisor % shares and (len(holders) > 1 or model_parallel > 1):
        raise ValueError(
            f'a batch of {sizes} cannot be split evenly over {shares} data-parallel devices '
            f'({_counted(len(holders), "process", "es")} of {_counted(local, "device")}, '
            f'{model_parallel} for each copy of the model); make it a multiple of {shares}'
        )
    count = max(n for n in range(1, shares + 1) if divisor % n == 0) * model_parallel
    if count < len(devices):
        print(
            f'batches of {sizes} are split over {count} of {len(devices)} devices; a batch size '
            f'that is a multiple of {len(devices)} uses all',
            file=sys.stderr,
        )
    return make_mesh(model_parallel, devices[:count])


def shard_batch(mesh: Mesh, batch: PyTree) -> PyTree:
    """Puts a batch on the mesh, its first axis split over 'data'.

    With several processes each gives its own rows of the batch, see `processes.share`.

    Args:
        mesh: see `data_mesh`.
        batch: pytree of arrays [B ...], B a multiple of this process's part of the 'data' axis.

    Returns:
        The batch as device arrays.

    Raises:
        ValueError: an array has no first axis or one that cannot be split evenly.
    """
    shares = max(1, mesh.local_mesh.shape['data'])
    sharding = NamedSharding(mesh, P('data'))

    def put(path: tuple, leaf: Any) -> jax.Array:
        if np.ndim(leaf) == 0 or np.shape(leaf)[0] % shares:
            raise ValueError(
                f'batch{jax.tree_util.keystr(path)} of shape {np.shape(leaf)} cannot be split over '
                f'{shares} data-parallel device(s); make the batch size a multiple of that'
            )
        if mesh.is_multi_process:
            return jax.make_array_from_process_local_data(sharding, leaf)
        return jax.device_put(leaf, sharding)

    return jax.tree_util.tree_map_with_path(put, batch)


def place(mesh: Mesh, tree: PyTree) -> PyTree:
    """Puts parameters, or a whole training state, on the mesh by `mesh.param_sharding`.

    With several processes all give the same values.
    """
    return jax.tree.map(_put, tree, param_sharding(mesh, tree))


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
    """Puts a full copy of every array on every device of the mesh; else as `place`."""
    return jax.tree.map(lambda leaf: _put(leaf, NamedSharding(mesh, P())), tree)


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    apart = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    if apart or not sharding.mesh.is_multi_process:
        return jax.device_put(leaf, sharding)
    # Not by device_put, which compares what the processes give, over the network.
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def jit_update(
    update: Callable[..., tuple[PyTree, PyTree]],
    mesh: Mesh,
    *,
    static_argnames: Sequence[str] = (),
    donate_argnums: Sequence[int] = (),
) -> Callable[..., tuple[PyTree, PyTree]]:
    """`jax.jit` of an update that leaves the state where `place` put it, and metrics everywhere.

    Several processes wait for one another between compiling it and running it for the first time,
    once for each shape of its arguments: on CPUs a sum ends the run where one process comes to it
    half a minute after another, and compilations differ by more than that on busy cores.

    Args:
        update: (state, ...) to (state, metrics).
        mesh: see `data_mesh`.
        static_argnames: keyword arguments that are part of the program.
        donate_argnums: arguments whose memory the results may take.
    """

    @functools.wraps(update)
    def placed(*args: Any, **kwargs: Any) -> tuple[PyTree, PyTree]:
        state, metrics = update(*args, **kwargs)
        where = param_sharding(mesh, state), NamedSharding(mesh, P())
        return jax.lax.with_sharding_constraint((state, metrics), where)

    jitted = jax.jit(placed, static_argnames=static_argnames, donate_argnums=donate_argnums)
    if not mesh.is_multi_process:
        return jitted
    ready = set()

    @functools.wraps(update)
    def together(*args: Any, **kwargs: Any) -> tuple[PyTree, PyTree]:
        static = tuple((name, kwargs[name]) for name in static_argnames if name in kwargs)
        arrays = {name: kwargs[name] for name in kwargs if name not in static_argnames}
        leaves, tree = jax.tree.flatten((args, arrays))
        program = static, tree, *map(jax.typeof, leaves)
        if program not in ready:
            jitted.lower(*args, **kwargs).compile()
            processes.meet('first update')
            ready.add(program)
        return jitted(*args, **kwargs)

    return together
