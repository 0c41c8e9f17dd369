"""The rule of each primitive."""

from loplax.units import (
    contract,
    elementwise,
    flow,
    kernels,
    labels,
    ledger,
    multiples,
    shapes,
    walk,
)

# fmt: off
ELEMENTWISE = [
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan",
    "atan2", "atanh", "bessel_i0e", "bessel_i1e", "bitcast_convert_type", "cbrt",
    "ceil", "clamp", "clz", "complex", "conj", "convert_element_type", "copy",
    "copy_p", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc",
    "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma", "igammac", "imag",
    "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt",
    "max", "min", "mul", "name", "ne", "neg", "nextafter", "not", "or", "pcast",
    "polygamma", "population_count", "pow", "pvary", "real", "reduce_precision",
    "rem", "reshard", "round", "rsqrt", "select_n", "sharding_constraint",
    "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin",
    "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor", "zeta",
]

NOISE = [
    "iota", "random_bits", "random_clone", "random_fold_in", "random_seed",
    "random_split", "random_unwrap", "random_wrap", "rng_bit_generator",
    "threefry2x32",
]

REDUCTIONS = [
    "argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or",
    "reduce_prod", "reduce_sum",
]

CUMULATIVE = [
    "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum",
]

WINDOWS = [
    "reduce_window_max", "reduce_window_min", "reduce_window_sum",
]
# fmt: on

RULES = {
    **dict.fromkeys(ELEMENTWISE, elementwise.elementwise),
    **dict.fromkeys(NOISE, contract.noise),
    **dict.fromkeys(REDUCTIONS, shapes.reduce),
    **dict.fromkeys(CUMULATIVE, shapes.along),
    **dict.fromkeys(WINDOWS, shapes.window),
    "broadcast_in_dim": shapes.broadcast_in_dim,
    "concatenate": elementwise.concatenate,
    "conv_general_dilated": contract.convolution,
    "device_put": elementwise.identity,
    "dot_general": contract.dot_general,
    "dynamic_slice": contract.dynamic_slice,
    "gather": contract.gather,
    "optimization_barrier": elementwise.identity,
    "pad": shapes.pad,
    "random_gamma": contract.shaped_noise,
    "reshape": shapes.reshape,
    "rev": shapes.reverse,
    "slice": shapes.cut,
    "split": shapes.split,
    "squeeze": shapes.squeeze,
    "stack": elementwise.stack,
    "tile": shapes.tile,
    "transpose": shapes.transpose,
    "unstack": shapes.unstack,
}
"""What each primitive does to units; all others are opaque."""

MOVES = frozenset({"broadcast_in_dim", "reshape", "squeeze", "transpose"})
"""Operations that a followed parameter and its factor undergo side by side."""


def follow(book: ledger.Ledger, program: walk.Program, inputs: list[flow.Value]):
    """Follows units through a program.

    Args:
      book: the ledger that collects what is learnt.
      program: the traced model.
      inputs: what is known of its inputs.

    Returns:
      What is known of each output.
    """
    values = dict(zip(program.inputs, inputs, strict=True))
    for number, (shape, value) in program.constants.items():
        values[number] = flow.Value(labels.free(shape), number=value)
    book.batched = any(map(walk.is_collective, program.steps))
    for step in program.steps:
        read = [values[number] for number in step.inputs]
        values.update(zip(step.outputs, _apply(book, step, read), strict=True))
    return [_settle(book, "output", values[number]) for number in program.outputs]


def _apply(book, step, values) -> list[flow.Value]:
    rule = RULES.get(step.name, contract.opaque)
    if rule in (elementwise.elementwise, shapes.reduce):
        return rule(book, step, values)
    if step.name in MOVES and values[0].factor is not None:
        (moved,) = rule(book, step, [values[0]._replace(factor=None)])
        return [moved._replace(factor=rule(book, step, [values[0].factor])[0])]
    return rule(book, step, [_settle(book, step.name, value) for value in values])


def _settle(book, name, value) -> flow.Value:
    """A value of which nothing is put off."""
    return multiples.fold(book, name, kernels.settle(book, name, value))
