r"""Utilities: how much a hidden unit contributes, measured at one step.

With activations :math:`h`, outgoing weights :math:`W_\text{out}`, incoming weights
:math:`W_\text{in}` and bias-corrected mean activation :math:`\hat f`, all means taken
per unit over every other axis:

======================== ==========================================================
name                     instantaneous utility :math:`y`
======================== ==========================================================
contribution             mean|W_out| mean|h|
zero_contribution        mean|W_out| mean|h - f|
adaptable_contribution   mean|W_out| mean|h - f| / mean|W_in|
weight                   mean|W_out|
adaptation               1 / mean|W_in|
feature_by_input         mean|h - f| / mean|W_in|
random                   uniform noise on [0, 1)
======================== ==========================================================

Source: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632,
768-774 (2024), Methods, and the authors' code for the variants.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

# Which of (mean|W_out|, mean|h|, mean|h - f|, 1 / mean|W_in|) each utility multiplies.
FACTORS = {
    "contribution": ("outgoing", "activation"),
    "zero_contribution": ("outgoing", "deviation"),
    "adaptable_contribution": ("outgoing", "deviation", "adaptability"),
    "weight": ("outgoing",),
    "adaptation": ("adaptability",),
    "feature_by_input": ("deviation", "adaptability"),
    "random": (),
}


def mean_magnitude(axes, size: int, weights: Mapping[str, jax.Array]) -> jax.Array:
    """Mean absolute weight of each unit over all the given parameters.

    Args:
      axes: the ``WeightAxis`` records of the incoming or the outgoing weights.
      size: number of units.
      weights: the parameters by path.

    Returns:
      The means, float32 ``[size]``.
    """
    total, count = 0.0, 0
    for axis in axes:
        weight = weights[axis.path]
        total += axis.total(jnp.abs(weight.astype(jnp.float32)), size)
        count += axis.count(weight.shape, size)
    return total / count


def instantaneous(
    name: str,
    group,
    weights: Mapping[str, jax.Array],
    features: jax.Array,
    mean_activation: jax.Array,
    key: Callable[[], jax.Array],
) -> jax.Array:
    """The utility of every unit of a group at this step, before averaging over time.

    Args:
      name: one of the utilities in the table above.
      group: the ``UnitGroup``.
      weights: the parameters by path, after the inner optimiser's step.
      features: activations of the forward pass, ``[batch, size]``.
      mean_activation: bias-corrected running mean of the activations, ``[size]``.
      key: makes the random key; called by ``random`` only.

    Returns:
      float32 ``[size]``.
    """
    if name == "random":
        return jax.random.uniform(key(), (group.size,))
    factors = {
        "outgoing": lambda: mean_magnitude(group.outgoing, group.size, weights),
        "activation": lambda: jnp.mean(jnp.abs(features), axis=0),
        "deviation": lambda: jnp.mean(jnp.abs(features - mean_activation), axis=0),
        "adaptability": lambda: (
            1.0 / mean_magnitude(group.incoming, group.size, weights)
        ),
    }
    product = 1.0
    for factor in FACTORS[name]:
        product = product * factors[factor]()
    return product
