"""What becomes of units where two values meet entry by entry."""

from collections.abc import Callable
from typing import Any

from loplax.units import flow, labels, ledger

Touch = Callable[[int, Any], None]
"""Takes a group and the parameter axis that its units lie on."""


class _Meeting:
    """What the units on the axes of two values have to do with each other."""

    def __init__(self):
        self.merges: dict[tuple[int, int], list[labels.Contact]] = {}
        self.touches: dict[tuple[int, int], list[labels.Contact]] = {}
        self.loose: list[tuple[int, flow.Value]] = []


def combine(book: ledger.Ledger, name: str, a, b, touch: Touch | None = None):
    """The result of an element-wise operation of two values.

    Units meeting units become the same units. Units meeting a parameter may own its
    entries. Units meeting anything else that varies along them are ruled out, but for
    constants, and statistics of the very block of units that they are in.

    Args:
      book: the ledger.
      name: name of the operation.
      a: a value; at most one of the two has parameter axes.
      b: a value.
      touch: what is done with units that lie on a parameter; ``None`` rules them out.

    Returns:
      The value; parameter axes that meet no units stay on it.
    """
    rank = max(len(a.dims), len(b.dims))
    a, b = _widen(a, rank), _widen(b, rank)
    meeting = _Meeting()
    dims = tuple(
        _meet(book, name, meeting, (a, b), pair)
        for pair in zip(a.dims, b.dims, strict=True)
    )
    _settle_merges(book, name, meeting)
    _settle_touches(book, name, meeting, touch)
    for label, other in meeting.loose:
        _settle_loose(book, name, label, other)
    once(book, name, dims)
    return flow.Value(
        dims,
        origin=max(a.origin, b.origin),
        taint=a.taint | b.taint,
        reduced=_apart(book, a, b) | _apart(book, b, a),
    )


def _apart(book, statistic, value) -> frozenset[flow.Reduced]:
    """The groups reduced into one value that do not meet their units in the other.

    A statistic that comes back to the units it was taken of couples them.
    """
    met, apart = book.units(value.dims), set()
    for entry in statistic.reduced:
        if book.root(entry.label) not in met:
            apart.add(entry)
            continue
        size = book.size(entry.label)
        # Units that are reduced and no neighbours count as a block each.
        words = {1: "the units", size: "some of the units"}
        what = words.get(entry.blocks, f"every {size // entry.blocks} units")
        book.bind(entry.label, entry.blocks, coupled=f"{entry.name} over {what}")
    return frozenset(apart)


def once(book: ledger.Ledger, name: str, dims: tuple[labels.Dim, ...]) -> None:
    """Rules out groups whose units lie on two axes of one value."""
    seen: set[int] = set()
    for dim in dims:
        full = {
            book.root(f.label)
            for segment in dim
            for f in segment
            if f.label in book.writers and f.size == book.size(f.label)
        }
        for label in full & seen:
            title = book.title(label)
            book.drop(label, f"{name} lays the units of {title} along two axes")
        seen |= full


def _widen(value: flow.Value, rank: int) -> flow.Value:
    return value if value.dims else value._replace(dims=labels.same((1,) * rank))


def _meet(book, name, meeting, values, dims) -> labels.Dim:
    matched = labels.match(*dims)
    if matched is None:
        book.drop_all(dims, f"{name} meets {{}} with axes that do not fit")
        return labels.plain(max(map(labels.length, dims)), labels.FREE)
    result = []
    for segment in matched:
        cut = len(matched) > 1
        extent = labels.size(tuple(pair[0] for pair in segment)) if cut else None
        factors = [_pair(book, meeting, values, pair, extent) for pair in segment]
        result.append(labels.tidy(factors))
    return tuple(result)


def _pair(book, meeting, values, pair, extent) -> labels.Factor:
    (one, two), (a, b) = pair, values
    if labels.SAME in (one.label, two.label):
        return two if one.label == labels.SAME else one
    if two.label in book.writers and one.label not in book.writers:
        one, two, a, b = two, one, b, a
    if one.label not in book.writers:
        return _pair_without_units(book, one, two)
    left, right = book.root(one.label), book.root(two.label)
    contact = labels.Contact(one, two, extent)
    if two.label in book.writers:
        if (left, *one[2:]) != (right, *two[2:]):
            meeting.merges.setdefault((left, right), []).append(contact)
    elif book.is_axis(two.label):
        meeting.touches.setdefault((left, two.label), []).append(contact)
    elif (book.statistic_of(two.label), *two[2:]) != (left, *one[2:]):
        meeting.loose.append((left, b))
    return one


def _pair_without_units(book, one, two) -> labels.Factor:
    if book.is_axis(two.label):
        return two
    groups = [book.statistic_of(factor.label) for factor in (one, two)]
    alike = groups[0] == groups[1] and one[2:] == two[2:]
    if book.is_axis(one.label) or alike:
        return one
    return labels.Factor(one.size, labels.FREE)


def _settle_merges(book, name, meeting) -> None:
    for (left, right), contacts in meeting.merges.items():
        size = book.size(left)
        fits = left != right and size == book.size(right)
        if fits and book.covers(contacts, size) == 1:
            book.merge(left, right)
            continue
        titles = f"{book.title(left)} and {book.title(right)}"
        for label in (left, right):
            book.drop(label, f"{name} mixes the units of {titles}")


def _settle_touches(book, name, meeting, touch) -> None:
    for (label, axis), contacts in meeting.touches.items():
        weights = book.weights(label, contacts)
        if touch is None or weights is None:
            title, path = book.title(label), book.axis_path(axis)
            reason = f"{name} combines the units of {title} with the parameter {path}"
            book.drop(label, reason)
        else:
            touch(label, weights)


def _settle_loose(book, name, label, other) -> None:
    title = book.title(label)
    example = other.origin == labels.VECTOR and len(other.dims) < 2
    if other.taint or other.param:
        sources = ", ".join(sorted(other.taint | ({other.param} - {None})))
        reason = f"{name} combines the units of {title} with a function of {sources}"
        book.drop(label, reason)
    elif other.origin == labels.DATA or (example and not book.batched):
        reason = f"{name} combines the units of {title} with data that varies along"
        book.drop(label, f"{reason} them{book.hint if example else ''}")
    else:
        book.tie(label, [other.origin])
