"""Replacing the units that fall behind their layer: what ReDo and ReGraMa share."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import expected, wrapper
from loplax.units.groups import UnitGroup


class DormantStatistics(NamedTuple):
    """What `redo` and `regrama` know of the units of one layer.

    Attributes:
      magnitude: running mean of what each unit is measured by, float32 ``[size]``.
      discount: ``decay_rate`` to the power of the steps in that mean, ``[size]``.
    """

    magnitude: jax.Array
    discount: jax.Array


def below_layer_mean(
    inner: optax.GradientTransformation,
    units: Iterable[UnitGroup],
    measure: Callable,
    *,
    needs_features: bool,
    threshold,
    period,
    decay_rate,
    **settings,
) -> optax.GradientTransformationExtraArgs:
    """Replaces, every so many steps, the units that fall behind their layer.

    Args:
      inner: the inner optimiser.
      units: the ``UnitGroup`` records.
      measure: ``(group, step) -> magnitudes``, float32 ``[size]``.
      needs_features: whether ``measure`` reads the activations.
      threshold: fraction of the layer's mean up to which a unit is dormant.
      period: steps between two checks.
      decay_rate: decay of the running mean of the magnitudes.
      **settings: as in `wrapper.replacing`.

    Returns:
      The transformation; its state holds `DormantStatistics`.
    """
    checks.in_range("threshold", threshold)
    checks.in_range("decay_rate", decay_rate, 0, 1, below=True)
    is_due = expected.period(period)

    def new(group) -> DormantStatistics:
        zeros = jnp.zeros(group.size, jnp.float32)
        return DormantStatistics(zeros, zeros + 1)

    def observe(group, old: DormantStatistics, step: wrapper.Step):
        now = measure(group, step)
        # What is not finite counts for nothing: not in the mean, nor in its count.
        known = jnp.isfinite(now)
        magnitude = decay_rate * old.magnitude + (1 - decay_rate) * now
        magnitude = jnp.where(known, magnitude, old.magnitude)
        discount = jnp.where(known, decay_rate * old.discount, old.discount)
        mean = magnitude / (1 - discount)
        # s <= tau without the division, so that an all-silent layer is all dormant.
        level = jnp.mean(mean, where=known)
        marked = is_due(step.count) & known & (mean <= threshold * level)
        statistics = DormantStatistics(magnitude, discount)
        return statistics, wrapper.Selection(jnp.any(marked), marked)

    def forget(statistics: DormantStatistics, replaced) -> DormantStatistics:
        return DormantStatistics(
            jnp.where(replaced, 0, statistics.magnitude),
            jnp.where(replaced, 1, statistics.discount),
        )

    method = wrapper.Method(
        new, observe, every_marked, forget, needs_features=needs_features
    )
    return wrapper.replacing(method, inner, units, **settings)


def every_marked(marked: jax.Array, capacity: int):
    """Selects all marked units, each with a drawn column of its own."""
    return marked, jnp.arange(capacity, dtype=jnp.int32)
