"""Parameters by path, and which of them are weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from loplax import sharding


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


def is_weight(leaf: jax.Array) -> bool:
    """Whether a parameter is a weight tensor, its outputs along the last axis.

    What has fewer than two axes is a bias or the scale of a normalisation.
    """
    return jnp.ndim(leaf) >= 2


def matrix(weight: jax.Array) -> jax.Array:
    """A weight tensor as ``[inputs, outputs]``, at least in float32."""
    return sharding.whole(at_least_float32(weight)).reshape(-1, weight.shape[-1])


def at_least_float32(leaf: jax.Array) -> jax.Array:
    """A copy in float32, or in the leaf's own precision where that is higher."""
    return jnp.array(leaf, jnp.promote_types(leaf.dtype, jnp.float32))
