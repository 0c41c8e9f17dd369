"""An optimiser that can be told from what stands around it, to begin anew alone."""

from typing import NamedTuple

import optax

from loplax.optim import expected


class RestartableState(NamedTuple):
    """State of `restartable`.

    Attributes:
      inner: state of the inner optimiser.
    """

    inner: optax.OptState


def restartable(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Marks the part of a transformation's state that begins anew with every session.

    Utilities and ages of units, means of weights and the keys of what is drawn belong
    to the run; moments and schedules of the optimiser inside may belong to a session.
    See `loplax.supervised.tasks.reset_optimizer`.

    Args:
      inner: the optimiser.

    Returns:
      The same optimiser, whose state is a `RestartableState`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> type(optim.restartable(optax.sgd(0.1)).init(jnp.ones(2))).__name__
      'RestartableState'
    """
    inner = expected.optimizer(inner)

    def update(grads, state, params=None, **extra_args):
        updates, new = inner.update(grads, state.inner, params, **extra_args)
        return updates, RestartableState(new)

    init = lambda params: RestartableState(inner.init(params))
    return optax.GradientTransformationExtraArgs(init, update)
