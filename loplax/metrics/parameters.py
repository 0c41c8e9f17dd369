"""Diagnostics of parameters: how large they are, how far they have moved."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from loplax.metrics import matrices


def weight_magnitude(params: Any) -> jax.Array:
    """Mean absolute value of all parameters, biases included.

    Args:
      params: a tree of arrays.

    Returns:
      Scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> float(weight_magnitude({"w": jnp.array([-1.0, 2.0]), "b": jnp.array([0.0])}))
      1.0
    """
    leaves = [matrices.at_least_float32(x) for x in jax.tree.leaves(params)]
    total: Any = sum(jnp.sum(jnp.abs(x)) for x in leaves)
    return total / sum(x.size for x in leaves)


def distance(params: Any, other: Any) -> jax.Array:
    """||w - w_0||, the Euclidean distance between two sets of parameters.

    Args:
      params: a tree of arrays.
      other: a tree alike, such as the initial parameters.

    Returns:
      Scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> float(distance({"w": jnp.zeros(2)}, {"w": jnp.array([3.0, -4.0])}))
      5.0
    """
    return optax.tree.norm(_difference(params, other))


def weight_change(before: Any, after: Any) -> jax.Array:
    """sum|w_after - w_before|, over all parameters.

    Args:
      before: a tree of arrays, such as the parameters when a task began.
      after: a tree alike.

    Returns:
      Scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> float(weight_change({"w": jnp.zeros(2)}, {"w": jnp.array([3.0, -4.0])}))
      7.0
    """
    return optax.tree.norm(_difference(after, before), ord=1)


def _difference(params, other):
    """The difference: parameters of half precision would round it away."""
    wide = lambda tree: jax.tree.map(matrices.at_least_float32, tree)
    return optax.tree.sub(wide(params), wide(other))
