"""Shrink and perturb: shrink all weights and add noise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import expected, keys, paths, placement


class ShrinkAndPerturbState(NamedTuple):
    """State of `shrink_and_perturb`.

    Attributes:
      inner: state of the inner optimiser.
      count: steps taken, int32 scalar.
      key: typed random key; step ``count`` draws from ``fold_in(key, count)``.
    """

    inner: optax.OptState
    count: jax.Array
    key: jax.Array


def shrink_and_perturb(
    inner: optax.GradientTransformation,
    *,
    shrink: float | jax.Array = 1.0,
    perturb_scale: float | jax.Array = 0.0,
    period: int | jax.Array = 1,
    key: jax.Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that parameters shrink and are perturbed.

    With the inner update :math:`\Delta` and standard normal :math:`\varepsilon`, every
    ``period`` steps

    .. math::
      \theta \leftarrow \lambda \theta + \Delta + \sigma \varepsilon

    and :math:`\theta \leftarrow \theta + \Delta` at the others. Around SGD of
    step size :math:`\alpha`, :math:`\lambda = 1 - \alpha w` every step is L2
    regularisation of strength :math:`w` in the gradient, the form used by Dohare et al.

    Args:
      inner: the optimiser of all parameters.
      shrink: :math:`\lambda`, in [0, 1]. May be traced.
      perturb_scale: :math:`\sigma`, standard deviation of the noise. May be traced.
      period: steps between two perturbations. May be traced.
      key: typed random key.

    Returns:
      The transformation; ``update`` needs ``params``.

    Raises:
      ValueError: for values out of range, or without ``params``.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> key = jax.random.key(0)
      >>> tx = optim.shrink_and_perturb(optax.sgd(0.1), shrink=0.5, key=key)
      >>> params = {"w": jnp.array(4.0)}
      >>> updates, _ = tx.update({"w": jnp.array(10.0)}, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].item()
      1.0

    References:
      Ash & Adams, `On warm-starting neural network training
      <https://arxiv.org/abs/1910.08475>`_, 2020; per step as in Dohare et al., Nature
      632, 2024, Methods.
    """
    checks.in_range("shrink", shrink, 0, 1)
    checks.in_range("perturb_scale", perturb_scale)
    is_due = expected.period(period)
    checks.typed_key(key)
    inner = expected.optimizer(inner)

    def init(params):
        count = jnp.zeros((), jnp.int32)
        return ShrinkAndPerturbState(inner.init(params), count, keys.copy(key))

    def update(grads, state, params=None, **extra_args):
        expected.required_params(params)
        placement.require_last()
        with placement.changing("shrink_and_perturb"):
            updates, inner_state = inner.update(
                grads, state.inner, params, **extra_args
            )
        count = optax.safe_increment(state.count)
        due = is_due(count)
        draw = lambda key, like: optax.tree.random_like(key, like, jax.random.normal)
        noise = keys.when(due, draw, state.key, count, "noise", updates)

        def move(update, param, noise):
            param = paths.at_least_float32(param)
            change = (shrink - 1) * param + perturb_scale * noise
            return (update + jnp.where(due, change, 0)).astype(update.dtype)

        updates = jax.tree.map(move, updates, params, noise)
        return updates, ShrinkAndPerturbState(inner_state, count, state.key)

    return optax.GradientTransformationExtraArgs(init, update)
