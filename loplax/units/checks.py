"""Checking unit groups against the parameters they describe."""

import math
from collections.abc import Iterable
from typing import Any

from loplax.units import discover, groups


def check(units: Iterable[groups.UnitGroup], params: Any) -> None:
    """Checks that groups, found or written by hand, fit the parameters.

    Args:
      units: the groups.
      params: the parameters, or their shapes.

    Raises:
      ValueError: if a name or an incoming weight occurs twice, a path or ``through``
        is unknown, an axis, a length, a repetition or a place does not fit, or readers
        of the same feature have other positions; the message names the value and what
        is allowed.

    Example:
      >>> import jax.numpy as jnp
      >>> from loplax import units
      >>> kernel, head = units.WeightAxis("w1", 1), units.WeightAxis("w2", 0)
      >>> group = units.UnitGroup("hidden", 4, (kernel,), (), (), (head,))
      >>> units.check([group], {"w1": jnp.ones((3, 4)), "w2": jnp.ones((4, 2))})
    """
    found = discover.paths(params)
    shapes = {path: shape for path, shape in found.items() if shape is not None}
    names: set[str] = set()
    written: dict[str, str] = {}
    for group in units:
        if group.name in names:
            raise ValueError(f"Two groups are named {group.name!r}; names are unique.")
        names.add(group.name)
        if group.size < 1:
            raise ValueError(f"{group.name}: size {group.size} must be at least 1.")
        for weights in (*group.incoming, *group.biases, *group.scales, *group.outgoing):
            _check_place(group, weights, shapes)
        for weights in group.incoming:
            _check_incoming(group, weights, shapes, written)
        for weights in (*group.biases, *group.scales, *group.outgoing):
            _check_length(group, weights, shapes[weights.path])
        _check_features(group)


def _check_path(name: str, path: str, shapes) -> None:
    if path not in shapes:
        near = groups.nearest(path, shapes)
        raise ValueError(f"{name}: no parameter {path!r}; {near}.")


def _check_axis(name: str, path: str, axis: int, shape) -> None:
    if not -len(shape) <= axis < len(shape):
        allowed = f"-{len(shape)} <= axis < {len(shape)}"
        raise ValueError(f"{name}: axis {axis} of {path!r} must have {allowed}.")


def _check_place(group, weights, shapes) -> None:
    """Paths exist and axes are in range."""
    for path in (weights.path, weights.bias):
        if path is not None:
            _check_path(group.name, path, shapes)
    shape = shapes[weights.path]
    _check_axis(group.name, weights.path, weights.axis, shape)
    if weights.through not in (None, "sign", "function"):
        raise ValueError(
            f"{group.name}: {weights.through=} of {weights.path!r} must be None, "
            "'sign' or 'function'."
        )
    outer, inner = weights.repeat
    if min(outer, inner, weights.groups) < 1 or weights.start < 0:
        numbers = f"{weights.repeat=}, {weights.groups=}, {weights.start=}"
        raise ValueError(
            f"{group.name}: {numbers} of {weights.path!r} must be at least 1, 1 and 0."
        )
    _check_places(group.name, weights, shape)


def _check_places(name: str, weights, shape) -> None:
    """Places have axes of their own, of the lengths they say."""
    path, places = weights.path, weights.places
    for axis, length in places:
        _check_axis(name, path, axis, shape)
        if length != shape[axis]:
            raise ValueError(
                f"{name}: place of length {length} on axis {axis} of {path!r}, which "
                f"has length {shape[axis]}."
            )
    axes = [axis % len(shape) for axis, _ in places]
    if len({*axes, weights.axis % len(shape)}) <= len(axes):
        raise ValueError(
            f"{name}: places {places} of {path!r} must be on axes of their own, not "
            f"{weights.axis}, which runs over the units."
        )
    if places and weights.groups > 1:
        raise ValueError(
            f"{name}: {path!r} has {weights.groups} groups, so places must be empty; "
            f"they are {places}."
        )


def _check_features(group) -> None:
    """Weights that multiply the same activation do so at the same positions."""
    found: dict[str, tuple[int, ...]] = {}
    for weights in group.outgoing:
        key = weights.feature or group.name
        before = found.setdefault(key, weights.positions)
        if before != weights.positions:
            raise ValueError(
                f"{group.name}: the readers of feature {key!r} have positions {before} "
                f"and {weights.positions}; where they differ, each needs a key."
            )


def _check_incoming(group, weights, shapes, written) -> None:
    """The units are all of the axis, and no other group writes the parameter."""
    length = shapes[weights.path][weights.axis]
    if weights.places:
        raise ValueError(
            f"{group.name}: {weights.path!r} has places {weights.places}; only "
            "outgoing weights may."
        )
    plain = (weights.repeat, weights.start, weights.groups) == ((1, 1), 0, 1)
    if length != group.size or not plain:
        raise ValueError(
            f"{group.name}: incoming axis {weights.axis} of {weights.path!r} has "
            f"length {length}; it must be the {group.size} units, once, from entry 0."
        )
    if weights.path in written:
        raise ValueError(
            f"{weights.path!r} is incoming in {written[weights.path]!r} and in "
            f"{group.name!r}; a parameter has one entry among the incoming weights."
        )
    written[weights.path] = group.name


def _check_length(group, weights, shape) -> None:
    """The units, with their repetitions, lie within the axis."""
    length = shape[weights.axis]
    if weights.groups > 1:
        _check_blocks(group, weights, shape)
        return
    needed = weights.start + math.prod(weights.repeat) * group.size
    if needed > length:
        raise ValueError(
            f"{group.name}: axis {weights.axis} of {weights.path!r} has length "
            f"{length}, but {group.size} units with repeat {weights.repeat} from "
            f"entry {weights.start} need {needed}."
        )


def _check_blocks(group, weights, shape) -> None:
    """The units of a grouped convolution fill the blocks of its kernel."""
    name, path, blocks = group.name, weights.path, weights.groups
    _check_axis(name, path, weights.block_axis, shape)
    if weights.block_axis % len(shape) == weights.axis % len(shape):
        raise ValueError(f"{name}: block_axis of {path!r} must differ from its axis.")
    if weights.repeat != (1, 1) or weights.start:
        raise ValueError(
            f"{name}: {path!r} has {blocks} groups, so repeat must be (1, 1) and start "
            f"must be 0; they are {weights.repeat} and {weights.start}."
        )
    length, width = shape[weights.axis], shape[weights.block_axis]
    if length * blocks != group.size or width % blocks:
        raise ValueError(
            f"{name}: {blocks} groups of {path!r} need {group.size} / {blocks} units "
            f"along axis {weights.axis} and a multiple of {blocks} outputs along axis "
            f"{weights.block_axis}; the lengths are {length} and {width}."
        )
