"""Self-normalized resets: replace units that are silent for longer than usual."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import dormant, expected, initializers, wrapper
from loplax.units.groups import UnitGroup


class FiringStatistics(NamedTuple):
    """What `self_normalized_resets` knows of the units of one layer.

    Attributes:
      age: steps since the unit last fired or was replaced, int32 ``[size]``.
      threshold: age at which the unit is replaced, float32 ``[size]``.
      gaps: gaps that ended since the thresholds were last set, float32 ``[size]``.
      duration: the steps in these gaps, float32 ``[size]``.
    """

    age: jax.Array
    threshold: jax.Array
    gaps: jax.Array
    duration: jax.Array


def self_normalized_resets(
    inner: optax.GradientTransformation,
    units: Iterable[UnitGroup],
    *,
    rejection_threshold: float | jax.Array = 0.05,
    initial_threshold: float | jax.Array = 16,
    period: int | jax.Array = 1000,
    initializer: initializers.Initializers = None,
    reset_inner: bool = True,
    key: jax.Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that units which stopped firing are re-initialised.

    A ReLU unit fires at a step if any activation of the batch is positive; its age
    :math:`a_i` counts the steps since then, 0 at a step at which it fires. With the
    time :math:`A_i` between two firings, it is replaced once its silence is unlikely,
    :math:`P(A_i \ge a_i) \le \eta`. Taking :math:`A_i` as memoryless with the unit's
    own mean gap :math:`\mu_i`, that is

    .. math::
      e^{-a_i / \mu_i} \le \eta
      \iff a_i \ge \tau_i = \lceil \mu_i \log(1 / \eta) \rceil

    Every ``period`` steps :math:`\mu_i` is the mean of the gaps that ended since the
    last time, and :math:`\tau_i` is set. A replacement ends a gap too, at
    :math:`\tau_i`, so :math:`\mu_i` cannot show that :math:`\tau_i` is too small;
    therefore :math:`\tau_i` is doubled instead where it is at most
    :math:`\mu_i \log(1 / \eta)`. A unit none of whose gaps ended keeps its
    :math:`\tau_i`. It must be the last link of a chain.

    Args:
      inner: the optimiser of all parameters; any optax transformation.
      units: the ``UnitGroup`` records of the layers to maintain.
      rejection_threshold: :math:`\eta`, in [0, 1]: how unlikely a silence must be. May
        be traced.
      initial_threshold: :math:`\tau_i` of the first ``period`` steps, at least 1. The
        authors' 16 steps suit batches in which every unit that lives fires; an online
        learner with batches of one example needs more. May be traced.
      period: steps between two settings of the thresholds; 240 to 10,000 in the
        authors' experiments, there at random times with this mean. May be traced.
      initializer: as in `continual_backprop`.
      reset_inner: whether the inner state of replaced weights is reset.
      key: typed random key.

    Returns:
      A transformation whose ``update(grads, state, params, *, features)`` takes the
      activations ``[..., size]`` per group name.

    Raises:
      ValueError: as `continual_backprop`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from loplax import optim, units
      >>> apply = lambda params, x: jax.nn.relu(x @ params["w"]) @ params["v"]
      >>> w = jnp.ones((3, 4)).at[:, 1].set(-1.0)
      >>> params, x = {"w": w, "v": jnp.ones((4, 1))}, jnp.ones((16, 3))
      >>> tx = optim.self_normalized_resets(
      ...     optax.sgd(0.0), units.find(apply, params, x), initial_threshold=2,
      ...     key=jax.random.key(0))
      >>> _, features = units.tap(apply)(params, x)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...   _, state = tx.update(params, state, params, features=features)
      >>> state.replaced["w"].tolist()
      [False, True, False, False]

    References:
      Farias & Jozefiak, `Self-normalized resets for plasticity in continual learning
      <https://arxiv.org/abs/2410.20098>`_, 2025, Algorithm 1; thresholds as in the
      authors' code for transformers, which keeps the mean gap. Their code for smaller
      networks takes the percentile from a histogram of the gaps.
    """
    checks.in_range("rejection_threshold", rejection_threshold, 0, 1)
    checks.in_range("initial_threshold", initial_threshold, 1)
    is_due = expected.period(period)

    def new(group) -> FiringStatistics:
        full = lambda value: jnp.full(group.size, value, jnp.float32)
        age = jnp.zeros(group.size, jnp.int32)
        return FiringStatistics(age, full(initial_threshold), full(0), full(0))

    def observe(group, old: FiringStatistics, step: wrapper.Step):
        silent: jax.Array | bool = True
        for name in group.features:
            resting = step.features[name] <= 0  # which NaN is not
            silent &= jnp.all(resting.reshape(-1, group.size), axis=0)
        gap = old.age + 1
        marked = silent & (gap >= old.threshold)
        ended = ~silent | marked
        gaps = old.gaps + ended
        duration = old.duration + jnp.where(ended, gap, 0)
        unlikely = -jnp.log(rejection_threshold) * duration / jnp.maximum(gaps, 1)
        renewed = jnp.where(
            old.threshold <= unlikely, 2 * old.threshold, jnp.ceil(unlikely)
        )
        due = is_due(step.count)
        statistics = FiringStatistics(
            age=jnp.where(ended, 0, gap),
            threshold=jnp.where(due & (gaps > 0), renewed, old.threshold),
            gaps=jnp.where(due, 0, gaps),
            duration=jnp.where(due, 0, duration),
        )
        return statistics, wrapper.Selection(jnp.any(marked), marked)

    # A replacement has ended the unit's gap: nothing else of it starts again.
    keep = lambda statistics, replaced: statistics
    return wrapper.replacing(
        wrapper.Method(new, observe, dormant.every_marked, keep),
        inner,
        units,
        initializer=initializer,
        reset_inner=reset_inner,
        key=key,
    )
