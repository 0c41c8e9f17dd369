"""Hare and tortoise: return to a slow average of the weights from time to time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import expected, paths, placement, replacement
from loplax.optim.consolidation import ConsolidationState
from loplax.optim.synaptic_intelligence import SynapticIntelligenceState


class HareTortoiseState(NamedTuple):
    """State of `hare_tortoise`.

    Attributes:
      inner: state of the inner optimiser.
      tortoise: running mean of the parameters, at least float32; the network that the
        paper evaluates.
      count: steps taken, int32 scalar.
    """

    inner: optax.OptState
    tortoise: optax.Params
    count: jax.Array


def hare_tortoise(
    inner: optax.GradientTransformation,
    *,
    momentum: float | jax.Array = 0.999,
    period: int | jax.Array,
    reset_inner: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that it returns to the mean of its own path.

    The parameters :math:`\theta` are the hare. After each step of the inner optimiser

    .. math::
      \bar\theta \leftarrow \mu \bar\theta + (1 - \mu) \theta

    follows the tortoise, and every ``period`` steps :math:`\theta \leftarrow
    \bar\theta`. A parameter that is not finite leaves its tortoise alone. It must be
    the last link of a chain. Evaluate the tortoise, ``optax.tree.get(state,
    "tortoise")``, as the paper does.

    Args:
      inner: the optimiser of all parameters.
      momentum: :math:`\mu`, in [0, 1]. May be traced.
      period: steps between two returns. May be traced.
      reset_inner: whether the inner optimiser starts again at every return, with all
        that it holds: step counts, schedules, keys, the anchor of `l2_init`. The
        authors' supervised code lets it run on.

    Returns:
      The transformation; ``update`` needs ``params``.

    Raises:
      ValueError: for values out of range, or without ``params``; in ``init``, if what
        an inner transformation consolidates would be lost at a return.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> tx = optim.hare_tortoise(optax.sgd(1.0), momentum=0.5, period=2)
      >>> params = {"w": jnp.array(0.0)}
      >>> state = tx.init(params)
      >>> for _ in range(2):  # the hare runs to 4 and 8, the tortoise to 2 and 5
      ...   updates, state = tx.update({"w": jnp.array(-4.0)}, state, params)
      ...   params = optax.apply_updates(params, updates)
      >>> params["w"].item()
      5.0

    References:
      Lee et al., `Slow and steady wins the race: maintaining plasticity with hare and
      tortoise networks <https://arxiv.org/abs/2406.02596>`_, ICML 2024.
    """
    checks.in_range("momentum", momentum, 0, 1)
    is_due = expected.period(period)
    inner = expected.optimizer(inner)

    def init(params):
        first = inner.init(params)
        tortoise = jax.tree.map(paths.at_least_float32, params)
        if reset_inner:
            _require_nothing_consolidated(first)
        return HareTortoiseState(first, tortoise, jnp.zeros((), jnp.int32))

    def update(grads, state, params=None, **extra_args):
        expected.required_params(params)
        placement.require_last(params)
        with placement.changing("hare_tortoise"):
            updates, inner_state = inner.update(
                grads, state.inner, params, **extra_args
            )
        hare = optax.apply_updates(params, updates)

        def follow(tortoise, hare):
            hare = paths.at_least_float32(hare)
            mean = momentum * tortoise + (1 - momentum) * hare
            return jnp.where(jnp.isfinite(hare), mean, tortoise).astype(tortoise.dtype)

        tortoise = jax.tree.map(follow, state.tortoise, hare)
        count = optax.safe_increment(state.count)
        due = is_due(count)

        def back(update, param, tortoise):
            return jnp.where(due, replacement.difference(tortoise, param), update)

        updates = jax.tree.map(back, updates, params, tortoise)
        if reset_inner:
            fresh = inner.init(optax.apply_updates(params, updates))
            inner_state = optax.tree.where(due, fresh, inner_state)
        return updates, HareTortoiseState(inner_state, tortoise, count)

    return optax.GradientTransformationExtraArgs(init, update)


def _require_nothing_consolidated(state: optax.OptState) -> None:
    memories = (ConsolidationState, SynapticIntelligenceState)
    is_memory = lambda x: isinstance(x, memories)
    for part in jax.tree.leaves(state, is_leaf=is_memory):
        if is_memory(part):
            name = type(part).__name__
            raise ValueError(
                f"hare_tortoise would reset the {name} inside at every return. Put it "
                "outside, chain(penalty, hare_tortoise(...)), or say reset_inner=False."
            )
