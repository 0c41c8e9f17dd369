"""Parameters by path, and which of them are weights."""

import jax
import jax.numpy as jnp

from loplax import sharding
from loplax.units.paths import by_path as by_path


def is_weight(leaf: jax.Array) -> bool:
    """Whether a parameter is a weight tensor, its outputs along the last axis.

    What has fewer than two axes is a bias or the scale of a normalisation, and what has
    no elements is nothing.
    """
    return jnp.ndim(leaf) >= 2 and jnp.size(leaf) > 0


def matrix(weight: jax.Array) -> jax.Array:
    """A weight tensor as ``[inputs, outputs]``, at least in float32."""
    return sharding.whole(at_least_float32(weight)).reshape(-1, weight.shape[-1])


def at_least_float32(leaf: jax.Array) -> jax.Array:
    """A copy in float32, or in the leaf's own precision where that is higher."""
    return jnp.array(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32))
