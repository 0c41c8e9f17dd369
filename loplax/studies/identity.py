"""What makes two runs the same: their content, in whatever order it is given."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def plain(what: str, values: Any) -> Any:
    """Values as JSON gives them back: tuples become lists, numpy's scalars numbers.

    Args:
      what: name of the values, for the message.
      values: the values.

    Returns:
      Lists, dicts, texts and numbers.

    Raises:
      ValueError: if there is another value.

    Example:
      >>> plain("config", {"sizes": (1, 2), "rate": np.float32(0.5)})
      {'sizes': [1, 2], 'rate': 0.5}
    """

    def scalar(value: Any) -> Any:
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
            return value.item()
        raise TypeError(f"{value!r} is a {type(value).__name__}")

    try:
        return json.loads(json.dumps(values, default=scalar))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} cannot be written as JSON: {error}") from error


def text(value: Any) -> str:
    """One text for equal JSON values: sorted names, and 1.0 is 1.

    Args:
      value: the value.

    Returns:
      The text.

    Example:
      >>> text({"b": 1.0, "a": [True, 0.5]})
      '{"a": [true, 0.5], "b": 1}'
    """
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _whole(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def without_defaults(
    values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """What differs from the defaults, at any depth.

    A setting that did not exist yet is the same as one that has its default.

    Args:
      values: JSON values by name.
      defaults: the default of some of them.

    Returns:
      The others.

    Example:
      >>> without_defaults({"rate": 1.0, "net": {"width": 8, "bias": True}},
      ...                  {"rate": 1, "net": {"bias": True}})
      {'net': {'width': 8}}
    """
    left = {}
    for name, value in values.items():
        if name not in defaults:
            left[name] = value
        elif isinstance(value, dict) and isinstance(defaults[name], dict):
            inner = without_defaults(value, defaults[name])
            left |= {name: inner} if inner else {}
        elif text(value) != text(defaults[name]):
            left[name] = value
    return left


def with_defaults(
    values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """What is said, and the defaults of the rest, at any depth.

    Args:
      values: JSON values by name.
      defaults: the default of some of them.

    Returns:
      All of them.

    Example:
      >>> with_defaults({"net": {"width": 8}}, {"rate": 1, "net": {"bias": True}})
      {'rate': 1, 'net': {'bias': True, 'width': 8}}
    """
    found = {**defaults, **values}
    for name in values.keys() & defaults.keys():
        if isinstance(values[name], dict) and isinstance(defaults[name], dict):
            found[name] = with_defaults(values[name], defaults[name])
    return found


def arm(
    method: str,
    choices: Mapping[str, Any],
    hparams: Mapping[str, float],
    defaults: Mapping[str, Any],
) -> str:
    """What a method in one setting is, as a text that is the same for the same arm.

    Args:
      method: name of the method.
      choices: what is static about it.
      hparams: its numbers.
      defaults: the defaults of both, by name.

    Returns:
      The text.

    Example:
      >>> arm("bp", {}, {"rate": 0.1, "decay": 0.0}, {"decay": 0.0})
      '["bp", {}, {"rate": 0.1}]'
    """
    parts = [without_defaults(part, defaults) for part in (choices, hparams)]
    return text([method, *parts])


def digest(data: Any) -> str:
    """Tells data from other data: names, types, shapes and values of all leaves.

    Args:
      data: a pytree of arrays.

    Returns:
      The digest, as hexadecimal digits.

    Example:
      >>> digest({"x": np.zeros(2)}) == digest({"x": np.zeros(2, np.int64)})
      False
    """
    import jax

    found = hashlib.blake2b(digest_size=16)
    leaves = jax.tree_util.tree_leaves_with_path(data)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    for name in sorted(named):
        leaf = named[name]
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", float), jax.dtypes.prng_key):
            name += str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.view(np.uint8).data if array.size else b"")
    return found.hexdigest()


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Every place where two JSON values differ, as ``place: old -> new``.

    Args:
      old: the one value.
      new: the other.
      path: where they are.

    Yields:
      The differences.

    Example:
      >>> list(differences({"net": {"width": 8}}, {"net": {"width": 9}, "a": 1}))
      ['a: none -> 1', 'net.width: 8 -> 9']
    """
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if text(old) != text(new):  # NaN equals NaN here
            yield f"{path}: {json.dumps(old)} -> {json.dumps(new)}"
        return
    for name in sorted({*old, *new}):
        place = f"{path}.{name}" if path else name
        if name in old and name in new:
            yield from differences(old[name], new[name], place)
        else:
            values = [json.dumps(d[name]) if name in d else "none" for d in (old, new)]
            yield f"{place}: {values[0]} -> {values[1]}"
