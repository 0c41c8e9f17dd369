"""Rules of the analysis for operations that move, cut or reduce axes."""

import math

from loplax.units import flow, kernels, labels, ledger, multiples, walk


def _lost(book, step, value, dims) -> flow.Value:
    """Rules out the groups that are on ``value`` but no longer on ``dims``."""
    for label in book.units(value.dims) - book.units(dims):
        reason = f"{step.name} cuts or mixes the units of {book.title(label)}"
        book.drop(label, reason)
    return value._replace(dims=dims)


def transpose(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for permuting the axes."""
    del book
    order = step.params["permutation"]
    return [values[0]._replace(dims=tuple(values[0].dims[i] for i in order))]


def reshape(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for row-major reshapes."""
    (value,) = values
    if step.params["dimensions"] is not None:
        value = value._replace(
            dims=tuple(value.dims[i] for i in step.params["dimensions"])
        )
    dims = labels.reshape(value.dims, step.avals[0].shape)
    return [_lost(book, step, value, dims)]


def squeeze(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for removing axes of length one."""
    del book
    gone = {i % len(values[0].dims) for i in step.params["dimensions"]}
    kept = [dim for i, dim in enumerate(values[0].dims) if i not in gone]
    return [values[0]._replace(dims=tuple(kept))]


def broadcast_in_dim(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for adding axes and repeating along axes of length one."""
    del book
    shape = step.avals[0].shape
    dims = list(labels.same(shape))
    targets = step.params["broadcast_dimensions"]
    for dim, target in zip(values[0].dims, targets, strict=True):
        if labels.length(dim) == shape[target]:
            dims[target] = dim
    return [values[0]._replace(dims=tuple(dims))]


def tile(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for repeating whole axes end to end."""
    (value,) = values
    dims = tuple(
        dim if times == 1 else labels.tile(dim, times)
        for dim, times in zip(value.dims, step.params["reps"], strict=True)
    )
    return [_lost(book, step, value, dims)]


def keep_where(book, step, value, keep) -> flow.Value:
    """Keeps the labels of the axes that stay whole and frees the others.

    Args:
      book: the ledger.
      step: the operation.
      value: its operand.
      keep: for each axis, whether all its entries stay, in order.

    Returns:
      The result; groups on the axes that do not stay are ruled out.
    """
    shape = step.avals[0].shape
    dims = tuple(
        dim if kept else labels.plain(size, labels.FREE)
        for dim, kept, size in zip(value.dims, keep, shape, strict=True)
    )
    return _lost(book, step, value, dims)._replace(matmul=None)


def cut(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for slices; an axis that is not cut keeps its labels."""
    value, *indices = values
    for index in indices:
        book.drop_all(index.dims, f"{step.name} looks up {{}}")
        book.drop_reduced(index, step.name)
        index = book.release(index, step.name)
        value = value._replace(
            origin=max(value.origin, index.origin), taint=value.taint | index.taint
        )
    starts = step.params.get("start_indices", [-1] * len(value.dims))
    return [_piece(book, step, value, starts)]


def _piece(book, step, value, starts) -> flow.Value:
    """What is cut out of a value from the given starts; -1 is not known."""
    shape = step.avals[0].shape
    keep = [labels.length(d) == n for d, n in zip(value.dims, shape, strict=True)]
    part = value.part
    for dim, kept, start, n in zip(value.dims, keep, starts, shape, strict=True):
        part |= set() if kept else entries(book, dim, start if n == 1 else -1)
    made = keep_where(book, step, value, keep)
    return made._replace(pure=False, part=part if value.param else frozenset())


def entries(book, dim: labels.Dim, index: int) -> set[tuple[int, int]]:
    """Which entries of a parameter's axes an entry of an axis is.

    Args:
      book: the ledger.
      dim: the axis.
      index: the entry, or -1 if it is not one that is known.

    Returns:
      ``(parameter axis, index)`` of each, with index -1 where it is not known.
    """
    found = [factor for segment in dim for factor in segment]
    axes = {f.label for f in found if book.is_axis(f.label)}
    whole = all(f.size == book.size(f.label) for f in found if f.label in axes)
    if index < 0 or len(dim) > 1 or not whole:
        return {(book.axis_number(label), -1) for label in axes}
    result = set()
    for factor in reversed(found):
        index, entry = divmod(index, factor.size)
        if factor.label in axes:
            result.add((book.axis_number(factor.label), int(entry)))
    return result


def split(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for cutting one axis into parts."""
    (value,), axis, start, results = values, step.params["axis"], 0, []
    for aval in step.avals:
        starts = [start if i == axis else 0 for i in range(len(value.dims))]
        results.append(_piece(book, step._replace(avals=(aval,)), value, starts))
        start += aval.shape[axis]
    return results


def unstack(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for taking one axis apart."""
    (value,), axis = values, step.params["axis"]
    dims = value.dims[:axis] + value.dims[axis + 1 :]
    made = _lost(book, step, value, dims)._replace(pure=False, matmul=None)
    if value.param is None:
        return [made] * len(step.avals)
    gone = [entries(book, value.dims[axis], i) for i in range(len(step.avals))]
    return [made._replace(part=value.part | part) for part in gone]


def reverse(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for reversing axes."""
    gone = step.params["dimensions"]
    keep = [i not in gone for i in range(len(values[0].dims))]
    return [keep_where(book, step, values[0], keep)._replace(pure=False)]


def pad(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for padding; an axis without padding keeps its labels."""
    value = book.release(values[0], step.name)
    filler = book.release(values[1], step.name)
    keep = [not any(amounts) for amounts in step.params["padding_config"]]
    value = keep_where(book, step, value, keep)
    return [
        value._replace(
            origin=max(value.origin, filler.origin),
            taint=value.taint | filler.taint,
            reduced=value.reduced | filler.reduced,
        )
    ]


def reduce(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for sums, maxima and the like over whole axes."""
    value, terms = kernels.summed(book, step, values[0])
    value = book.release(multiples.fold(book, step.name, value), step.name)
    axes = step.params["axes"]
    gone = tuple(dim for i, dim in enumerate(value.dims) if i in axes)
    kept = tuple(dim for i, dim in enumerate(value.dims) if i not in axes)
    summed = book.units(gone)
    reduced = set()
    for label in summed:
        # A position stays where it is when units change places.
        position = step.name in ("argmax", "argmin")
        blocks = book.size(label) if position else _blocks(book, gone, label)
        reduced.add(flow.Reduced(label, step.name, blocks))
    # What is left of an axis of which a part was summed, as in a group norm.
    left = {i for i in labels.found(kept) if book.root(i) in summed}
    kept = labels.rename(kept, {i: book.statistic(i) for i in left})
    value = value._replace(dims=kept, reduced=value.reduced | reduced, matmul=None)
    return [kernels.attach(book, step, value, terms)]


def _blocks(book, gone, label) -> int:
    """How many blocks of neighbouring units are reduced each on its own."""
    factors = [f for dim in gone for segment in dim for f in segment]
    factors = [f for f in factors if book.root(f.label) == label]
    length, size = 1, book.size(label)
    for factor in sorted(factors, key=lambda f: f.stride):
        if factor.stride != length:
            return size
        length *= factor.size
    return size // length if size % length == 0 else size


def along(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for cumulative operations: units on other axes stay apart."""
    axis = step.params["axis"]
    value = book.release(values[0], step.name)
    keep = [i != axis for i in range(len(value.dims))]
    return [keep_where(book, step, value, keep)]


def window(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for pooling: units on axes that are not pooled stay apart."""
    value = book.release(values[0], step.name)
    names = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    sizes = [step.params[name] for name in names]
    padding = step.params["padding"]
    keep = [
        math.prod(ones) == 1 and not any(pads)
        for *ones, pads in zip(*sizes, padding, strict=True)
    ]
    return [keep_where(book, step, value, keep)]
