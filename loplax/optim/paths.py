"""Parameters by path."""

from typing import Any, NamedTuple

import jax


class Paths(NamedTuple):
    """The leaves of a parameter tree by path, and the way back."""

    leaves: dict[str, jax.Array]
    treedef: Any

    def unflatten(self) -> Any:
        """The tree again."""
        return jax.tree.unflatten(self.treedef, list(self.leaves.values()))


def by_path(tree: Any) -> Paths:
    """Flattens a tree into a dict from ``a/b/c`` to leaf, in tree order."""
    pairs, treedef = jax.tree_util.tree_flatten_with_path(tree)
    name = jax.tree_util.keystr
    leaves = {name(path, simple=True, separator="/"): leaf for path, leaf in pairs}
    return Paths(leaves, treedef)
