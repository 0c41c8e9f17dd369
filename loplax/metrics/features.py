"""Diagnostics of hidden units: how many of them do not take part."""

import jax
import jax.numpy as jnp

from loplax.metrics import matrices


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
    dead = jnp.all(matrices.flat(features) == 0, axis=0)
    return _if_finite(features, jnp.mean(dead))


def dormant_fraction(features: jax.Array, threshold: float = 0.1) -> jax.Array:
    """Fraction of units with mean|h_i| / mean_k mean|h_k| <= threshold.

    If every unit is silent, all are dormant.

    Args:
      features: activations, ``[..., units]``.
      threshold: the paper's tau.

    Returns:
      Scalar in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> float(dormant_fraction(jnp.array([[0.01, 2.0, 2.0, 2.0]]), 0.1))
      0.25

    References:
      Sokar et al., `The dormant neuron phenomenon in deep reinforcement learning
      <https://arxiv.org/abs/2302.12902>`_, 2023.
    """
    magnitude = jnp.mean(jnp.abs(matrices.flat(features)), axis=0)
    dormant = magnitude <= threshold * jnp.mean(magnitude)
    return _if_finite(features, jnp.mean(dormant))


def rarely_active_fraction(features: jax.Array, threshold: float = 0.01) -> jax.Array:
    """Fraction of units whose output differs from 0 on fewer than 1% of the examples.

    mean(h_i != 0) < threshold, the mean taken over examples and, for convolutions, over
    space. Such units are called dormant in the class-incremental CIFAR-100 study.

    Args:
      features: activations, ``[..., units]``.
      threshold: fraction of the examples.

    Returns:
      Scalar in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> h = jnp.zeros((200, 2)).at[0, 0].set(1.0).at[:9, 1].set(1.0)
      >>> float(rarely_active_fraction(h))
      0.5

    References:
      Dohare et al., `Loss of plasticity in deep continual learning
      <https://doi.org/10.1038/s41586-024-07711-7>`_, 2024.
    """
    active = jnp.mean(matrices.flat(features) != 0, axis=0)
    return _if_finite(features, jnp.mean(active < threshold))


def saturated_fraction(features: jax.Array, threshold: float = 0.9) -> jax.Array:
    """Fraction of activations with ``|h| > threshold``, for tanh units.

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
    saturated = jnp.abs(matrices.flat(features)) > threshold
    return _if_finite(features, jnp.mean(saturated))
