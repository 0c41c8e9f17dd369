"""Rules of the analysis for operations that act on every entry alone."""

import jax.numpy as jnp

from loplax.units import labels, ledger, walk

# fmt: off
IDENTITIES = frozenset({
    "convert_element_type", "copy", "copy_p", "name", "pcast", "pvary",
    "reduce_precision", "reshard", "sharding_constraint", "stop_gradient",
})
# fmt: on
"""Operations that leave a parameter the same parameter."""

SUMS = frozenset({"add", "add_any", "concatenate", "stack", "sub"})


class _Meeting:
    """What the units on the axes of two values have to do with each other."""

    def __init__(self):
        self.merges: dict[tuple[int, int], list[labels.Contact]] = {}
        self.touches: dict[tuple[int, int], list[labels.Contact]] = {}
        self.loose: list[tuple[int, labels.Value]] = []


def combine(book: ledger.Ledger, name: str, a, b, role: str | None = None):
    """The result of an element-wise operation of two values.

    Units meeting units become the same units. Units meeting a parameter own its
    entries. Units meeting data of their own length are ruled out.

    Args:
      book: the ledger.
      name: name of the operation.
      a: a value; at most one of the two has parameter axes.
      b: a value.
      role: what the parameter is to the units: ``"biases"``, ``"scales"``, or ``None``
        if it is neither.

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
    _settle_touches(book, name, meeting, role)
    for label, other in meeting.loose:
        _settle_loose(book, name, label, other)
    once(book, name, dims)
    return labels.Value(
        dims,
        origin=max(a.origin, b.origin),
        taint=a.taint | b.taint,
        reduced=_apart(book, a, b) | _apart(book, b, a),
    )


def _apart(book, statistic, value) -> frozenset[tuple[int, str]]:
    """The groups reduced into one value that do not meet their units in the other.

    A statistic that comes back to the units it was taken of is a normalisation.
    """
    met = book.units(value.dims)
    return frozenset(
        pair for pair in statistic.reduced if book.root(pair[0]) not in met
    )


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


def _widen(value: labels.Value, rank: int) -> labels.Value:
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
    left, right = book.root(one.label), book.root(two.label)
    if one.label not in book.writers:
        return two if book.is_axis(two.label) else one
    contact = labels.Contact(one, two, extent)
    if two.label in book.writers:
        if (left, *one[2:]) != (right, *two[2:]):
            meeting.merges.setdefault((left, right), []).append(contact)
    elif book.is_axis(two.label):
        meeting.touches.setdefault((left, two.label), []).append(contact)
    else:
        meeting.loose.append((left, b))
    return one


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


def _settle_touches(book, name, meeting, role) -> None:
    for (label, axis), contacts in meeting.touches.items():
        weights = book.weights(label, contacts)
        if role is None or weights is None:
            title, path = book.title(label), book.axis_path(axis)
            reason = f"{name} combines the units of {title} with the parameter {path}"
            book.drop(label, reason)
        else:
            book.record(role, label, weights)
            book.use(weights.path, (role, label, weights), name)


def _settle_loose(book, name, label, other) -> None:
    title = book.title(label)
    if label in {book.root(group) for group, _ in other.reduced}:
        return
    if other.taint or other.param:
        sources = ", ".join(sorted(other.taint | ({other.param} - {None})))
        reason = f"{name} combines the units of {title} with a function of {sources}"
        book.drop(label, reason)
    elif other.origin == labels.DATA or (other.origin and len(other.dims) < 2):
        reason = f"{name} combines the units of {title} with data that varies along"
        book.drop(label, f"{reason} them")


def elementwise(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for element-wise operations of any number of operands."""
    values = [_settled(book, step, value) for value in values]
    if len(values) == 1:
        return [_unary(book, step, values[0])]
    bias = _bare_bias(book, step, values)
    tracked = [value for value in values if book.has_axes(value)]
    others = [value for value in values if not book.has_axes(value)]
    if len(tracked) != 1:
        values = others + [book.release(value, step.name) for value in tracked]
        result = values[0]
        for value in values[1:]:
            result = combine(book, step.name, result, value)
        return [result._replace(param=None, pure=False, matmul=None)]
    plain = others[0]
    for value in others[1:]:
        plain = combine(book, step.name, plain, value)
    position = values.index(tracked[0])
    result = with_parameter(book, step.name, plain, tracked[0], position)
    if bias is not None and book.units(result.dims):
        _note_bias(book, bias, tracked[0])
    return [result]


def with_parameter(book, name, plain, param, position) -> labels.Value:
    """A value combined with a parameter, which may be a bias or a scale of units."""
    multiplies = name == "mul" or (name == "div" and position == 1)
    role = "biases" if name in SUMS else "scales" if multiplies else None
    if book.units(plain.dims):
        role, before = None if param.taint else role, len(book.records)
        result = combine(book, name, plain, param, role)
        if len(book.records) == before:
            book.use(param.param, ("other", name), name)
        rest = {i: labels.FREE for i in labels.found(result.dims) if book.is_axis(i)}
        dims = labels.rename(result.dims, rest)
        return result._replace(dims=dims, origin=labels.DATA)
    linear = name == "mul" or (name == "div" and position == 0)
    if linear and _keeps_axes(book, param, plain):
        return combine(book, name, plain, param)._replace(param=param.param)
    return combine(book, name, plain, book.release(param, name))


def _keeps_axes(book, param, plain) -> bool:
    """Whether a multiple of the parameter can still be followed."""
    if plain.taint:
        return False
    if plain.origin <= labels.VECTOR or plain.reduced or not plain.dims:
        return True
    for dim, other in zip(param.dims, plain.dims, strict=True):
        varies = labels.found((other,)) - {labels.SAME}
        if varies and any(map(book.is_axis, labels.found((dim,)))):
            return False
    return True


def _settled(book, step, value) -> labels.Value:
    """Gives up a parameter none of whose axes is left, unless it is a scalar."""
    if value.param is None or book.has_axes(value):
        return value
    if labels.found(value.dims) <= {labels.SAME}:
        return value
    return book.release(value, step.name)


def _unary(book, step, value) -> labels.Value:
    real = jnp.issubdtype(step.avals[0].dtype, jnp.inexact)
    if step.name in IDENTITIES and (real or not book.has_axes(value)):
        return value
    if step.name == "neg" and book.has_axes(value):
        return value._replace(pure=False)
    return book.release(value, step.name)._replace(matmul=None)


def identity(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for operations that return all their operands."""
    del book, step
    return values


def _bare_bias(book, step, values) -> int | None:
    """Number of the product whose bare output a pure parameter is added to."""
    if step.name not in ("add", "add_any") or len(values) != 2:
        return None
    a, b = values if values[1].param else values[::-1]
    if a.matmul is None or b.param is None or not b.pure:
        return None
    scalar = book.parameter_size(b.param) == 1
    if book.products[a.matmul] == () and scalar:
        book.use(b.param, ("bias", a.matmul), step.name)
        book.product_bias[a.matmul] = b.param
    return a.matmul


def _note_bias(book, matmul, param) -> None:
    outputs = {book.root(label) for label in book.products[matmul] or ()}
    touched = [r for r in book.records if r.weights.path == param.param]
    met = {book.root(r.label) for r in touched if r.role == "biases"}
    axes = [size for size in book.shapes[param.param] if size > 1]
    if outputs and met == outputs and len(axes) == len(outputs):
        book.product_bias[matmul] = param.param


def concatenate(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for joining values along one axis; along the others they combine."""
    axis = step.params["dimension"]
    joined = [value.dims[axis] for value in values]
    tracked = [value for value in values if book.has_axes(value)]
    along = any(map(book.is_axis, labels.found(tuple(joined))))
    if along or len(tracked) > 1:
        values = [book.release(v, step.name) for v in values]
        joined = [value.dims[axis] for value in values]
    rest = [
        v._replace(dims=v.dims[:axis] + labels.same((1,)) + v.dims[axis + 1 :])
        for v in values
    ]
    result = elementwise(book, step, rest)[0]
    dims = list(result.dims)
    dims[axis] = labels.concatenate(joined)
    once(book, step.name, tuple(dims))
    return [result._replace(dims=tuple(dims))]


def stack(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for joining values along a new axis."""
    axis, one = step.params["axis"], labels.same((1,))
    values = [v._replace(dims=v.dims[:axis] + one + v.dims[axis:]) for v in values]
    return concatenate(book, step._replace(params={"dimension": axis}), values)
