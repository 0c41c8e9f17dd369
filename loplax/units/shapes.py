"""Rules of the analysis for operations that move, cut or reduce axes."""

import math

from loplax.units import labels, ledger, walk


def _lost(book, step, value, dims) -> labels.Value:
    """Rules out the groups that are on ``value`` but no longer on ``dims``."""
    for label in book.units(value.dims) - book.units(dims):
        reason = f"{step.name} cuts or mixes the units of {book.title(label)}"
        book.drop(label, reason)
    return value._replace(dims=dims)


def transpose(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for permuting the axes."""
    del book
    order = step.params["permutation"]
    return [values[0]._replace(dims=tuple(values[0].dims[i] for i in order))]


def reshape(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for row-major reshapes."""
    (value,) = values
    if step.params["dimensions"] is not None:
        value = value._replace(
            dims=tuple(value.dims[i] for i in step.params["dimensions"])
        )
    dims = labels.reshape(value.dims, step.avals[0].shape)
    return [_lost(book, step, value, dims)]


def squeeze(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for removing axes of length one."""
    del book
    gone = {i % len(values[0].dims) for i in step.params["dimensions"]}
    kept = [dim for i, dim in enumerate(values[0].dims) if i not in gone]
    return [values[0]._replace(dims=tuple(kept))]


def broadcast_in_dim(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for adding axes and repeating along axes of length one."""
    del book
    shape = step.avals[0].shape
    dims = list(labels.same(shape))
    targets = step.params["broadcast_dimensions"]
    for dim, target in zip(values[0].dims, targets, strict=True):
        if labels.length(dim) == shape[target]:
            dims[target] = dim
    return [values[0]._replace(dims=tuple(dims))]


def tile(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for repeating whole axes end to end."""
    (value,) = values
    dims = tuple(
        dim if times == 1 else labels.tile(dim, times)
        for dim, times in zip(value.dims, step.params["reps"], strict=True)
    )
    return [_lost(book, step, value, dims)]


def keep_where(book, step, value, keep) -> labels.Value:
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


def cut(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for slices; an axis that is not cut keeps its labels."""
    value, *indices = values
    for index in indices:
        book.drop_all(index.dims, f"{step.name} looks up {{}}")
        book.drop_reduced(index, step.name)
        value = value._replace(origin=max(value.origin, index.origin))
    shape = step.avals[0].shape
    keep = [labels.length(d) == n for d, n in zip(value.dims, shape, strict=True)]
    return [keep_where(book, step, value, keep)._replace(pure=False)]


def split(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for cutting one axis into parts."""
    results = []
    for aval in step.avals:
        part = step._replace(avals=(aval,))
        results.extend(cut(book, part, values))
    return results


def unstack(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for taking one axis apart."""
    (value,), axis = values, step.params["axis"]
    dims = value.dims[:axis] + value.dims[axis + 1 :]
    part = _lost(book, step, value, dims)._replace(pure=False, matmul=None)
    return [part] * len(step.avals)


def reverse(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for reversing axes."""
    gone = step.params["dimensions"]
    keep = [i not in gone for i in range(len(values[0].dims))]
    return [keep_where(book, step, values[0], keep)._replace(pure=False)]


def pad(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
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


def reduce(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for sums, maxima and the like over whole axes."""
    value = book.release(values[0], step.name)
    axes = step.params["axes"]
    gone = tuple(dim for i, dim in enumerate(value.dims) if i in axes)
    kept = tuple(dim for i, dim in enumerate(value.dims) if i not in axes)
    summed = book.units(gone)
    # What is left of an axis of which a part was summed, as in a group norm.
    rest = {i: labels.FREE for i in labels.found(kept) if book.root(i) in summed}
    kept = labels.rename(kept, rest)
    reduced = {(label, step.name) for label in summed}
    return [
        value._replace(dims=kept, reduced=value.reduced | reduced, matmul=None),
    ]


def along(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
    """Rule for cumulative operations: units on other axes stay apart."""
    axis = step.params["axis"]
    value = book.release(values[0], step.name)
    keep = [i != axis for i in range(len(value.dims))]
    return [keep_where(book, step, value, keep)]


def window(book: ledger.Ledger, step: walk.Step, values: list[labels.Value]):
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
