"""What a study refuses before anything is computed or changed."""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from loplax import spelling

# What netCDF-3 can name, and of that nothing that looks like a path or an option.
_NUMBERED = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)
_TYPES: tuple[str, ...] = ("bool", "byte", "char", "double", "float", "int", "int64")
_TYPES += ("real", "short", "string", "ubyte", "uint", "uint64", "ushort")


def whole(name: str, value: Any) -> int:
    """A count as a Python integer.

    Args:
      name: what is counted.
      value: an integer of Python, numpy or jax.

    Returns:
      The count.

    Raises:
      ValueError: if it is something else, or less than 1.

    Example:
      >>> whole("num_seeds", np.int64(3))
      3
    """
    if np.ndim(value) or not jnp.issubdtype(_type(value), jnp.integer) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be an integer, at least 1")
    return int(value)


def number(name: str, value: Any) -> float:
    """A finite number as a Python float.

    Args:
      name: what it is.
      value: a number of Python, numpy or jax.

    Returns:
      The number.

    Raises:
      ValueError: if it is something else, not finite, or too large or small for jax's
        type of floats.

    Example:
      >>> number("rate", np.float32(0.5))
      0.5
    """
    kind = _type(value)
    real = jnp.issubdtype(kind, jnp.integer) or jnp.issubdtype(kind, jnp.floating)
    if np.ndim(value) or not real or value != value or abs(value) == math.inf:
        raise ValueError(f"{name} is {value!r}; it must be a finite number")
    limits = jnp.finfo(jnp.result_type(float))
    low, high = float(limits.tiny), float(limits.max)
    if value and not low <= abs(value) <= high:
        raise ValueError(
            f"{name} is {value!r}; as a {limits.dtype} it must be 0, or between "
            f"{low:.3g} and {high:.3g} in size"
        )
    return float(value)


def _type(value: Any) -> np.dtype:
    """The type of a number; that of Python's own integers is theirs at any size."""
    return np.dtype(int) if type(value) is int else np.asarray(value).dtype


def key(value: Any) -> None:
    """Refuses what is not one typed key."""
    typed = jnp.issubdtype(getattr(value, "dtype", float), jax.dtypes.prng_key)
    if not typed or value.shape != ():
        raise ValueError("key must be one typed key, such as jax.random.key(0)")


def name(kind: str, value: Any) -> str:
    """A name that can be shown, and be a part of a file's name.

    Args:
      kind: what is named.
      value: the name.

    Returns:
      The name.

    Raises:
      ValueError: if it is no text, empty, or has path separators, control characters,
        or blanks at its ends.

    Example:
      >>> name("method", "er+agem+cbp")
      'er+agem+cbp'
    """
    good = isinstance(value, str) and value.strip() == value and value.isprintable()
    if not good or not value or set(value) & {"/", "\\"}:
        raise ValueError(
            f"{kind} name {value!r} must be a text without path separators, control "
            "characters, and blanks at its ends, and not empty"
        )
    if unicodedata.normalize("NFC", value) != value:
        raise ValueError(f"{kind} name {value!r} must be in Unicode's form NFC")
    return value


def variable(kind: str, value: Any) -> str:
    """A name of a number: letters, digits, and ``_ . + -``; see `name`."""
    if not _NUMBERED.fullmatch(name(kind, value)) or value in _TYPES:
        raise ValueError(
            f"{kind} name {value!r} must begin with a letter, digit or _, have no "
            "others but . + - beside these, and not be the name of a type"
        )
    return value


def methods(given: Mapping[str, Any]) -> dict[str, Any]:
    """Methods whose names are good, and whose numbers are floats.

    Args:
      given: the methods by name.

    Returns:
      The methods.

    Raises:
      ValueError: if there are none, or one is bad.
    """
    if not given:
        raise ValueError("methods is empty: there is nothing to run")
    found = {}
    for method, each in given.items():
        name("method", method)
        hparams = {
            variable("hyper-parameter", hparam): number(hparam, each.hparams[hparam])
            for hparam in sorted(each.hparams)
        }
        for subset in each.learner.subsets:
            name("subset", subset)
        if len(set(each.learner.subsets)) < len(each.learner.subsets):
            raise ValueError(f"subsets of {method!r} repeat: {each.learner.subsets}")
        found[method] = each._replace(hparams=hparams)
    return found


def settings(
    given: Mapping[str, Sequence[float]], known: Mapping[str, Any]
) -> dict[str, list[float]]:
    """Swept values as floats, in the order of their names.

    Args:
      given: for every swept name its values.
      known: the methods.

    Returns:
      The values.

    Raises:
      ValueError: if no method has a name, or values are missing, repeated or bad.
    """
    used = sorted({hparam for each in known.values() for hparam in each.hparams})
    found = {}
    for hparam in sorted(given):
        if hparam not in used:
            raise ValueError(
                f"no method has a hyper-parameter {hparam!r}, only "
                f"{', '.join(used) or 'none'}{spelling.hint(hparam, used)}"
            )
        if np.ndim(given[hparam]) != 1:
            raise ValueError(f"values of {hparam!r} must be a list: {given[hparam]!r}")
        values = [number(hparam, value) for value in given[hparam]]
        rounded = np.asarray(values, jnp.result_type(float))
        if not values or np.unique(rounded).size < len(values):
            raise ValueError(f"values of {hparam!r} are missing or repeated: {values}")
        found[hparam] = values
    return found
