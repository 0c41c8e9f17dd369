"""Diagnostics of plasticity: pure functions of features, weights and parameters.

``features`` is always the matrix of activations on a probe batch, ``[examples, units]``
(leading axes are flattened). Several names are used for more than one quantity in the
literature; each docstring gives the formula used here. Features that are not all finite
give NaN, and -1 where the result is an integer.
"""

import jax
import jax.numpy as jnp


def _matrix(features: jax.Array) -> jax.Array:
    return features.reshape(-1, features.shape[-1]).astype(jnp.float32)


def _if_finite(features: jax.Array, fraction: jax.Array) -> jax.Array:
    return jnp.where(jnp.all(jnp.isfinite(features)), fraction, jnp.nan)


def dead_fraction(features: jax.Array) -> jax.Array:
    """Fraction of units whose output is 0 on the whole probe batch.

    Args:
      features: activations, ``[..., units]``.

    Returns:
      Scalar in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> float(dead_fraction(jnp.array([[0.0, 1.0], [0.0, 0.0]])))
      0.5
    """
    dead = jnp.all(_matrix(features) == 0, axis=0)
    return _if_finite(features, jnp.mean(dead))


def dormant_fraction(features: jax.Array, threshold: float = 0.1) -> jax.Array:
    """Fraction of units with mean|h_i| / mean_k mean|h_k| <= threshold.

    Sokar et al. 2023. If every unit is silent, all are dormant.

    Args:
      features: activations, ``[..., units]``.
      threshold: the paper's tau.

    Returns:
      Scalar in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> float(dormant_fraction(jnp.array([[0.01, 2.0, 2.0, 2.0]]), 0.1))
      0.25
    """
    magnitude = jnp.mean(jnp.abs(_matrix(features)), axis=0)
    dormant = magnitude <= threshold * jnp.mean(magnitude)
    return _if_finite(features, jnp.mean(dormant))


def saturated_fraction(features: jax.Array, threshold: float = 0.9) -> jax.Array:
    """Fraction of activations with |h| > threshold, for tanh units.

    Args:
      features: activations, ``[..., units]``.
      threshold: in (0, 1).

    Returns:
      Scalar in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> float(saturated_fraction(jnp.array([[0.95, -0.99], [0.0, 0.1]])))
      0.5
    """
    saturated = jnp.abs(_matrix(features)) > threshold
    return _if_finite(features, jnp.mean(saturated))


def effective_rank(features: jax.Array) -> jax.Array:
    """exp(entropy(p)) with p = sigma / sum(sigma), sigma the singular values.

    Roy & Vetterli 2007. 0 for an all-zero matrix.

    Args:
      features: activations, ``[..., units]``.

    Returns:
      Scalar between 0 and the number of units.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(effective_rank(jnp.eye(4))), 4)
      4.0
    """
    sigma = _singular_values(features)
    p = sigma / jnp.maximum(jnp.sum(sigma), 1)
    rank = jnp.exp(jnp.sum(jax.scipy.special.entr(p)))
    return jnp.where(sigma[0] == 0, 0.0, rank)


def approximate_rank(features: jax.Array, fraction: float = 0.99) -> jax.Array:
    """Smallest k whose k largest sigma^2 make up ``fraction`` of sum(sigma^2).

    Args:
      features: activations, ``[..., units]``.
      fraction: in (0, 1].

    Returns:
      int32 scalar; 0 for an all-zero matrix.

    Example:
      >>> import jax.numpy as jnp
      >>> int(approximate_rank(jnp.diag(jnp.array([10.0, 1.0, 0.1]))))
      1
    """
    return _count_to(_singular_values(features) ** 2, fraction)


def absolute_approximate_rank(features: jax.Array, fraction: float = 0.99) -> jax.Array:
    """Smallest k whose k largest sigma make up ``fraction`` of sum(sigma).

    "Stable rank" in the plots of Dohare et al. 2024, "srank" in Kumar et al. 2021.

    Args:
      features: activations, ``[..., units]``.
      fraction: in (0, 1].

    Returns:
      int32 scalar; 0 for an all-zero matrix.

    Example:
      >>> import jax.numpy as jnp
      >>> int(absolute_approximate_rank(jnp.diag(jnp.array([10.0, 1.0, 0.1]))))
      2
    """
    return _count_to(_singular_values(features), fraction)


def stable_rank(features: jax.Array) -> jax.Array:
    """||F||_F^2 / sigma_1^2, the stable rank of numerical analysis.

    Args:
      features: activations, ``[..., units]``.

    Returns:
      Scalar; 0 for an all-zero matrix.

    Example:
      >>> import jax.numpy as jnp
      >>> float(stable_rank(jnp.diag(jnp.array([2.0, 1.0]))))
      1.25
    """
    return jnp.sum(_singular_values(features) ** 2)


def weight_magnitude(params) -> jax.Array:
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
    leaves = jax.tree.leaves(params)
    return sum(jnp.sum(jnp.abs(x)) for x in leaves) / sum(x.size for x in leaves)


def _svd(matrix: jax.Array) -> jax.Array:
    return jnp.linalg.svd(matrix, compute_uv=False)


# On CPU, a batched decomposition waits for the threads that it divides its work among;
# when every device of the process waits so, none is left to work.
_svd_one_by_one = jax.custom_batching.sequential_vmap(_svd)


def _singular_values(features: jax.Array) -> jax.Array:
    """Singular values over the largest, in descending order.

    All 0 for an all-zero matrix, all NaN if some feature is not finite.
    """
    matrix = _matrix(features)
    sigma = jax.lax.platform_dependent(matrix, cpu=_svd_one_by_one, default=_svd)
    return sigma / jnp.where(sigma[0] == 0, 1, sigma[0])


def _count_to(values: jax.Array, fraction: float) -> jax.Array:
    total = jnp.cumsum(values)
    share = total / jnp.maximum(total[-1], 1)
    rank = jnp.minimum(jnp.sum(share < fraction) + 1, len(values))
    rank = jnp.where(values[0] == 0, 0, rank)
    return jnp.where(jnp.isnan(values[0]), -1, rank)
