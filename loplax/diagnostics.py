"""What is observed of any network that learns: of its weights and its features."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from loplax import metrics


def of_weights(params: Any, initial: Any) -> dict[str, jax.Array]:
    """``weight_magnitude`` and ``distance_from_init``.

    Args:
      params: the parameters.
      initial: the parameters at the start.

    Returns:
      Scalars by name.
    """
    return {
        "weight_magnitude": metrics.weight_magnitude(params),
        "distance_from_init": metrics.distance(params, initial),
    }


def of_features(layers: Sequence[jax.Array]) -> dict[str, jax.Array]:
    """Fractions of useless units, and the ranks of the last hidden layer.

    Args:
      layers: activations ``[examples, ..., units]``, one array per hidden layer.

    Returns:
      Scalars by name, the ``"features"`` of `supervised.observe`; none without layers.
      Units that are all dead span nothing: their ranks are 0.
    """
    if not layers:
        return {}
    sizes = jnp.array([layer.shape[-1] for layer in layers])
    fractions = {
        "dead": metrics.dead_fraction,
        "dormant": metrics.dormant_fraction,
        "rarely_active": metrics.rarely_active_fraction,
        "saturated": metrics.saturated_fraction,
    }
    each = {
        name: jnp.stack([fraction(layer) for layer in layers])
        for name, fraction in fractions.items()
    }
    found = {name: jnp.average(x, weights=sizes) for name, x in each.items()}
    found |= {f"dead_{i + 1}": value for i, value in enumerate(each["dead"])}
    ranks = (
        metrics.effective_rank,
        metrics.approximate_rank,
        metrics.absolute_approximate_rank,
        metrics.stable_rank,
    )
    return found | {rank.__name__: rank(layers[-1]) for rank in ranks}


def floats(found: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Diagnostics in float32, NaN where they do not exist.

    Args:
      found: scalars by name; whole numbers are counts, and -1 where there is nothing to
        be counted, since activations or gradients are not finite.

    Returns:
      The same as floats.
    """

    def one(value):
        missing = jnp.issubdtype(value.dtype, jnp.integer) & (value < 0)
        return jnp.where(missing, jnp.nan, value.astype(jnp.float32))

    return jax.tree.map(one, found)
