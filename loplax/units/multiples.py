"""Parameters that are followed through products, until they meet units."""

from loplax.units import flow, kernels, labels, ledger, meet, walk

SUMS = frozenset({"add", "add_any", "concatenate", "stack", "sub"})


def fold(book: ledger.Ledger, name: str, value: flow.Value) -> flow.Value:
    """Gives up following a parameter that is multiplied with more than constants."""
    if value.factor is None:
        return value
    param = book.release(value._replace(factor=None), name)
    return meet.combine(book, name, value.factor, param)


def with_parameter(book, step: walk.Step, plain, param, position) -> flow.Value:
    """A value combined with a parameter, which may be a bias or a scale of units.

    Products are put off until the parameter meets units, so that ``h * (a * scale)`` is
    the same as ``(h * a) * scale``.

    Args:
      book: the ledger.
      step: the operation.
      plain: the value.
      param: a multiple of a parameter.
      position: which operand the parameter is.

    Returns:
      The value, or the parameter with one factor more.
    """
    name, shape = step.name, step.avals[0].shape
    if param.through and _meets(book, plain, param):
        return meet.combine(book, name, plain, book.release(param, name))
    if _meets(book, plain, param):
        return _touch(book, step, plain, param, position)
    if name == "mul" or (name == "div" and position == 0):
        if _is_constant(plain):
            return _absorb(book, name, plain, param)
        if _may_wait(book, plain, param):
            factor = plain._replace(dims=labels.spread(plain.dims, shape))
            dims = labels.spread(param.dims, shape)
            return param._replace(dims=dims, factor=factor, pure=False)
    if name in ("add", "add_any", "sub") and _is_shift(plain):
        dims = labels.spread(param.dims, shape)
        return param._replace(dims=dims, pure=False, shifted=True)
    return meet.combine(book, name, plain, book.release(param, name))


def _meets(book, plain, param) -> bool:
    dims = plain.dims or labels.same((1,) * len(param.dims))
    return any(
        any(map(book.is_axis, labels.found((one,)))) and book.units((two,))
        for one, two in zip(param.dims, dims, strict=True)
    )


def _touch(book, step, plain, param, position) -> flow.Value:
    """Units and a parameter that lies along them."""
    name = step.name
    multiplies = name == "mul" or (name == "div" and position == 1)
    for label in book.units(plain.dims) if param.ties else ():
        book.tie(label, [origin for _, origin in param.ties])
    if multiplies and not param.taint:
        return kernels.scale(book, step, plain, param)

    def own(label, weights):
        book.own("biases", label, weights, name, step.outputs[0])

    before = len(book.records)
    touch = own if name in SUMS and not param.taint else None
    result = meet.combine(book, name, plain, param, touch)
    if len(book.records) == before:
        book.use(param.param, ("other", name), name)
    return book.without_axes(result)


def _is_constant(plain) -> bool:
    quiet = not plain.taint and not plain.reduced
    return plain.origin <= labels.NOISE and quiet


def _is_shift(plain) -> bool:
    quiet = not plain.taint and not plain.reduced and plain.origin <= labels.VECTOR
    return quiet and labels.found(plain.dims) <= {labels.SAME}


def _absorb(book, name, plain, param) -> flow.Value:
    """A parameter times constants."""
    joined = meet.combine(book, name, plain, param)
    varies = {
        (book.axis_number(label), plain.origin)
        for one, two in zip(param.dims, plain.dims, strict=bool(plain.dims))
        if labels.found((two,)) - {labels.SAME}
        for label in labels.found((one,))
        if book.is_axis(label)
    }
    return param._replace(
        dims=joined.dims,
        origin=joined.origin,
        pure=False,
        ties=param.ties | varies,
    )


def _may_wait(book, plain, param) -> bool:
    """Whether nothing but statistics and vectors varies along the parameter's axes."""
    if not plain.dims:
        return True
    vector = plain.origin == labels.VECTOR and not plain.taint
    return all(
        label == labels.SAME
        or (label == labels.FREE and vector)
        or book.statistic_of(label) is not None
        for one, two in zip(param.dims, plain.dims, strict=True)
        if any(map(book.is_axis, labels.found((one,))))
        for label in labels.found((two,))
    )
