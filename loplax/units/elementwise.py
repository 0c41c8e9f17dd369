"""Rules of the analysis for operations that act on every entry alone."""

import functools

import jax.numpy as jnp

from loplax.units import flow, kernels, labels, latent, ledger, meet, multiples, walk
from loplax.units.latent import IDENTITIES


def elementwise(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for element-wise operations of any number of operands."""
    keeps = len(values) == 1 and step.name in IDENTITIES
    values, terms = kernels.join(book, step, values, keeps)
    values = [_settled(book, step, value) for value in values]
    result = _result(book, step, values)
    if result.param or not (result.origin or result.taint):
        found = latent.number(step, values)
        shifted = found is None or bool(found != 0)
        shifted = shifted if result.through else result.shifted
        result = result._replace(number=found, shifted=shifted)
    return [kernels.attach(book, step, result, terms)]


def _result(book, step, values) -> flow.Value:
    if len(values) == 1 and step.name in IDENTITIES:
        real = jnp.issubdtype(step.avals[0].dtype, jnp.inexact)
        if real or not book.has_axes(values[0]):
            return values[0]
    found = latent.function(book, step, values)
    return _combined(book, step, values) if found is None else found


def _combined(book, step, values) -> flow.Value:
    """What meets entry by entry, where it is no function of one parameter."""
    if len(values) == 1:
        return _unary(book, step, values[0])
    bias = _bare_bias(book, step, values)
    tracked = [value for value in values if book.has_axes(value)]
    others = [value for value in values if not book.has_axes(value)]
    if len(tracked) == 1:
        result = _with_one(book, step, others, tracked[0], values.index(tracked[0]))
    else:
        tracked = [multiples.fold(book, step.name, value) for value in tracked]
        values = others + [book.release(value, step.name) for value in tracked]
        result = functools.reduce(
            functools.partial(meet.combine, book, step.name), values
        )
    if bias is not None and len(tracked) == 1 and book.units(result.dims):
        _note_bias(book, bias, tracked[0])
    return result


def _with_one(book, step, others, param, position) -> flow.Value:
    """A followed parameter and values that are none."""
    if param.factor is not None:
        others, param = [*others, param.factor], param._replace(factor=None)
    combine = functools.partial(meet.combine, book, step.name)
    plain = functools.reduce(combine, others)
    return multiples.with_parameter(book, step, plain, param, position)


def _settled(book, step, value) -> flow.Value:
    """Gives up a parameter none of whose axes is left, unless it is a scalar."""
    if value.param is None or book.has_axes(value):
        return value
    if labels.found(value.dims) <= {labels.SAME}:
        return value._replace(number=None)  # no more 0 than the others are
    return book.release(value, step.name)


def _unary(book, step, value) -> flow.Value:
    if step.name == "neg" and book.has_axes(value):
        return value._replace(pure=False)
    value = multiples.fold(book, step.name, value)
    return book.release(value, step.name)._replace(matmul=None)


def identity(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
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


def concatenate(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for joining values along one axis; along the others they combine."""
    if len(values) == 1:
        return values
    axis = step.params["dimension"]
    # Scalars that are laid side by side vary along the axis.
    values = [
        v._replace(taint=v.taint | {v.param}) if v.param and not book.has_axes(v) else v
        for v in values
    ]
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
    rest = [_settled(book, step, value) for value in rest]
    result = _combined(book, step, rest)
    dims = list(result.dims)
    dims[axis] = labels.concatenate(joined)
    meet.once(book, step.name, tuple(dims))
    return [result._replace(dims=tuple(dims))]


def stack(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for joining values along a new axis."""
    axis, one = step.params["axis"], labels.same((1,))
    values = [v._replace(dims=v.dims[:axis] + one + v.dims[axis:]) for v in values]
    return concatenate(book, step._replace(params={"dimension": axis}), values)
