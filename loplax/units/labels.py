"""Labels that say, for each axis of a value, what runs along it.

The analysis follows every intermediate value of a model. An axis of a value is a
sequence of concatenated segments; a segment is a product of factors, outermost first.
After flattening an image ``[H, W, C]`` whose channels are units, the last axis is the
single segment ``(H * W free) x (C units)``.
"""

import math
from typing import NamedTuple

SAME = -1
"""Label of a factor along which the value is constant."""

FREE = -2
"""Label of a factor along which the value varies, but not with units."""

CONST, NOISE, VECTOR, DATA = range(4)
"""Origins: constants; random numbers; inputs with at most one axis; batches of data."""


class Factor(NamedTuple):
    """Part of an axis.

    Attributes:
      size: length of the factor.
      label: ``SAME``, ``FREE``, or the number of a parameter axis, of a unit group or
        of the statistics of blocks of its units.
      stride: steps along the labelled axis per entry of the factor.
      start: position on the labelled axis of the factor's first entry.
    """

    size: int
    label: int
    stride: int = 1
    start: int = 0


Segment = tuple[Factor, ...]
Dim = tuple[Segment, ...]


class Contact(NamedTuple):
    """A factor of units that lies on a factor of something else.

    Attributes:
      unit: the factor of units.
      other: the factor it meets, of the same size.
      extent: length of the part of the other axis that was cut out for this segment of
        a concatenation, or ``None`` if the axis was not cut.
    """

    unit: Factor
    other: Factor
    extent: int | None


def plain(size: int, label: int) -> Dim:
    """An axis of one factor; axes of length one carry no factor."""
    return ((Factor(size, label),) if size != 1 else (),)


def free(shape: tuple[int, ...]) -> tuple[Dim, ...]:
    """Axes that vary without units."""
    return tuple(plain(size, FREE) for size in shape)


def same(shape: tuple[int, ...]) -> tuple[Dim, ...]:
    """Axes along which the value is constant."""
    return tuple(plain(size, SAME) for size in shape)


def size(segment: Segment) -> int:
    """Length of a segment."""
    return math.prod(factor.size for factor in segment)


def length(dim: Dim) -> int:
    """Length of an axis."""
    return sum(size(segment) for segment in dim)


def found(dims: tuple[Dim, ...]) -> set[int]:
    """All labels of some axes."""
    return {f.label for dim in dims for segment in dim for f in segment}


def rename(dims: tuple[Dim, ...], names: dict[int, int]) -> tuple[Dim, ...]:
    """Replaces labels; a factor that becomes free or constant loses its position."""

    def new(factor: Factor) -> Factor:
        label = names.get(factor.label, factor.label)
        return Factor(factor.size, label) if label < 0 else factor._replace(label=label)

    return tuple(tuple(tidy(map(new, segment)) for segment in dim) for dim in dims)


def split(factor: Factor, inner: int) -> tuple[Factor, Factor]:
    """Splits a factor into an outer one and an inner one of size ``inner``."""
    step = inner if factor.label >= 0 else 1
    outer = factor._replace(size=factor.size // inner, stride=factor.stride * step)
    return outer, factor._replace(size=inner)


def spread(dims: tuple[Dim, ...], lengths: tuple[int, ...]) -> tuple[Dim, ...]:
    """Repeats axes of length one up to the given lengths."""
    dims = dims or same((1,) * len(lengths))
    return tuple(
        plain(n, SAME) if length(dim) == 1 else dim
        for dim, n in zip(dims, lengths, strict=True)
    )


def tidy(factors) -> Segment:
    """Joins neighbouring factors that continue each other."""
    result: list[Factor] = []
    for factor in factors:
        last = result[-1] if result else None
        stride = factor.stride * (factor.size if factor.label >= 0 else 1)
        if last is not None and last[1:] == (factor.label, stride, factor.start):
            result[-1] = factor._replace(size=last.size * factor.size)
        else:
            result.append(factor)
    return tuple(result)


def match(a: Dim, b: Dim) -> list[list[tuple[Factor, Factor]]] | None:
    """Lays two axes on each other.

    Args:
      a: an axis.
      b: an axis of the same length, or one of the two of length one.

    Returns:
      For each segment, pairs of factors of equal sizes; ``None`` if the two do not
      fit.
    """
    if length(a) == 1:
        a = plain(length(b), SAME)
    if length(b) == 1:
        b = plain(length(a), SAME)
    a, b = _cut(a, b), _cut(b, a)
    if [size(segment) for segment in a] != [size(segment) for segment in b]:
        return None
    matched = []
    for one, two in zip(a, b, strict=True):
        pairs = _refine(one, two)
        if pairs is None:
            return None
        matched.append(pairs)
    return matched


def _cut(dim: Dim, like: Dim) -> Dim:
    if len(dim) > 1 or len(like) == 1 or len(dim[0]) != 1:
        return dim
    factor, offset, pieces = dim[0][0], 0, []
    for segment in like:
        start = factor.start + (offset * factor.stride if factor.label >= 0 else 0)
        pieces.append((factor._replace(size=size(segment), start=start),))
        offset += size(segment)
    return tuple(pieces)


def _refine(a: Segment, b: Segment) -> list[tuple[Factor, Factor]] | None:
    left, right, pairs = list(a), list(b), []
    while left and right:
        one, two = left.pop(), right.pop()
        inner = min(one.size, two.size)
        if one.size % inner or two.size % inner:
            return None
        if one.size > inner:
            outer, one = split(one, inner)
            left.append(outer)
        if two.size > inner:
            outer, two = split(two, inner)
            right.append(outer)
        pairs.append((one, two))
    return pairs[::-1]


def concatenate(dims: list[Dim]) -> Dim:
    """Joins axes end to end; equal segments of units become repetitions."""
    segments = [segment for dim in dims for segment in dim]
    if len(segments) == 1:
        return tuple(segments)
    if len(set(segments)) == 1 and max(found(tuple(dims)), default=FREE) >= 0:
        return (tidy((Factor(len(segments), FREE), *segments[0])),)
    result: list[Segment] = []
    for segment in segments:
        if any(factor.label >= 0 for factor in segment):
            result.append(segment)
            continue
        before = result.pop() if result and result[-1][0].label == FREE else None
        if before is not None and len(before) > 1:
            result.append(before)
            before = None
        total = size(segment) + (0 if before is None else size(before))
        result.append((Factor(total, FREE),))
    return tuple(result)


def tile(dim: Dim, times: int) -> Dim:
    """Repeats an axis end to end."""
    if len(dim) > 1:
        return plain(length(dim) * times, FREE)
    return (tidy((Factor(times, SAME), *dim[0])),)


def reshape(dims: tuple[Dim, ...], shape: tuple[int, ...]) -> tuple[Dim, ...]:
    """Labels after a row-major reshape.

    Where factors cannot be followed the new axes are ``FREE``.

    Args:
      dims: the axes before, in order.
      shape: the new shape.

    Returns:
      The axes after.
    """
    if 0 in shape:
        return free(shape)
    source = [dim for dim in dims if length(dim) > 1]
    result: list[Dim] = []
    for sizes in _blocks([length(dim) for dim in source], shape):
        total = math.prod(sizes)
        taken: list[Dim] = []
        while math.prod(map(length, taken)) < total:
            taken.append(source.pop(0))
        result.extend(_reshape_block(taken, sizes))
    return tuple(result)


def _blocks(lengths: list[int], shape: tuple[int, ...]) -> list[list[int]]:
    """Groups the new axes so that each group covers whole old axes."""
    ends = {math.prod(lengths[:i]) for i in range(len(lengths) + 1)}
    blocks, current, total = [], [], 1
    for new in shape:
        current.append(new)
        total *= new
        if total in ends:
            blocks.append(current)
            current = []
    return blocks


def _reshape_block(dims: list[Dim], sizes: list[int]) -> list[Dim]:
    if sum(new > 1 for new in sizes) == len(dims) == 1:
        return [dims[0] if new > 1 else plain(1, FREE) for new in sizes]
    if any(len(dim) > 1 for dim in dims):
        return list(free(tuple(sizes)))
    factors = [factor for dim in dims for factor in dim[0]]
    result: list[Dim] = []
    for new in sizes:
        taken, rest = [], new
        while rest > 1:
            factor = factors.pop(0)
            if factor.size > rest and factor.size % rest == 0:
                factor, inner = split(factor, factor.size // rest)
                factors.insert(0, inner)
            if rest % factor.size:
                return list(free(tuple(sizes)))
            taken.append(factor)
            rest //= factor.size
        result.append((tidy(taken),))
    return result
