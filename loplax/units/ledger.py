"""The book-keeping of the analysis: groups, their weights, and what rules them out."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from loplax.units import flow, groups, labels


class Record(NamedTuple):
    """One entry of a group.

    Attributes:
      role: field of ``UnitGroup``: incoming, biases, scales or outgoing.
      label: the group.
      weights: the parameter axis.
      matmul: for outgoing weights, number of the product that reads them.
      tap: for outgoing weights, where the units are read.
    """

    role: str
    label: int
    weights: groups.WeightAxis
    matmul: int = -1
    tap: flow.Tap | None = None


class Bonds(NamedTuple):
    """What the units of a group share or depend on beside their own parameters.

    Attributes:
      coupled: statistics of the units that come back to them.
      tied: what varies along the units and is no parameter.
      blocks: numbers of blocks of neighbouring units within which they are alike.
    """

    coupled: dict[str, None]
    tied: dict[str, None]
    blocks: set[int]


TIES = {
    labels.CONST: "constants",
    labels.NOISE: "random numbers",
    labels.VECTOR: "constants",
}
"""What the numbers of an origin are called that vary along the units."""


class Ledger:
    """All that the rules learn about parameters and groups.

    Labels number the axes of the parameters and the groups of units; groups that share
    their units are merged, and the earliest stands for all.

    Args:
      shapes: shape of every parameter, by path.
      hint: what to say of units that are returned, beside the reason.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], hint: str = ""):
        """Starts with parameters and no groups."""
        self.shapes, self.hint = shapes, hint
        self.batched = False  # whether the batch axis has a name: no vector is data
        self.records: list[Record] = []
        self.reasons: dict[int, str] = {}
        self.uses: dict[str, dict[tuple, str]] = {}
        self.writers: dict[int, str] = {}
        self.products: list[tuple[int, ...] | None] = []
        self.product_bias: dict[int, str] = {}
        self._sizes: list[int] = []
        self._parents: list[int] = []
        self._axes: dict[int, tuple[str, int]] = {}
        self._statistics: dict[int, int] = {}
        self.bonds: dict[int, Bonds] = {}

    def parameter(self, path: str) -> flow.Value:
        """The value of a parameter, every axis with a label of its own."""
        dims = []
        for axis, size in enumerate(self.shapes[path]):
            label = self._new(size)
            self._axes[label] = (path, axis)
            dims.append(labels.plain(size, label))
        return flow.Value(tuple(dims), param=path, pure=True)

    def group(self, axis_label: int, through: str | None = None) -> int:
        """Starts the group of units that the given parameter axis computes."""
        path, axis = self._axes[axis_label]
        label = self._new(self._sizes[axis_label])
        self.writers[label] = path
        weights = groups.WeightAxis(path, axis, through=through)
        self.record("incoming", label, weights)
        return label

    def statistic(self, label: int) -> int:
        """The label of what is left of the units after blocks of them were reduced."""
        made = self._new(self._sizes[label])
        self._statistics[made] = label
        return made

    def statistic_of(self, label: int) -> int | None:
        """The group whose blocks of units have the statistics with this label."""
        owner = self._statistics.get(label)
        return None if owner is None else self.root(owner)

    def bind(self, label: int, blocks: int, coupled: str = "", tied: str = "") -> None:
        """Notes what else the units of a group depend on.

        Args:
          label: the group.
          blocks: number of blocks of neighbouring units that can change places.
          coupled: a statistic that the units share.
          tied: what runs along the units and is no parameter.
        """
        bonds = self.bonds.setdefault(label, Bonds({}, {}, set()))
        bonds.coupled.update({coupled: None} if coupled else {})
        bonds.tied.update({tied: None} if tied else {})
        bonds.blocks.add(blocks)

    def tie(self, label: int, origins: Iterable[int]) -> None:
        """Notes numbers that vary along the units of a group and are no parameter."""
        for origin in origins:
            self.bind(label, self.size(label), tied=TIES[origin])

    def _new(self, size: int) -> int:
        self._sizes.append(size)
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def root(self, label: int) -> int:
        """The label that stands for all labels merged with this one."""
        while label >= 0 and self._parents[label] != label:
            label = self._parents[label]
        return label

    def size(self, label: int) -> int:
        """Length of a parameter axis, or number of units of a group."""
        return self._sizes[label]

    def title(self, label: int) -> str:
        """The parameter that first writes a group, for messages."""
        return self.writers[self.root(label)]

    def is_axis(self, label: int) -> bool:
        """Whether a label is a parameter axis."""
        return label in self._axes

    def units(self, dims: tuple[labels.Dim, ...]) -> set[int]:
        """The groups whose units lie on some of the axes."""
        return {self.root(i) for i in labels.found(dims) if i in self.writers}

    def axis_path(self, label: int) -> str:
        """Path of the parameter that has the axis."""
        return self._axes[label][0]

    def axis_of(self, dim: labels.Dim) -> int | None:
        """The parameter axis that an axis is, ``None`` if it is not exactly one."""
        if len(dim) > 1 or len(dim[0]) != 1 or not self.is_axis(dim[0][0].label):
            return None
        label = dim[0][0].label
        return self._axes[label][1] if dim[0][0].size == self.size(label) else None

    def has_axes(self, value: flow.Value) -> bool:
        """Whether some axis of the value is still an axis of a parameter."""
        return any(map(self.is_axis, labels.found(value.dims)))

    def merge(self, a: int, b: int) -> None:
        """Makes two groups one: their units are the same."""
        a, b = self.root(a), self.root(b)
        self._parents[max(a, b)] = min(a, b)

    def drop(self, label: int, reason: str) -> None:
        """Rules a group out; the first reason counts."""
        self.reasons.setdefault(label, reason)

    def drop_all(self, dims: tuple[labels.Dim, ...], reason: str) -> None:
        """Rules out every group on some axes; ``{}`` in the reason names the units."""
        for label in self.units(dims):
            self.drop(label, reason.format(f"the units of {self.title(label)}"))

    def drop_reduced(self, value: flow.Value, where: str) -> None:
        """Rules out every group that was reduced into a value."""
        for label, name, _ in value.reduced:
            title = self.title(label)
            reason = f"{name} reduces the units of {title} on the way to {where}"
            self.drop(label, reason)

    def record(self, role: str, label: int, weights, matmul: int = -1, tap=None):
        """Notes that a group owns entries of a parameter."""
        self.records.append(Record(role, label, weights, matmul, tap))

    def use(self, path: str, kind: tuple, name: str) -> None:
        """Notes a use of a parameter; uses of the same kind count once."""
        self.uses.setdefault(path, {}).setdefault(kind, name)

    def product(self, path: str, outputs: tuple[int, ...] | None, name: str) -> int:
        """Numbers a matrix product of activations with a parameter."""
        self.products.append(outputs)
        self.use(path, ("weight", len(self.products)), name)
        return len(self.products) - 1

    def release(self, value: flow.Value, name: str) -> flow.Value:
        """Gives up following a parameter, if the value still is one."""
        axes = {i: labels.FREE for i in labels.found(value.dims) if self.is_axis(i)}
        if value.param is None or labels.found(value.dims) <= {labels.SAME}:
            return value._replace(
                param=None,
                pure=False,
                shifted=False,
                through=None,
                number=None,
                ties=frozenset(),
                matmul=None,
            )
        self.use(value.param, ("other", name), name)
        return value._replace(
            dims=labels.rename(value.dims, axes),
            param=None,
            pure=False,
            shifted=False,
            through=None,
            number=None,
            part=frozenset(),
            ties=frozenset(),
            taint=value.taint | {value.param},
        )

    def own(self, role: str, label: int, weights, name: str, step: int) -> None:
        """Notes that the units of a group own a bias or scale, and where it enters."""
        self.record(role, label, weights)
        self.use(weights.path, (role, label, weights, step), name)

    def axis_number(self, label: int) -> int:
        """Which axis of its parameter a label is."""
        return self._axes[label][1]

    def without_axes(self, value: flow.Value) -> flow.Value:
        """A value in which axes of parameters are no longer followed."""
        axes = {i: labels.FREE for i in labels.found(value.dims) if self.is_axis(i)}
        dims = labels.rename(value.dims, axes)
        return value._replace(dims=dims, origin=labels.DATA)

    def covers(self, contacts: list[labels.Contact], size: int) -> int | None:
        """Checks that contacts run once over all units, in order.

        Args:
          contacts: the contacts of one group with one axis.
          size: number of units.

        Returns:
          Steps along the other axis per unit, or ``None`` if they do not fit.
        """
        expected = 1
        for unit, _, _ in sorted(contacts, key=lambda c: c.unit.stride):
            if unit.stride != expected or unit.start:
                return None
            expected *= unit.size
        ratios = {c.other.stride / c.unit.stride for c in contacts}
        starts = {c.other.start for c in contacts}
        labels_met = {self.root(c.other.label) for c in contacts}
        alone = len(ratios) == len(starts) == len(labels_met) == 1
        ratio = ratios.pop()
        return int(ratio) if alone and expected == size and ratio % 1 == 0 else None

    def weights(self, label: int, contacts: list[labels.Contact]):
        """The record of units that lie on a parameter axis, ``None`` if they cannot."""
        inner = self.covers(contacts, self.size(label))
        first = contacts[0]
        if not inner or not self.is_axis(first.other.label):
            return None
        path, axis = self._axes[first.other.label]
        extent = first.extent or self.size(first.other.label)
        outer, rest = divmod(extent, self.size(label) * inner)
        if rest or not outer:
            return None
        return groups.WeightAxis(path, axis, (outer, inner), first.other.start)

    def whole_axes(self, dims: tuple[labels.Dim, ...]) -> dict[int, bool]:
        """For each parameter axis on ``dims``, whether all of it is there."""
        covered: dict[int, int] = {}
        for dim in dims:
            for factor in dim[0]:
                if self.is_axis(factor.label):
                    label = factor.label
                    covered[label] = covered.get(label, 1) * factor.size
        return {label: n == self.size(label) for label, n in covered.items()}

    def parameter_size(self, path: str) -> int:
        """Number of entries of a parameter."""
        return math.prod(self.shapes[path])
