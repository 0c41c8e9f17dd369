r"""Utilities: how much a hidden unit contributes, measured at one step.

With activations :math:`h`, outgoing weights :math:`W_\text{out}`, incoming weights
:math:`W_\text{in}` and bias-corrected mean activation :math:`f` of a unit:

======================== ==========================================================
name                     instantaneous utility :math:`y`
======================== ==========================================================
contribution             ``mean(|W_out| mean|h|)``
zero_contribution        ``mean(|W_out| mean|h - f|)``
adaptable_contribution   ``mean(|W_out| mean|h - f|) / mean|W_in|``
weight                   ``mean|W_out|``
adaptation               ``1 / mean|W_in|``
feature_by_input         ``mean|h - f| / mean|W_in|``
random                   uniform noise on [0, 1)
======================== ==========================================================

Means of activations run over the batch (and the space, in front of a convolution),
means of weights over all weights of the unit. The mean of a product runs over the
outgoing weights, each with the activation that *it* multiplies: behind a flattened
image, or under a kernel as large as the image, the activation at its own position;
where several layers read the unit, perhaps after a norm, what that layer reads.

Weights are the parameters. Those of a binarised layer are the latent ones, whose size
says how sure their signs are, so that units with consolidated weights are kept. With
the signs themselves, all of size 1, the contribution would be mean|h|, which is 1 for
every unit whose activation is a sign.

Source: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632,
768-774 (2024), Methods, and the authors' code for the variants.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

# Whether a utility reads |W_out|, which activation (|h| or |h - f|), and 1 / |W_in|.
TERMS = {
    "contribution": (True, "activation", False),
    "zero_contribution": (True, "deviation", False),
    "adaptable_contribution": (True, "deviation", True),
    "weight": (True, None, False),
    "adaptation": (False, None, True),
    "feature_by_input": (False, "deviation", True),
    "random": (False, None, False),
}


def reads_outputs(name: str) -> bool:
    """Whether a utility is finite only if all that the outgoing weights read is."""
    outgoing, activation, _ = TERMS[name]
    return outgoing and activation is not None


def mean_magnitude(axes, size: int, weights: Mapping[str, jax.Array]) -> jax.Array:
    """Mean absolute weight of each unit over all the given parameters.

    Args:
      axes: the ``WeightAxis`` records of the incoming or the outgoing weights.
      size: number of units.
      weights: the parameters by path.

    Returns:
      The means, float32 ``[size]``.
    """
    total: Any = 0.0
    count = 0
    for axis in axes:
        weight = weights[axis.path]
        total += axis.total(jnp.abs(weight.astype(jnp.float32)), size)
        count += axis.count(weight.shape, size)
    return total / count


def mean_product(
    group, weights: Mapping[str, jax.Array], magnitudes: Mapping[str, jax.Array]
) -> jax.Array:
    """Mean over each unit's outgoing weights of ``|weight|`` times ``|input|``.

    Args:
      group: the ``UnitGroup``.
      weights: the parameters by path.
      magnitudes: mean absolute activations by key, ``[*positions, size]``.

    Returns:
      The means, float32 ``[size]``.
    """
    total: Any = 0.0
    count = 0
    for axis in group.outgoing:
        weight = weights[axis.path]
        magnitude = magnitudes[axis.feature or group.name]
        terms = axis.totals(jnp.abs(weight.astype(jnp.float32)), group.size) * magnitude
        total += over_positions(jnp.sum, terms)
        count += axis.count(weight.shape, group.size)
    return total / count


def over_positions(reduce: Callable, values: jax.Array) -> jax.Array:
    """Reduces ``[*positions, size]`` to ``[size]``."""
    axes = tuple(range(values.ndim - 1))
    return reduce(values, axis=axes) if axes else values


def along(units: jax.Array, other: jax.Array) -> jax.Array:
    """Values ``[size]`` with as many axes as an array ``[..., size]``.

    JAX adds them by itself, unless it is told to raise in such cases.
    """
    return jax.lax.expand_dims(units, range(other.ndim - units.ndim))


def instantaneous(
    name: str,
    group,
    weights: Mapping[str, jax.Array],
    features: Mapping[str, jax.Array],
    means: Mapping[str, jax.Array],
    key: Callable[[], jax.Array],
) -> jax.Array:
    """The utility of every unit of a group at this step, before averaging over time.

    Args:
      name: one of the utilities in the table above.
      group: the ``UnitGroup``.
      weights: the parameters by path, after the inner optimiser's step.
      features: activations of the forward pass by key, ``[batch, *positions, size]``.
      means: bias-corrected running means of these, ``[*positions, size]``.
      key: makes the random key; called by ``random`` only.

    Returns:
      float32 ``[size]``.
    """
    if name == "random":
        return jax.random.uniform(key(), (group.size,), jnp.float32)
    outgoing, activation, adaptability = TERMS[name]

    def magnitude(feature):
        h = features[feature]
        if activation == "deviation":
            h = h - along(over_positions(jnp.mean, means[feature]), h)
        return jnp.mean(jnp.abs(h), axis=0)

    value: Any = 1.0
    if outgoing and activation:
        magnitudes = {feature: magnitude(feature) for feature in group.features}
        value = mean_product(group, weights, magnitudes)
    elif outgoing:
        value = mean_magnitude(group.outgoing, group.size, weights)
    elif activation:
        value = over_positions(jnp.mean, magnitude(next(iter(group.features))))
    if adaptability:
        value = value / mean_magnitude(group.incoming, group.size, weights)
    return value
