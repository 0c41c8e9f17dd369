"""Scales of units, and depthwise kernels written as sums of shifted products.

In ``sum(x[:, i : i + n] * w[i] for i in range(3))`` every product looks like a scale of
the units. Only their sum tells that ``w`` is a kernel, so products with a part of a
parameter, or with several numbers per unit, wait for what becomes of them.
"""

import math

from loplax.units import flow, groups, labels, ledger, meet, walk


def scale(book: ledger.Ledger, step: walk.Step, plain, param) -> flow.Value:
    """Units times a parameter that lies along them: a scale, or a term of a kernel.

    Args:
      book: the ledger.
      step: the operation.
      plain: a value with units.
      param: a multiple of a parameter with units on some of its axes.

    Returns:
      The product.
    """
    held: list[tuple[int, groups.WeightAxis]] = []
    touch = lambda label, weights: held.append((label, weights))
    result = meet.combine(book, step.name, plain, param, touch)
    result, path = book.without_axes(result), param.param
    met = {weights.axis for _, weights in held}
    open_axes = _open(book, param, met)
    known = met | {axis for axis, _ in (*open_axes, *param.part)}
    several = open_axes or param.part
    whole = known == {i for i, n in enumerate(book.shapes[path]) if n > 1}
    if held and whole and len(met) == 1 and not several:
        for label, weights in held:
            book.own("scales", label, weights, step.name, step.outputs[0])
        return result
    if step.name == "mul" and whole and len(held) == 1 and _is_plain(book, *held[0]):
        places = all(
            labels.FREE in labels.found((plain.dims[i],)) for _, i in open_axes
        )
        parts = frozenset([param.part])
        terms = flow.Terms(*held[0], parts, open_axes, places, step.outputs[0])
        return result._replace(terms=terms)
    book.use(path, ("other", step.name), step.name)
    for label, _ in held:
        _refuse(book, label, path, step.name)
    return result


def _refuse(book, label, path, name) -> None:
    title = book.title(label)
    reason = f"{name} multiplies the units of {title} by a part of {path} or by several"
    book.drop(label, f"{reason} numbers per unit, which is no scale")


def _open(book, param, met) -> tuple[tuple[int, int], ...]:
    """The parameter's axes that do not run along the units, and where they lie."""
    found = {
        (book.axis_number(label), i)
        for i, dim in enumerate(param.dims)
        for label in labels.found((dim,))
        if book.is_axis(label)
    }
    return tuple(sorted(place for place in found if place[0] not in met))


def _is_plain(book, label, weights) -> bool:
    size = book.shapes[weights.path][weights.axis]
    return size == book.size(label) and (*weights.repeat, weights.start) == (1, 1, 0)


def settle(book: ledger.Ledger, name: str, value: flow.Value) -> flow.Value:
    """Decides about products that add up to no kernel.

    Args:
      book: the ledger.
      name: the operation that does something else with them.
      value: the value.

    Returns:
      The value without terms: one whole number per unit and place is a scale.
    """
    terms = value.terms
    if terms is None:
        return value
    if terms.places and terms.parts == {frozenset()}:
        book.own("scales", terms.label, terms.weights, "mul", terms.step)
    else:
        book.use(terms.weights.path, ("other", name), name)
        _refuse(book, terms.label, terms.weights.path, "mul")
    return value._replace(terms=None)


def join(book: ledger.Ledger, step: walk.Step, values: list[flow.Value], keeps: bool):
    """The terms of a sum.

    Args:
      book: the ledger.
      step: the operation.
      values: its operands.
      keeps: whether the operation changes nothing.

    Returns:
      The operands without terms, and the terms of the result or ``None``.
    """
    terms = [value.terms for value in values if value.terms is not None]
    if not terms:
        return values, None
    joined = terms[0] if keeps else None
    if step.name in ("add", "add_any"):
        joined = _sum(book, values, terms)
    if joined is not None:
        return [value._replace(terms=None) for value in values], joined
    return [settle(book, step.name, value) for value in values], None


def _sum(book, values, terms) -> flow.Terms | None:
    if len(terms) == 1:
        (other,) = [value for value in values if value.terms is None]
        return None if book.units(other.dims) else terms[0]
    one, two = terms
    alike = book.root(one.label) == book.root(two.label) and one.weights == two.weights
    if alike and not (one.open or two.open or one.parts & two.parts):
        return one._replace(parts=one.parts | two.parts)
    return None


def summed(book: ledger.Ledger, step: walk.Step, value: flow.Value):
    """The terms of a sum over axes, as `join`."""
    terms, axes = value.terms, step.params["axes"]
    if terms is None:
        return value, None
    kept = tuple(dim for i, dim in enumerate(value.dims) if i not in axes)
    closes = terms.open and {i for _, i in terms.open} <= set(axes)
    along = book.root(terms.label) in book.units(kept)
    if step.name == "reduce_sum" and closes and along:
        return value._replace(terms=None), terms._replace(open=())
    return settle(book, step.name, value), None


def attach(book: ledger.Ledger, step: walk.Step, value, terms) -> flow.Value:
    """A value with its terms; all entries of a parameter make it a kernel."""
    if terms is None:
        return value
    path = terms.weights.path
    axes = {axis for part in terms.parts for axis, _ in part}
    entries = math.prod(book.shapes[path][axis] for axis in axes)
    if terms.open or len(terms.parts) < entries:
        return value._replace(terms=terms)
    book.record("incoming", terms.label, terms.weights)
    book.use(path, ("kernel", terms.label, step.outputs[0]), step.name)
    return value
