"""Checks of what the user hands to a transformation, before anything is computed."""

import difflib
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np


def number(
    name: str, value, low: float = 0.0, high: float = math.inf, *, below: bool = False
) -> None:
    """Raises ``ValueError`` unless ``low <= value <= high`` (``< high`` if ``below``).

    Traced values pass: a sweep checks its settings before it traces them.
    """
    if isinstance(value, jax.core.Tracer):
        return
    value = np.asarray(value, dtype=float)
    inside = (value >= low) & ((value < high) if below else (value <= high))
    if not np.all(np.isfinite(value) & inside):
        close = ")" if below or high == math.inf else "]"
        raise ValueError(f"{name} must be in [{low:g}, {high:g}{close}, got {value}.")


def integer(name: str, value, low: int) -> None:
    """Raises ``ValueError`` unless ``value`` is whole and at least ``low``."""
    number(name, value, low)
    if not isinstance(value, jax.core.Tracer) and np.any(np.asarray(value) % 1):
        raise ValueError(f"{name} must be a whole number, got {value}.")


def choice(name: str, value: str, known: Sequence[str]) -> None:
    """Raises ``ValueError`` with the nearest known name unless ``value`` is known."""
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {list(known)}, got {value!r}{hint}")


def typed_key(key) -> None:
    """Raises ``ValueError`` unless ``key`` is a typed random key."""
    if not jnp.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key):
        raise ValueError(
            f"key must be a typed key (jax.random.key(seed)), got {key!r}."
        )


def given_params(params) -> None:
    """Raises ``ValueError`` if ``update`` was called without the parameters."""
    if params is None:
        raise ValueError("update(grads, state, params) needs params, got None.")


def activations(units, features: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Checks the features of all groups; makes them float32 ``[batch, size]``.

    Raises:
      ValueError: if a group has no features, or their last axis is not its units.
    """
    if features is None:
        raise ValueError("update needs features=..., which units.tap(apply) returns.")
    flat = {}
    for group in units:
        if group.name not in features:
            near = difflib.get_close_matches(group.name, list(features), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"features: nothing for layer {group.name!r}, only for "
                f"{list(features)}{hint}. loplax.units.tap(apply) returns them all."
            )
        value = features[group.name]
        if jnp.ndim(value) == 0 or value.shape[-1] != group.size:
            raise ValueError(
                f"features[{group.name!r}] must have shape [..., {group.size}], "
                f"got {jnp.shape(value)}."
            )
        flat[group.name] = value.reshape(-1, group.size).astype(jnp.float32)
    return flat


def groups(units, *, replaced: bool = True, bias_transfer: bool = False) -> tuple:
    """Returns the groups as a tuple, checked as far as possible without parameters.

    Raises:
      ValueError: if there are none, a name occurs twice, or ``bias_transfer`` is wanted
        and some outgoing weight has no bias to take the mean.
    """
    units = tuple(units)
    names = [group.name for group in units]
    if not units:
        raise ValueError("units: no hidden layer given.")
    if len(set(names)) < len(names):
        raise ValueError(f"units: layer names must differ, got {names}.")
    for group in units:
        if replaced and not (group.incoming and group.outgoing):
            raise ValueError(f"units: {group.name!r} must be read and written to.")
        for axis in group.outgoing:
            if bias_transfer and axis.bias is None:
                raise ValueError(
                    f"bias_transfer: {axis.path!r}, which reads layer {group.name!r}, "
                    "adds no bias."
                )
    return units
