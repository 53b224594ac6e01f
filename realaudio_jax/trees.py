"""Trees of parameters: the names of their arrays, and their shapes without the arrays."""

import functools
from collections.abc import Callable

import jax

from realaudio_jax.typing import Any, PyTree


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of a tree with their names, joined by '/', in the order of the tree."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(p, simple=True, separator='/'), leaf) for p, leaf in leaves]


def traced_once(shapes: Callable[[Any], PyTree]) -> Callable[[Any], PyTree]:
    """The same function of a Flax module, which traces equal networks once.

    Tracing is most of the time that reading a small network takes.

    Args:
        shapes: from a module, whose settings its `repr` gives in full, to its parameters as
            `jax.ShapeDtypeStruct`.

    Returns:
        The function; what it returns is a tree of the caller's own.
    """
    known = {}

    @functools.wraps(shapes)
    def remembered(model: Any) -> PyTree:
        # The last says of how many bits floats are where a network does not.
        key = type(model), repr(model), jax.config.jax_enable_x64
        if key not in known:
            known[key] = jax.tree.flatten(shapes(model))
        leaves, structure = known[key]
        return jax.tree.unflatten(structure, leaves)

    return remembered
