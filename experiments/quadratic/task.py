"""Signs that are to minimise a quadratic form, and the latent weights behind them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Task(NamedTuple):
    r"""The loss :math:`(w - w^*)^\top H (w - w^*) / 2`.

    Attributes:
      hessian: :math:`H`, symmetric and positive, ``[weights, weights]``.
      optimum: :math:`w^*`, ``[weights]``.
    """

    hessian: jax.Array
    optimum: jax.Array


def draw(
    key: jax.Array, weights: int, curvature: tuple[float, float], reach: jax.Array
) -> Task:
    """Draws a task.

    Args:
      key: typed random key.
      weights: how many weights.
      curvature: between which bounds the eigenvalues of the Hessian are drawn.
      reach: the optimum is drawn from (-reach, reach), in each dimension.

    Returns:
      The task, with its principal axes in a random direction.
    """
    key_axes, key_values, key_optimum = jax.random.split(key, 3)
    # One by one where vmapped: see `loplax.metrics.matrices`.
    orthogonal = jax.custom_batching.sequential_vmap(
        lambda key: jax.random.orthogonal(key, weights)
    )
    axes = orthogonal(key_axes)
    low, high = curvature
    values = jax.random.uniform(key_values, (weights,), minval=low, maxval=high)
    optimum = reach * jax.random.uniform(key_optimum, (weights,), minval=-1)
    return Task(jnp.matmul(axes * values, axes.T, precision="highest"), optimum)


def loss(task: Task, weights: jax.Array) -> jax.Array:
    """The loss of some weights, ``[weights]``."""
    return (weights - task.optimum) @ gradient(task, weights) / 2


def gradient(task: Task, weights: jax.Array) -> jax.Array:
    """Its gradient, ``[weights]``."""
    return jnp.matmul(task.hessian, weights - task.optimum, precision="highest")


def increase(task: Task, signs: jax.Array) -> jax.Array:
    r"""By how much the loss would increase if each sign alone were switched.

    .. math:: \Delta L_i = 2 H_{ii} - 2 b_i [H (b - w^*)]_i

    With plain gradient descent of rate :math:`\eta` the last term is the speed at which
    the latent weight moves away from 0. So of a sign that never switches in T steps the
    latent weight tells :math:`\Delta L_i \approx 2 H_{ii} + 2 |w_i| / (\eta T)`.

    Args:
      task: the task.
      signs: the signs :math:`b`, ``[weights]``.

    Returns:
      The increases, ``[weights]``.
    """
    return 2 * jnp.diag(task.hessian) - 2 * signs * gradient(task, signs)
