"""Memory-aware synapses: weights stay that the outputs depend on."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from loplax.optim import consolidation, per_example


def memory_aware_synapses(
    strength: float | jax.Array, *, through: Callable | None = None
) -> consolidation.Consolidating:
    r"""Adds the gradient of a quadratic penalty, weighed by the outputs' sensitivity.

    A step descends on the loss and

    .. math::
      \frac{\lambda}{2} \, \Omega \, (\theta - \theta^*)^2

    with the weights :math:`\theta^*` at the end of the last task and the sum
    :math:`\Omega` of the importances of all tasks. The paper writes :math:`\lambda`
    without the half: here it is twice as large.

    When a task is over, call ``consolidate``; chain it before an optimiser. For a part
    of the parameters use ``optax.masked``.

    Args:
      strength: :math:`\lambda`, at least 0. May be traced.
      through: what is held of a weight, as in `elastic_weight_consolidation`.

    Returns:
      The transformation; ``update`` needs ``params``. ``consolidate(state, params,
      importance)`` takes what `sensitivity` gives, and returns the state.

    Raises:
      ValueError: for values out of range, or without ``params``; in ``consolidate``,
        for trees that do not fit, and importances below 0 or not finite, as in
        `elastic_weight_consolidation`.

    Example:
      >>> import jax.numpy as jnp
      >>> from loplax import optim
      >>> tx = optim.memory_aware_synapses(0.5)
      >>> state = tx.init(jnp.array(1.0))
      >>> state = tx.consolidate(state, jnp.array(2.0), jnp.array(3.0))
      >>> tx.update(jnp.array(0.0), state, jnp.array(4.0))[0].item()
      3.0

    References:
      Aljundi et al., `Memory aware synapses: learning what (not) to forget
      <https://arxiv.org/abs/1711.09601>`_, ECCV 2018.
    """
    add = lambda anchor, importance, now, new: (now, importance + new)
    return consolidation.quadratic(strength, through, add)


def sensitivity(
    apply: Callable,
    params: Any,
    inputs: Any,
    *,
    weights: jax.typing.ArrayLike | None = None,
    chunk: int = 1,
) -> Any:
    r"""How much the squared norm of the outputs depends on each weight.

    .. math::
      \Omega = \frac{1}{n} \sum_i
      \left| \nabla_\theta \, \| f(\theta; x_i) \|_2^2 \right|

    No labels are needed.

    Args:
      apply: ``(params, inputs) -> outputs`` of a batch, which gets one example at a
        time.
      params: the parameters.
      inputs: the examples, ``[examples, ...]`` each array.
      weights: how much each counts, ``[examples]``, at least 0. Default: all the same.
      chunk: examples at a time. On a CPU 1 is quickest, as no gradient is stored there.

    Returns:
      A tree like ``params``, at least float32; 0 if nothing has a weight, NaN if
      traced weights are not at least 0.

    Raises:
      ValueError: for a chunk below 1, no examples, or weights that are not at least 0
        and one for each example.

    Example:
      >>> import jax.numpy as jnp
      >>> from loplax import optim
      >>> apply = lambda w, x: w * x
      >>> optim.sensitivity(apply, jnp.array(-1.0), jnp.array([1.0, 2.0])).item()
      5.0

    References:
      Aljundi et al., `Memory aware synapses: learning what (not) to forget
      <https://arxiv.org/abs/1711.09601>`_, ECCV 2018, section 4.1.
    """
    square = lambda params, x: jnp.sum(jnp.square(apply(params, x)))
    slope = jax.grad(square)
    return per_example.mean(slope, jnp.abs, params, (inputs,), weights, chunk)
