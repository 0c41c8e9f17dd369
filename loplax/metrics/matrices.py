"""Matrices of features, and decompositions that are safe in every sweep."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
    """The array in float32, or in its own precision where that is higher.

    In half precision sums and squares overflow, and small differences are lost.
    """
    return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))


def flat(features: jax.Array) -> jax.Array:
    """Activations ``[..., units]`` as a matrix ``[examples, units]``, as above."""
    return at_least_float32(features).reshape(-1, features.shape[-1])


def _one_by_one(decompose: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """The same decomposition, of one matrix after the other where vmapped on CPU.

    There, a batched decomposition waits for the threads that it divides its work among;
    when every device of the process waits so, none is left to work.
    """
    on_cpu = jax.custom_batching.sequential_vmap(decompose)
    return lambda matrix: jax.lax.platform_dependent(
        matrix, cpu=on_cpu, default=decompose
    )


# Singular values of a matrix, in descending order.
singular_values = _one_by_one(lambda matrix: jnp.linalg.svd(matrix, compute_uv=False))

# Eigenvalues and eigenvectors (columns) of a symmetric matrix, in ascending order.
eigh = _one_by_one(lambda matrix: tuple(jnp.linalg.eigh(matrix)))
