"""Elastic weight consolidation: important weights stay near where they were."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from loplax import checks
from loplax.optim import consolidation, per_example


def elastic_weight_consolidation(
    strength: float | jax.Array,
    *,
    decay: float | jax.Array | None = None,
    through: Callable | None = None,
) -> consolidation.Consolidating:
    r"""Adds the gradient of a quadratic penalty, weighed by the Fisher information.

    After tasks :math:`k` that ended at weights :math:`\theta_k` with the diagonals
    :math:`F_k` of the Fisher information, a step descends on the loss and

    .. math::
      \frac{\lambda}{2} \sum_k F_k (\theta - \theta_k)^2

    which is, up to a constant, one penalty :math:`\frac{\lambda}{2} F (\theta -
    \bar\theta)^2` with the sum :math:`F` of all :math:`F_k` and the mean
    :math:`\bar\theta` of all :math:`\theta_k` that they weigh. So all tasks take the
    memory of one. With a ``decay`` :math:`\gamma` it is the online form: the last
    :math:`\theta_k` alone, and at each boundary :math:`F \leftarrow \gamma F + F_k`
    (Schwarz et al. decay once more, :math:`\lambda \gamma F`).

    When a task is over, call ``consolidate``; chain it before an optimiser. For a part
    of the parameters use ``optax.masked``: norms, or those that are not binarised.
    Plain SGD of rate :math:`\alpha` diverges where :math:`\alpha \lambda F > 2`.

    Args:
      strength: :math:`\lambda`, at least 0. May be traced.
      decay: :math:`\gamma`, in [0, 1], may be traced; None for a penalty per task.
      through: what is held of a weight, :math:`b(\theta)` in place of :math:`\theta`:
        ``jnp.sign`` in binarised networks. The latent weights get the gradient
        :math:`\lambda F (b - b_k)`, as if :math:`b` were the identity. Default: the
        identity.

    Returns:
      The transformation; ``update`` needs ``params``. ``consolidate(state, params,
      importance)`` takes :math:`F_k`, of `fisher` say, and returns the state.

    Raises:
      ValueError: for values out of range, or without ``params``; in ``consolidate``,
        for trees that do not fit, and importances below 0 or not finite. Where these
        are traced, such a weight stays held as it was.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> ewc = optim.elastic_weight_consolidation(0.5)
      >>> tx = optax.chain(ewc, optax.sgd(1.0))
      >>> params = {"w": jnp.array([1.0, 1.0])}
      >>> state = tx.init(params)
      >>> state = ewc.consolidate(state, params, {"w": jnp.array([4.0, 0.0])})
      >>> moved, zero = {"w": jnp.array([3.0, 3.0])}, {"w": jnp.array([0.0, 0.0])}
      >>> tx.update(zero, state, moved)[0]["w"].tolist()
      [-4.0, -0.0]

    References:
      Kirkpatrick et al., `Overcoming catastrophic forgetting in neural networks
      <https://arxiv.org/abs/1612.00796>`_, PNAS 2017, equation 3; online: Schwarz et
      al., `Progress & compress <https://arxiv.org/abs/1805.06370>`_, ICML 2018.
    """
    online = decay is not None
    checks.in_range("decay", decay if online else 0, 0, 1)

    def accumulate(anchor, importance, now, new):
        if online:
            return now, decay * importance + new
        total = importance + new
        share = new / jnp.where(total > 0, total, 1)
        return (1 - share) * anchor + share * now, total

    return consolidation.quadratic(strength, through, accumulate)


def fisher(
    loss: Callable,
    params: Any,
    inputs: Any,
    targets: Any,
    *,
    weights: jax.typing.ArrayLike | None = None,
    chunk: int = 1,
) -> Any:
    r"""Diagonal of the Fisher information, or of the empirical one.

    .. math::
      F = \frac{1}{n} \sum_i \left( \nabla_\theta \, \ell(\theta; x_i, y_i) \right)^2

    With the examples' own labels it is the empirical one. The Fisher information itself
    takes labels that the network draws: ``jax.random.categorical(key, logits)``.

    Args:
      loss: ``(params, inputs, targets) -> loss`` of a batch, which gets one example at
        a time: the negative log-likelihood. Networks with batch norm use their running
        statistics there.
      params: the parameters.
      inputs: the examples, ``[examples, ...]`` each array.
      targets: what goes with them, likewise.
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
      >>> loss = lambda w, x, y: jnp.mean((w * x - y) ** 2) / 2
      >>> x, y = jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0])
      >>> optim.fisher(loss, jnp.array(1.0), x, y).item()  # (1 + 16) / 2
      8.5

    References:
      Kunstner et al., `Limitations of the empirical Fisher approximation
      <https://arxiv.org/abs/1905.12558>`_, 2019, on the difference.
    """
    value = lambda params, x, y: jnp.sum(loss(params, x, y))
    data = inputs, targets
    return per_example.mean(jax.grad(value), jnp.square, params, data, weights, chunk)
