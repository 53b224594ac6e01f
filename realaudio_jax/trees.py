"""Trees of parameters: the names of their arrays, and their shapes without the arrays."""

import functools
from collections.abc import Hashable

import jax
import numpy as np

from realaudio_jax.random import random_key
from realaudio_jax.typing import Any, PyTree

_INITIAL: dict[Hashable, tuple[list, Any]] = {}  # leaves and structure, by all that decides them


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of a tree with their names, joined by '/', in the order of the tree."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(p, simple=True, separator='/'), leaf) for p, leaf in leaves]


def initial_shapes(model: Any, *inputs: PyTree, **settings: Hashable) -> PyTree:
    """Shapes of what a Flax module's `init` gives; nothing is computed.

    Equal modules are traced once in a process: tracing is most of the time that reading a small
    network takes.

    Args:
        model: the module; its `repr` gives its settings in full.
        inputs: arrays that it is called with, or their shapes.
        settings: its further arguments.

    Returns:
        A tree of `jax.ShapeDtypeStruct`, the caller's own.
    """
    arrays, called_with = jax.tree.flatten(inputs)
    shapes = tuple((tuple(x.shape), np.dtype(x.dtype)) for x in arrays)
    # The last says of how many bits floats are where a network does not.
    given = shapes, called_with, *settings.items(), jax.config.jax_enable_x64
    key = type(model), repr(model), *given
    if key not in _INITIAL:
        init = functools.partial(model.init, **settings)
        _INITIAL[key] = jax.tree.flatten(jax.eval_shape(init, random_key(0), *inputs))
    leaves, structure = _INITIAL[key]
    return jax.tree.unflatten(structure, leaves)
