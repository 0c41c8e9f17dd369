"""Parameters by path: one name for a leaf, whatever a framework wraps around it."""

from typing import Any, NamedTuple

import jax

BOX = jax.tree_util.GetAttrKey("value")
"""How boxes (``nnx.Param``, ``nn.Partitioned``) hold the one array inside them."""


class Paths(NamedTuple):
    """The leaves of a tree by path, and the way back.

    Attributes:
      leaves: the leaves by path, in tree order; they may be exchanged in place.
      treedef: the structure of the tree.
    """

    leaves: dict[str, Any]
    treedef: Any

    def unflatten(self) -> Any:
        """The tree again."""
        return jax.tree.unflatten(self.treedef, list(self.leaves.values()))


def name(path: tuple) -> str:
    """The name of a leaf: its keys joined by ``/``, without the key of a box.

    Dictionary keys, indices and attributes read alike, so a layer has one name in a
    dict, an ``nnx.State``, an nnx or Equinox module and in boxed parameters.

    Args:
      path: the key path, as ``jax.tree.map_with_path`` hands it out.

    Returns:
      The name. What ends in an attribute ``value`` that is not all of it is a box.

    Example:
      >>> import jax
      >>> from loplax.units import paths
      >>> keys = jax.tree_util
      >>> paths.name((keys.DictKey("a"), keys.SequenceKey(0), keys.GetAttrKey("value")))
      'a/0'
    """
    inside = path[:-1] if len(path) > 1 and path[-1] == BOX else path
    return jax.tree_util.keystr(inside, simple=True, separator="/")


def by_path(tree: Any) -> Paths:
    """Flattens a tree into a dict from ``a/b/c`` to leaf, in tree order.

    Args:
      tree: any pytree.

    Returns:
      Its leaves, and the way back.

    Raises:
      ValueError: if two leaves have the same path.

    Example:
      >>> from loplax.units import paths
      >>> found = paths.by_path({"dense": {"kernel": 1, "bias": [2]}})
      >>> found.leaves
      {'dense/bias/0': 2, 'dense/kernel': 1}
      >>> found.unflatten()
      {'dense': {'bias': [2], 'kernel': 1}}
    """
    pairs, treedef = jax.tree_util.tree_flatten_with_path(tree)
    leaves = {}
    for keys, leaf in pairs:
        path = name(keys)
        if path in leaves:
            raise ValueError(f"Two parameters have the path {path!r}; rename one.")
        leaves[path] = leaf
    return Paths(leaves, treedef)
