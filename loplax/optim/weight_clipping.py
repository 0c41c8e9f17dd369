"""Weight clipping: keep all weights near the range of their initial values."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import expected, paths, placement


class WeightClippingState(NamedTuple):
    """State of `weight_clipping`.

    Attributes:
      inner: state of the inner optimiser.
      bounds: the initial bound of each parameter, a scalar.
    """

    inner: optax.OptState
    bounds: optax.Params


def weight_clipping(
    inner: optax.GradientTransformation,
    bounds: Any = None,
    *,
    kappa: float | jax.Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that no weight leaves the range of its tensor.

    .. math::
      w \leftarrow \operatorname{clip}(w, -\kappa s_l, \kappa s_l)

    after each step of the inner optimiser, where :math:`s_l` is the bound of the
    uniform distribution from which the weights of tensor :math:`l` were drawn. The
    optimiser's state is left as it is. It must be the last link of a chain. To leave
    some tensors free, as the authors do with the last layer in reinforcement learning,
    give them to another optimiser by ``optax.partition``.

    Args:
      inner: the optimiser of all parameters.
      bounds: :math:`s_l`, a tree of numbers with the structure of the parameters or a
        prefix of it. Default: the largest initial magnitude in each weight tensor, and
        1 for what has fewer than two axes (biases), as in the authors' supervised code;
        in their PPO biases are bounded like the weights beside them. A weight tensor
        that starts at 0 needs a bound of its own.
      kappa: :math:`\kappa`, at least 0; in the paper 1 to 5. May be traced.

    Returns:
      The transformation; ``update`` needs ``params``.

    Raises:
      ValueError: for values out of range, or without ``params``.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> tx = optim.weight_clipping(optax.sgd(1.0), kappa=2.0)
      >>> params = {"w": jnp.array([[0.5, -0.25]])}
      >>> grads = {"w": jnp.array([[-3.0, 0.5]])}
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [[1.0, -0.75]]

    References:
      Elsayed et al., `Weight clipping for deep continual and reinforcement learning
      <https://arxiv.org/abs/2407.01704>`_, RLC 2024.
    """
    checks.in_range("kappa", kappa)
    for bound in jax.tree.leaves(bounds):
        checks.in_range("bounds", bound, scalar=False)
    inner = expected.optimizer(inner)

    def init(params):
        expected.arrays(params)
        first = jax.tree.map(_initial_bound, params)
        # Without leaves it is a placeholder of optax.tree.map_params.
        if bounds is not None and jax.tree.leaves(params):
            first = jax.tree.map(jnp.float32, jax.tree.broadcast(bounds, params))
        return WeightClippingState(inner.init(params), first)

    def update(grads, state, params=None, **extra_args):
        placement.require_last()
        expected.required_params(params)
        with placement.changing("weight_clipping"):
            updates, inner_state = inner.update(
                grads, state.inner, params, **extra_args
            )

        def clip(update, param, bound):
            param = paths.at_least_float32(param)
            new, limit = param + update, kappa * bound
            back = jnp.clip(new, -limit, limit) - param
            return jnp.where(jnp.abs(new) > limit, back, update).astype(update.dtype)

        updates = jax.tree.map(clip, updates, params, state.bounds)
        return updates, WeightClippingState(inner_state, state.bounds)

    return optax.GradientTransformationExtraArgs(init, update)


def _initial_bound(param: jax.Array) -> jax.Array:
    if not paths.is_weight(param):
        return jnp.float32(1)
    return jnp.max(jnp.abs(paths.at_least_float32(param)))
