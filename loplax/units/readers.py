"""How products read units: which weights, and at which places of the activation."""

import math
from typing import NamedTuple

from loplax.units import flow, groups, labels, ledger, walk


class Atom(NamedTuple):
    """Part of a contracted axis.

    Attributes:
      axis: axis of the activation.
      here: what the activation has along it.
      there: what the weights have along it.
    """

    axis: int
    here: labels.Factor
    there: labels.Factor


class Reader(NamedTuple):
    """A product that reads an activation.

    Attributes:
      step: the product.
      operand: which of its operands is the activation.
      x: the activation.
      weights: the weights.
      matmul: number of the product.
      window: as in ``Tap``.
    """

    step: walk.Step
    operand: int
    x: flow.Value
    weights: flow.Value
    matmul: int
    window: tuple[tuple[int, ...], ...] = ()


def read(book: ledger.Ledger, reader: Reader, contracted) -> set[int]:
    """Notes the groups that the contracted axes of an activation hold.

    Args:
      book: the ledger.
      reader: the product.
      contracted: pairs of an axis of the activation and one of the weights.

    Returns:
      The groups.
    """
    dims, name = reader.x.dims, reader.step.name
    matched: dict[int, list[list[Atom]]] = {}
    found: set[int] = set()
    for axis, other in sorted(contracted):
        laid = labels.match(dims[axis], reader.weights.dims[other])
        matched[axis] = [[Atom(axis, *p) for p in pairs] for pairs in laid or ()]
        if laid is None:
            book.drop_all((dims[axis],), f"{name} reads {{}} in an unknown order")
    for axis, segments in matched.items():
        start = 0
        for own in segments:
            units = book.units(((tuple(atom.here for atom in own),),))
            length = math.prod(atom.here.size for atom in own)
            if units:
                others = [matched[i] for i in matched if i != axis]
                extent = length if len(segments) > 1 else None
                _note(book, reader, units, own, others, start, extent)
            found |= units
            start += length
    return found


def _note(book, reader, units, own, others, start, extent) -> None:
    """Notes the group on one segment, or why it is ruled out."""
    name, record = reader.step.name, _record(book, units, own, extent)
    if record is None:
        mixed = " and ".join(map(book.title, sorted(units)))
        for label in units:
            book.drop(label, f"{name} reads the units of {mixed} mixed or cut")
        return
    (label,) = units
    record = record._replace(through=reader.weights.through)
    what = f"{name} reads the units of {book.title(label)}"
    if not all(segments and len(segments) == 1 for segments in others):
        book.drop(label, f"{what} at places that are mixed or cut")
        return
    atoms = [*own, *(atom for segments in others for atom in segments[0])]
    atoms.sort(key=lambda atom: atom.axis)
    laid = _places(book, record, own, atoms)
    if laid is None:
        book.drop(label, f"{what} at places that are mixed or cut")
        return
    record, chosen = laid
    if {record.axis, *dict(record.places)} & {axis for axis, _ in reader.weights.ties}:
        weights = f"{reader.weights.param} times constants that vary along them"
        book.drop(label, f"{what} with {weights}")
    sizes = (*record.positions, book.size(label))
    part = (own[0].axis, start, math.prod(atom.here.size for atom in own))
    tap = tap_of(reader, part, atoms, chosen, sizes)
    book.record("outgoing", label, record, reader.matmul, tap)


def _record(book, units, own, extent) -> groups.WeightAxis | None:
    """The weights that read a segment, without places; ``None`` if they are unclear."""
    held = [atom for atom in own if atom.here.label in book.writers]
    if len(units) != 1 or len(held) != 1:
        return None
    contacts = [labels.Contact(held[0].here, held[0].there, extent)]
    return book.weights(*units, contacts)


def _places(book, record, own, atoms):
    """Finds where, along further axes, the weights read the units.

    Args:
      book: the ledger.
      record: the weights, without places.
      own: the atoms of the segment that holds the units.
      atoms: those of all contracted axes.

    Returns:
      The weights, with places; and the atoms of places, repetitions and units, in this
      order. ``None`` if parts of an axis of the weights are missing or mixed.
    """
    (unit,) = (atom for atom in own if atom.here.label in book.writers)
    owner, varying = unit.there.label, set()
    along: dict[int, list[Atom]] = {}
    for atom in atoms:
        here, there = atom.here.label, atom.there.label
        if there == owner or (there != labels.SAME and here not in book.writers):
            along.setdefault(there, []).append(atom)
            varying |= set() if here == labels.SAME else {there}
    along = {label: along[label] for label in along if label in varying}
    if not all(map(book.is_axis, along)):
        return None
    lengths = {label: book.size(label) for label in along}
    lengths[owner] = math.prod(record.repeat) * unit.here.size
    for label, parts in along.items():
        parts.sort(key=lambda atom: -atom.there.stride)
        if not _is_whole(parts, lengths[label]):
            return None
    repeats = along.pop(owner)
    places = tuple((book.axis_number(label), book.size(label)) for label in along)
    chosen = [atom for parts in (*along.values(), repeats) for atom in parts]
    chosen = [atom for atom in chosen if atom is not unit]
    return record._replace(places=places), [*chosen, unit]


def _is_whole(parts: list[Atom], length: int) -> bool:
    """Whether parts, the outermost first, run once and in order over a length."""
    step = 1
    for atom in reversed(parts):
        if atom.there.stride != step:
            return False
        step *= atom.there.size
    return step == length


def tap_of(
    reader: Reader, part: tuple[int, int, int], atoms, chosen, sizes
) -> flow.Tap:
    """Where and how to take the activation from the operand.

    Args:
      reader: the product.
      part: the axis that holds the units, the first entry that does, and how many do.
      atoms: of the contracted axes, in order of the axes.
      chosen: those that the activation keeps at its end, in this order.
      sizes: the lengths of its last axes, ``(*positions, size)``.

    Returns:
      The tap.
    """
    kept = {atom.axis for atom in chosen}
    shape, number = [], {}
    for axis, dim in enumerate(reader.x.dims):
        if axis not in kept:
            shape.append(labels.length(dim))
            continue
        for atom in atoms:
            if atom.axis == axis:
                number[atom] = len(shape)
                shape.append(atom.here.size)
    last = [number[atom] for atom in chosen]
    others = [i for i in range(len(shape)) if i not in last]
    sizes = (*(shape[i] for i in others), *sizes)
    source = reader.step.inputs[reader.operand]
    place = (reader.step.address, reader.operand, source, *part)
    return flow.Tap(*place, reader.window, tuple(shape), (*others, *last), sizes)
