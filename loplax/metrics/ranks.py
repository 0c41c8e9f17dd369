"""Ranks of a matrix of features: how many directions the units span."""

import jax
import jax.numpy as jnp

from loplax.metrics import matrices


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
    sigma = _relative(features)
    p = sigma / jnp.maximum(jnp.sum(sigma), 1)
    rank = jnp.exp(jnp.sum(jax.scipy.special.entr(p)))
    return jnp.where(sigma[0] == 0, 0.0, rank)


def approximate_rank(features: jax.Array, fraction: float = 0.99) -> jax.Array:
    """Smallest k whose k largest sigma^2 make up ``fraction`` of sum(sigma^2).

    Args:
      features: activations, ``[..., units]``.
      fraction: in (0, 1].

    Returns:
      int32 scalar; 0 for an all-zero matrix, -1 if it is not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> int(approximate_rank(jnp.diag(jnp.array([10.0, 1.0, 0.1]))))
      1
    """
    return _count_to(_relative(features) ** 2, fraction)


def absolute_approximate_rank(features: jax.Array, fraction: float = 0.99) -> jax.Array:
    """Smallest k whose k largest sigma make up ``fraction`` of sum(sigma).

    "Stable rank" in the plots of Dohare et al. 2024, "srank" in Kumar et al. 2021.

    Args:
      features: activations, ``[..., units]``.
      fraction: in (0, 1].

    Returns:
      int32 scalar; 0 for an all-zero matrix, -1 if it is not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> int(absolute_approximate_rank(jnp.diag(jnp.array([10.0, 1.0, 0.1]))))
      2
    """
    return _count_to(_relative(features), fraction)


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
    return jnp.sum(_relative(features) ** 2)


def _relative(features: jax.Array) -> jax.Array:
    """Singular values over the largest, in descending order.

    All 0 for an all-zero matrix, all NaN if some feature is not finite.
    """
    sigma = matrices.singular_values(matrices.flat(features))
    return sigma / jnp.where(sigma[0] == 0, 1, sigma[0])


def _count_to(values: jax.Array, fraction: float) -> jax.Array:
    total = jnp.cumsum(values)
    share = total / jnp.maximum(total[-1], 1)
    rank = jnp.minimum(jnp.sum(share < fraction, dtype=jnp.int32) + 1, len(values))
    rank = jnp.where(values[0] == 0, 0, rank)
    return jnp.where(jnp.isnan(values[0]), -1, rank)
