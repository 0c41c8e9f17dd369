"""Regenerative regularisation: decay towards the initial weights instead of zero."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import expected, paths, placement


class L2InitState(NamedTuple):
    """State of `l2_init`.

    Attributes:
      initial: the parameters that ``init`` was given.
    """

    initial: optax.Params


def l2_init(weight_decay: float | jax.Array) -> optax.GradientTransformationExtraArgs:
    r"""Adds the gradient of the squared distance to the initial parameters.

    .. math::
      g \leftarrow g + 2 \lambda (\theta - \theta_0)

    Chain it before an optimiser: ``optax.chain(l2_init(1e-2), optax.sgd(0.01))``.
    Inside a wrapper that replaces units, the new weights of a unit become their own
    :math:`\theta_0`.

    Args:
      weight_decay: strength :math:`\lambda`, at least 0. May be traced.

    Returns:
      The transformation; ``update`` needs ``params``.

    Raises:
      ValueError: for a negative or non-finite strength, or without ``params``.

    Example:
      >>> import jax.numpy as jnp
      >>> from loplax import optim
      >>> tx = optim.l2_init(0.5)
      >>> state = tx.init({"w": jnp.array(1.0)})
      >>> tx.update({"w": jnp.array(0.0)}, state, {"w": jnp.array(3.0)})[0]["w"].item()
      2.0

    References:
      Kumar et al., `Maintaining plasticity in continual learning via regenerative
      regularization <https://arxiv.org/abs/2308.11958>`_, 2023, equation 1.
    """
    checks.in_range("weight_decay", weight_decay)

    def update(grads, state, params=None, **extra_args):
        del extra_args
        expected.required_params(params)
        placement.require_before_optimizer()
        wide = paths.at_least_float32

        def add(grad, param, initial):
            pull = 2 * weight_decay * (wide(param) - wide(initial))
            return (grad + pull).astype(grad.dtype)

        return jax.tree.map(add, grads, params, state.initial), state

    def init(params):
        expected.arrays(params)
        return L2InitState(jax.tree.map(jnp.copy, params))

    return optax.GradientTransformationExtraArgs(init, update)
