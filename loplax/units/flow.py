"""What the analysis knows about each intermediate value, and where units are read."""

from typing import Any, NamedTuple

from loplax.units import groups, labels


class Tap(NamedTuple):
    """Where the activation of a group meets outgoing weights.

    Attributes:
      address: position of the matrix product or convolution in the jaxpr.
      operand: which of its operands holds the units.
      source: number of the value that is read.
      axis: axis of the operand that holds them.
      start: first entry of the axis that belongs to the group.
      length: how many entries do.
      window: what to cover of the operand first, where the window of a convolution does
        not slide: ``(axis, low, high, interior, extent, stride)``, the first three as
        ``lax.pad`` pads it.
      shape: how the group's part of the operand unfolds.
      order: axes of that shape: others, places, repetitions, units.
      sizes: shape of the activation, ``[..., *positions, size]``.
    """

    address: tuple[int, ...]
    operand: int
    source: int
    axis: int
    start: int
    length: int
    window: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    order: tuple[int, ...]
    sizes: tuple[int, ...]


class Reduced(NamedTuple):
    """A statistic of the units of a group.

    Attributes:
      label: the group.
      name: the primitive that computes it.
      blocks: number of blocks of neighbouring units that have one statistic each.
    """

    label: int
    name: str
    blocks: int


class Terms(NamedTuple):
    """Products of units with entries of one parameter, which may add up to a kernel.

    Attributes:
      label: the group.
      weights: the parameter axis that runs over the units.
      parts: the entries used, each as ``(parameter axis, index)`` of the axes cut.
      open: the other parameter axes of several entries, and the axes of the value on
        which they lie.
      places: whether the units vary along the open axes.
      step: number of the first product.
    """

    label: int
    weights: groups.WeightAxis
    parts: frozenset[frozenset[tuple[int, int]]]
    open: tuple[tuple[int, int], ...]
    places: bool
    step: int


class Value(NamedTuple):
    """What is known about one intermediate value.

    Attributes:
      dims: one entry per axis; of a product with a ``factor``, those of the parameter.
      origin: ``CONST``, ``NOISE``, ``VECTOR`` or ``DATA``.
      param: path of the parameter that this value is a multiple of, or with ``through``
        a function of, entry by entry; or ``None``.
      pure: whether only the shape and the precision of ``param`` were changed.
      shifted: whether a constant was added to the multiple, as in ``1 + scale``, or a
        function is not known to be 0 where the parameter is.
      through: what the value takes of each entry of ``param``, as
        ``WeightAxis.through``; ``None`` for a multiple.
      number: the value where ``param`` is 0, or that of a constant; ``None`` if it is
        not known, or not the same everywhere.
      part: ``(parameter axis, index)`` of each axis of which one entry was cut out; -1
        stands for entries that are not known.
      factor: what else the parameter is multiplied with, or ``None``.
      taint: parameters that entered in a way that is not followed.
      reduced: the statistics of units that entered the value.
      ties: ``(parameter axis, origin)`` of constants that ``param`` is multiplied with
        and that vary along the axis.
      matmul: number of the matrix product or convolution whose bare output this is.
      terms: the products whose sum this is, while they may still become a kernel.
    """

    dims: tuple[labels.Dim, ...]
    origin: int = labels.CONST
    param: str | None = None
    pure: bool = False
    shifted: bool = False
    through: str | None = None
    number: Any = None
    part: frozenset[tuple[int, int]] = frozenset()
    factor: "Value | None" = None
    taint: frozenset[str] = frozenset()
    reduced: frozenset[Reduced] = frozenset()
    ties: frozenset[tuple[int, int]] = frozenset()
    matmul: int | None = None
    terms: Terms | None = None
