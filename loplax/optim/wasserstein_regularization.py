"""Wasserstein regularisation: keep the distribution of the initial weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks, sharding
from loplax.optim import expected, paths, placement


class WassersteinRegularizationState(NamedTuple):
    """State of `wasserstein_regularization`.

    Attributes:
      initial: the elements of each parameter that ``init`` was given, in order.
    """

    initial: optax.Params


def wasserstein_regularization(
    strength: float | jax.Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the gradient of the distance from the initial distribution of weights.

    .. math::
      \lambda \sum_l \sum_i (\theta_{l,(i)} - \theta_{0,l,(i)})^2

    where :math:`\theta_{l,(i)}` is the i-th smallest element of parameter tensor
    :math:`l`, and :math:`\theta_0` are the parameters that ``init`` was given: the
    squared 2-Wasserstein distance of their distributions, times the number of weights.
    A weight may go anywhere if another one takes its place, unlike with `l2_init`. All
    weights are sorted at every step, which on a CPU costs more than the rest of it.

    Chain it before an optimiser: ``optax.chain(wasserstein_regularization(1e-3),
    optax.sgd(0.01))``. ``optax.masked`` restricts it to some of the parameters.

    Args:
      strength: :math:`\lambda`, at least 0. May be traced.

    Returns:
      The transformation; ``update`` needs ``params``.

    Raises:
      ValueError: for a negative or non-finite strength, or without ``params``.

    Example:
      >>> import jax.numpy as jnp
      >>> from loplax import optim
      >>> tx = optim.wasserstein_regularization(0.5)
      >>> state = tx.init({"w": jnp.array([1.0, 5.0])})
      >>> grads, params = {"w": jnp.zeros(2)}, {"w": jnp.array([5.0, 3.0])}
      >>> tx.update(grads, state, params)[0]["w"].tolist()
      [0.0, 2.0]

    References:
      Lewandowski et al., `Directions of curvature as an explanation for loss of
      plasticity <https://arxiv.org/abs/2312.00246>`_, 2024.
    """
    checks.in_range("strength", strength)

    def init(params):
        expected.arrays(params)
        return WassersteinRegularizationState(jax.tree.map(_in_order, params))

    def update(grads, state, params=None, **extra_args):
        del extra_args
        expected.required_params(params)
        placement.require_before_optimizer()

        def add(grad, param, initial):
            flat = sharding.whole(param).ravel()
            target = jnp.zeros_like(flat).at[jnp.argsort(flat)].set(initial.ravel())
            wide = paths.at_least_float32
            pull = 2 * strength * (wide(param) - wide(target.reshape(param.shape)))
            return (grad + pull).astype(grad.dtype)

        return jax.tree.map(add, grads, params, state.initial), state

    return optax.GradientTransformationExtraArgs(init, update)


def _in_order(param: jax.Array) -> jax.Array:
    # With one axis more than the parameter: wrappers that reset the state of single
    # weights know by its shape that this is none.
    ordered = jnp.sort(sharding.whole(param), axis=None)
    return ordered.reshape((1,) * jnp.ndim(param) + (-1,))
