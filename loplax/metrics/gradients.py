"""Diagnostics of a gradient: how large it is, how much of the network it reaches."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from loplax.metrics import matrices


def gradient_norm(grads: Any) -> jax.Array:
    """||g||, the Euclidean norm over all parameters.

    Args:
      grads: a tree of arrays.

    Returns:
      Scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> float(gradient_norm({"w": jnp.array([3.0, 0.0]), "b": jnp.array([-4.0])}))
      5.0
    """
    return optax.tree.norm(jax.tree.map(matrices.at_least_float32, grads))


def gradient_sparsity(grads: Any) -> jax.Array:
    """1 - ||g||_0 / d, the fraction of the d entries that are exactly 0.

    Args:
      grads: a tree of arrays.

    Returns:
      Scalar in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> float(gradient_sparsity({"w": jnp.array([3.0, 0.0]), "b": jnp.zeros(2)}))
      0.75

    References:
      Elsayed & Mahmood, `Addressing loss of plasticity and catastrophic forgetting in
      continual learning <https://arxiv.org/abs/2404.00781>`_, 2024: their l0 norm of
      the gradient is 1 minus this value.
    """
    zeros = optax.tree.sum(jax.tree.map(lambda g: jnp.sum(g == 0), grads))
    finite = jax.tree.map(lambda g: jnp.all(jnp.isfinite(g)), grads)
    finite = jnp.all(jnp.array(jax.tree.leaves(finite)))
    return jnp.where(finite, zeros / optax.tree.size(grads), jnp.nan)
