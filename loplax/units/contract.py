"""Rules of the analysis for operations in which activations meet weights."""

from loplax.units import flow, groups, labels, ledger, meet, readers, shapes, walk


def opaque(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for all operations that are not followed: what enters is ruled out."""
    name = f"{step.name} inside {step.custom}" if step.custom else step.name
    origin = max((value.origin for value in values), default=labels.CONST)
    origin = labels.DATA if origin > labels.NOISE else origin
    taint: frozenset[str] = frozenset()
    for value in values:
        book.drop_all(value.dims, f"{{}} enter {name}, which is not followed")
        book.drop_reduced(value, name)
        origin = labels.DATA if book.units(value.dims) else origin
        taint |= book.release(value, name).taint
    return [
        flow.Value(labels.free(aval.shape), origin, taint=taint) for aval in step.avals
    ]


def noise(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for random numbers: whatever the key, they are no data."""
    if any(book.units(v.dims) or v.reduced or v.param or v.taint for v in values):
        return opaque(book, step, values)
    origin = labels.CONST if step.name == "iota" else labels.NOISE
    return [flow.Value(labels.free(aval.shape), origin) for aval in step.avals]


def shaped_noise(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for random numbers whose distribution is given beside the key."""
    origin = max(value.origin for value in values[1:])
    if origin == labels.DATA:
        return opaque(book, step, values)
    made = noise(book, step, values)
    return [value._replace(origin=max(origin, value.origin)) for value in made]


def _is_weight(book, value) -> bool:
    plain = value.origin <= labels.NOISE and not value.taint and not value.reduced
    followed = value.param is not None and not value.shifted
    return plain and followed and book.has_axes(value)


def _how(step, value) -> str:
    """How a parameter enters that is no weight, for messages."""
    moved = ", not known to be 0 where it is 0," if value.shifted else ""
    return f"{step.name}{moved}"


def dot_general(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for matrix products of activations with weights, or with activations."""
    contracted, batched = step.params["dimension_numbers"]
    kept = [
        [i for i in range(len(v.dims)) if i not in (*contracted[k], *batched[k])]
        for k, v in enumerate(values)
    ]
    weights = [_is_weight(book, v) for v in values]
    if sum(weights) == 1:
        side = weights.index(True)
        batch = tuple(values[side].dims[i] for i in batched[side])
        if step.custom or not labels.found(batch) <= {labels.SAME}:
            return opaque(book, step, values)
        matmul = _apply(book, step, values, side, contracted, kept[side])
        values = list(values)
        values[side], matmul = matmul
        values[1 - side] = book.release(values[1 - side], step.name)
    else:
        values = [book.release(value, _how(step, value)) for value in values]
        matmul = None
        _mix(book, step, values, contracted)
    return [_outer(book, step, values, batched, kept)._replace(matmul=matmul)]


def _outer(book, step, values, batched, kept) -> flow.Value:
    """The uncontracted axes of both operands: batch, left, right."""
    spread = []
    for k, value in enumerate(values):
        parts = [tuple(value.dims[i] for i in batched[k])]
        for j in range(2):
            dims = [values[j].dims[i] for i in kept[j]]
            blank = labels.same(tuple(map(labels.length, dims)))
            parts.append(tuple(dims) if j == k else blank)
        spread.append(value._replace(dims=sum(parts, ())))
    return meet.combine(book, step.name, *spread)


def _mix(book, step, values, contracted) -> None:
    """Units that are contracted with no parameter are ruled out."""
    for value, axes in zip(values, contracted, strict=True):
        dims = tuple(value.dims[i] for i in axes)
        taint = ", ".join(sorted(values[0].taint | values[1].taint))
        partner = f"a function of {taint}" if taint else "something that is no weight"
        book.drop_all(dims, f"{step.name} contracts {{}} with {partner}")
        book.drop_reduced(value, step.name)


def _apply(book, step, values, side, contracted, kept):
    """Notes the readers and writers of a product; returns its weights and number."""
    x, weights = values[1 - side], values[side]
    outputs, names = births(book, step, weights, kept)
    matmul = book.product(weights.param, outputs, step.name)
    pairs = list(zip(contracted[1 - side], contracted[side], strict=True))
    reader = readers.Reader(step, 1 - side, x, weights, matmul)
    read = readers.read(book, reader, pairs)
    rest = [d for i, d in enumerate(x.dims) if i not in contracted[1 - side]]
    for label in read & book.units(tuple(rest)):
        reason = f"{step.name} reads the units of {book.title(label)} on two axes"
        book.drop(label, reason)
    book.drop_reduced(x, step.name)
    dims = labels.rename(weights.dims, names)
    made = flow.Value(dims, origin=labels.DATA)
    return made, matmul


def births(book, step, weights, kept) -> tuple[tuple[int, ...] | None, dict]:
    """Starts the group of the units that a product computes.

    Args:
      book: the ledger.
      step: the product.
      weights: its weights.
      kept: the axes of the weights that are not contracted.

    Returns:
      The groups, ``None`` if they are not clear, and the new names of the labels.
    """
    dims = tuple(weights.dims[i] for i in kept)
    whole = book.whole_axes(dims)
    names = {axis: book.group(axis, weights.through) for axis in whole}
    outputs = tuple(names.values())
    for axis, label in names.items():
        number = book.axis_number(axis)
        book.tie(label, [origin for at, origin in weights.ties if at == number])
    unclear = labels.FREE in labels.found(dims) or not all(whole.values())
    if unclear or len(outputs) > 1:
        what = "with a part" if unclear else "units along several axes"
        for label in outputs:
            book.drop(label, f"{step.name} computes {what} of {weights.param}")
        if not outputs:
            book.use(weights.param, ("other", step.name), step.name)
    return None if unclear else outputs, names


def _drop_masked(book, step, dim, weights, axes) -> None:
    """Units whose readers are multiplied with other constants for each are ruled out.

    What such a weight multiplies is not the activation alone.
    """
    read = labels.found(tuple(weights.dims[axis] for axis in axes))
    numbers = {book.axis_number(label) for label in read if book.is_axis(label)}
    if numbers & {axis for axis, _ in weights.ties}:
        reason = (
            f"{step.name} reads {{}} with {weights.param} times constants that vary"
        )
        book.drop_all((dim,), f"{reason} along them")


def convolution(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for convolutions of activations with weights; groups are allowed."""
    x, weights = values
    lhs, rhs, out = step.params["dimension_numbers"]
    blocks = step.params["feature_group_count"]
    known = _is_weight(book, weights) and step.params["batch_group_count"] == 1
    if not known or step.custom:
        if weights.shifted:
            weights = book.release(weights, _how(step, weights))
        return opaque(book, step, [x, weights])
    outputs, names = births(book, step, weights, [rhs[0]])
    matmul = book.product(weights.param, outputs, step.name)
    for label in outputs or ():
        book.bind(label, blocks)
    x = book.release(x, step.name)
    single = [d for d in range(2, len(out)) if step.avals[0].shape[out[d]] == 1]
    if blocks == 1:
        seen, window = _window(step, x, weights, single)
        reader = readers.Reader(step, 0, seen, weights, matmul, window)
        pairs = [(lhs[d], rhs[d]) for d in (1, *single)]
        readers.read(book, reader, pairs)
    else:
        _drop_masked(book, step, x.dims[lhs[1]], weights, rhs[:2])
        whole = any(labels.length(weights.dims[rhs[d]]) > 1 for d in single)
        _read_blocks(book, readers.Reader(step, 0, x, weights, matmul), whole)
    rest = tuple(x.dims[i] for i in (lhs[0], *lhs[2:]))
    window = f"{step.name} slides its window over {{}}"
    book.drop_all(rest, window)
    book.drop_reduced(x, step.name)
    dims = list(labels.free(step.avals[0].shape))
    dims[out[1]] = labels.rename(weights.dims, names)[rhs[0]]
    return [flow.Value(tuple(dims), labels.DATA, taint=x.taint, matmul=matmul)]


def _window(step, x, weights, single):
    """What a window that does not slide along the given axes covers.

    With one output place, every entry of the kernel meets one entry of the image, or
    of its padding: its places are those of a dense kernel.
    """
    lhs, rhs, _ = step.params["dimension_numbers"]
    dims, window = list(x.dims), []
    for d in single:
        axis, size = lhs[d], labels.length(weights.dims[rhs[d]])
        pads = step.params["padding"][d - 2]
        inside, apart = (step.params[f"{s}_dilation"][d - 2] for s in ("lhs", "rhs"))
        if size != labels.length(dims[axis]) or any(pads):
            extent = (size - 1) * apart + 1
            window.append((axis, *pads, inside - 1, extent, apart))
            dims[axis] = labels.plain(size, labels.FREE)
    return x._replace(dims=tuple(dims)), tuple(window)


def _read_blocks(book, reader, whole: bool) -> None:
    """Notes the units that a grouped or depthwise convolution reads."""
    step, weights = reader.step, reader.weights
    lhs, rhs, _ = step.params["dimension_numbers"]
    dim, blocks = reader.x.dims[lhs[1]], step.params["feature_group_count"]
    units = book.units((dim,))
    alone = len(dim) == len(dim[0]) == 1
    record = _block_weights(book, weights, rhs, blocks)
    if units and (whole or not alone or record is None):
        how = "at several places" if whole else "mixed or cut"
        reason = f"{step.name} with {blocks} groups reads {{}} {how}"
        book.drop_all((dim,), reason)
    elif units:
        atom = readers.Atom(lhs[1], dim[0][0], dim[0][0])
        (label,) = units
        part, sizes = (lhs[1], 0, dim[0][0].size), (*record.positions, dim[0][0].size)
        tap = readers.tap_of(reader, part, [atom], [atom], sizes)
        book.record("outgoing", label, record, reader.matmul, tap)
        book.bind(label, blocks)


def _block_weights(book, weights, rhs, blocks) -> groups.WeightAxis | None:
    """The record of the units read by a kernel of several groups."""
    path = weights.param
    outer = book.axis_of(weights.dims[rhs[0]])
    if outer is None:
        return None
    if labels.length(weights.dims[rhs[1]]) > 1:
        axis = book.axis_of(weights.dims[rhs[1]])
    elif 1 in book.shapes[path]:
        axis = max(i for i, n in enumerate(book.shapes[path]) if n == 1)
    else:  # several outputs of each block would own one activation at once
        alone = labels.length(weights.dims[rhs[0]]) == blocks
        through = weights.through
        return groups.WeightAxis(path, outer, through=through) if alone else None
    if axis is None:
        return None
    return groups.WeightAxis(
        path, axis, groups=blocks, block_axis=outer, through=weights.through
    )


def gather(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for look-ups: whole rows of a table are units, other axes stay or end."""
    operand, indices = values
    numbers, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    rows = [i for i in range(len(operand.dims)) if i not in gone]
    whole = [i for i in rows if labels.length(operand.dims[i]) == sizes[i]]
    dims = list(labels.free(step.avals[0].shape))
    lost = tuple(d for i, d in enumerate(operand.dims) if i not in whole)
    book.drop_all(lost, f"{step.name} picks among {{}}")
    book.drop_all(indices.dims, f"{step.name} looks up {{}}")
    book.drop_reduced(indices, step.name)
    axes = [i for i in whole if labels.length(operand.dims[i]) > 1]
    is_table = _is_weight(book, operand) and len(axes) == 1 and len(operand.dims) > 1
    names: dict[int, int] = {}
    if is_table and not step.custom:
        outputs, names = births(book, step, operand, axes)
        book.product(operand.param, outputs, step.name)
    else:
        operand = book.release(operand, step.name)
    moved = labels.rename(operand.dims, names)
    for i, target in zip(rows, numbers.offset_dims, strict=True):
        dims[target] = moved[i] if i in whole else dims[target]
    origin = labels.DATA if is_table else max(operand.origin, indices.origin)
    taint = operand.taint | book.release(indices, step.name).taint
    return [flow.Value(tuple(dims), origin, taint=taint, reduced=operand.reduced)]


def dynamic_slice(book: ledger.Ledger, step: walk.Step, values: list[flow.Value]):
    """Rule for slices at computed places: one row of a table is a look-up."""
    operand, shape = values[0], step.avals[0].shape
    axes = [i for i, n in enumerate(shape) if n > 1]
    lengths = list(map(labels.length, operand.dims))
    cut = [n for n, made in zip(lengths, shape, strict=True) if n != made]
    row = len(axes) == 1 and lengths[axes[0]] == shape[axes[0]] and cut
    if not row or not _is_weight(book, operand) or step.custom:
        return shapes.cut(book, step, values)
    outputs, names = births(book, step, operand, axes)
    book.product(operand.param, outputs, step.name)
    dims = labels.rename(operand.dims, names)
    row = operand._replace(dims=dims, param=None, pure=False, origin=labels.DATA)
    return shapes.cut(book, step, [row, *values[1:]])
