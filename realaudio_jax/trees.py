"""Names of the arrays of a tree, as files of weights, checkpoints and messages have them."""

import jax

from realaudio_jax.typing import Any, PyTree


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of a tree with their names, joined by '/', in the order of the tree."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(p, simple=True, separator='/'), leaf) for p, leaf in leaves]
