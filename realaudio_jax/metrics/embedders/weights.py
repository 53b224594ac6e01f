"""Published checkpoints: the file in a folder, and a strict fit to a network's parameters.

A port names its submodules as the original does ('features.0.block.1'), so that a parameter's name
in the original is its path here joined by dots, with Flax's word for the leaf replaced by PyTorch's
(`kernel` by `weight`, `mean` by `running_mean`). Kernels change layout:

    dense [out in] -> [in out],   conv [out in w] -> [w in out],   [out in h w] -> [h w in out].
"""

import hashlib
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax.release import read_tensors
from realaudio_jax.trees import initial_shapes, named_leaves
from realaudio_jax.typing import PyTree

LEAVES = {
    'kernel': 'weight',
    'scale': 'weight',
    'embedding': 'weight',
    'mean': 'running_mean',
    'var': 'running_var',
}
TO_FLAX = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}  # axes of a kernel, by its dimensions
FROM_FLAX = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}

# The names of the originals behind one parameter, and how their arrays (in Flax layout) join.
Source = tuple[tuple[str, ...], Callable[..., np.ndarray]]


def find_weights(folder: str | os.PathLike, names: Sequence[str], what: str) -> pathlib.Path:
    """The first of `names` that a folder holds.

    Args:
        folder: where the user keeps the checkpoint.
        names: file names, the preferred one first.
        what: the network, for the message.

    Raises:
        FileNotFoundError: none is there; the message names them all.
    """
    folder = pathlib.Path(folder)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f'{what} weights not found in {folder}: name a folder that holds {" or ".join(names)}'
    )


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Every array of a .npz or .safetensors file, by name.

    Raises:
        ValueError: the file is truncated, damaged, or holds objects that are not arrays.
    """
    path = pathlib.Path(path)
    if path.suffix != '.npz':
        return read_tensors(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} is truncated or damaged ({error}); get it again') from error


def digest(path: str | os.PathLike) -> str:
    """First 8 hex digits of the SHA-256 of a file."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()[:8]


def fit(
    tensors: Mapping[str, np.ndarray],
    template: PyTree,
    what: str,
    unused: str = '',
    source: Callable[[str], Source | None] = lambda path: None,
) -> PyTree:
    """A tree like `template` from the arrays of a checkpoint in PyTorch's names and layouts.

    Args:
        tensors: arrays by their names in the original.
        template: nested dicts of `jax.ShapeDtypeStruct`, as `parameter_shapes` gives them.
        what: network and file, for the message.
        unused: pattern of names that need no place (buffers, heads that are left out).
        source: where a parameter, by its '/'-joined path, comes from; None for the rule above.

    Returns:
        The template's tree, filled with float32 arrays.

    Raises:
        ValueError: another network, or half a file; every missing and unexpected name, wrong
            shape and value that is not finite is listed.
    """
    left = {name for name in tensors if not re.fullmatch(unused, name)}
    problems, leaves = [], []
    for path, leaf in named_leaves(template):
        *owners, last = path.split('/')
        names, join = source(path) or (('.'.join([*owners, LEAVES.get(last, last)]),), lambda x: x)
        left.difference_update(names)
        missing = [name for name in names if name not in tensors]
        if missing:
            problems += [f'missing {name}' for name in missing]
            continue
        axes = TO_FLAX if last == 'kernel' else {}
        parts = [np.asarray(tensors[name]) for name in names]
        try:
            value = join(*[np.transpose(x, axes[x.ndim]) if x.ndim in axes else x for x in parts])
        except (ValueError, IndexError):
            value = None
        if value is None or value.shape != leaf.shape:
            problems.append(_misfit(names, parts, leaf.shape, last))
        elif not np.isfinite(value).all():
            problems.append(f'{" + ".join(names)} is not finite')
        else:
            leaves.append(jnp.asarray(value, jnp.float32))
    problems += [f'unexpected {name}' for name in sorted(left)]
    if problems:
        raise ValueError(f'{what} does not fit: {"; ".join(problems)}; give the whole checkpoint')
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(template), leaves)


def parameter_shapes(model, *inputs: tuple[int, ...] | jax.ShapeDtypeStruct) -> PyTree:
    """The parameters of a Linen module as shapes: a template for `fit`, with no memory.

    Args:
        model: the module.
        inputs: of its call: the shape of a float32 array, or a `jax.ShapeDtypeStruct`.
    """
    arrays = [
        jax.ShapeDtypeStruct(given, jnp.float32) if isinstance(given, tuple) else given
        for given in inputs
    ]
    return initial_shapes(model, *arrays)['params']


def _misfit(names, parts, wanted, last):
    if len(names) == 1 and last == 'kernel':  # say it in the layout of the file
        wanted = tuple(wanted[axis] for axis in FROM_FLAX[len(wanted)])
    shapes = ' + '.join(f'{name} {part.shape}' for name, part in zip(names, parts, strict=True))
    return f'{shapes} where {tuple(wanted)} is wanted'
