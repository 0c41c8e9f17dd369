"""Checks of what the user hands over, before anything is computed."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from loplax import spelling

_REAL = (jnp.bool_, jnp.integer, jnp.floating)  # kinds of numbers


def in_range(
    name: str,
    value,
    low: float = 0.0,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    scalar: bool = True,
) -> None:
    """Raises ``ValueError`` unless ``value`` is a scalar and ``low <= value <= high``.

    It is ``low <`` if ``above``, and ``< high`` if ``below``; all of an array must be
    unless ``scalar``. What is traced passes as for its value: a sweep checks its
    settings before it traces them.
    """
    if scalar and np.ndim(value):
        raise ValueError(
            f"{name} must be one number, got an array of shape {np.shape(value)}."
        )
    if isinstance(value, jax.core.Tracer):
        return
    given, value = value, np.asarray(value)
    if not any(jnp.issubdtype(value.dtype, kind) for kind in _REAL):
        hint = (
            "; for a schedule see optax.inject_hyperparams" if callable(given) else ""
        )
        raise ValueError(f"{name} must be a number, got {given!r}{hint}.")
    value = value.astype(float)
    inside = (value > low) if above else (value >= low)
    inside &= (value < high) if below else (value <= high)
    if not np.all(np.isfinite(value) & inside):
        opening = "(" if above or low == -math.inf else "["
        close = ")" if below or high == math.inf else "]"
        raise ValueError(
            f"{name} must be in {opening}{low:g}, {high:g}{close}, got {value}."
        )


def whole(name: str, value, low: int) -> Any:
    """The value as an ``int``, or as it is if traced.

    Raises:
      ValueError: unless it is whole and at least ``low``.
    """
    in_range(name, value, low)
    if isinstance(value, jax.core.Tracer):
        return value
    if value % 1:
        raise ValueError(f"{name} must be a whole number, got {value}.")
    return int(value)


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raises ``ValueError`` with the nearest known name unless ``value`` is known."""
    if value not in known:
        hint = spelling.hint(value, known)
        raise ValueError(f"{name} must be one of {list(known)}, got {value!r}{hint}")


def typed_key(key) -> None:
    """Raises ``ValueError`` unless ``key`` is a typed random key."""
    if not hasattr(key, "dtype") or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"key must be a typed key (jax.random.key(seed)), got {key!r}."
        )
