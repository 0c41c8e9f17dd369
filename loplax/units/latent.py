"""Weights behind a function of their own: binarised, quantised, clipped, pruned.

What acts on every entry of a parameter alone moves none of them: the parameter is still
the weight of its units. Whether the function is 0 at 0 is found by computing it there.
"""

import jax
import numpy as np

from loplax.units import flow, labels, ledger, walk

# fmt: off
IDENTITIES = frozenset({
    "convert_element_type", "copy", "copy_p", "name", "pcast", "pvary",
    "reduce_precision", "reshard", "sharding_constraint", "stop_gradient",
})
# fmt: on
"""Operations that leave a parameter the same parameter."""

MULTIPLES = frozenset({"add", "add_any", "div", "mul", "neg", "sub"})
"""Operations that ``multiples`` follows where only one operand is a parameter."""


def function(book: ledger.Ledger, step: walk.Step, values) -> flow.Value | None:
    """A function of one parameter and of numbers, or ``None`` if it is none.

    Args:
      book: the ledger.
      step: an element-wise operation.
      values: its operands.

    Returns:
      The parameter, and what the function takes of its entries.
    """
    tracked = [value for value in values if book.has_axes(value)]
    others = [value for value in values if not book.has_axes(value)]
    if not tracked or (len(tracked) == 1 and step.name in MULTIPLES):
        return None
    alike = len({(value.param, value.dims, value.part) for value in tracked}) == 1
    if not (alike and all(map(_alone, tracked)) and all(map(_uniform, others))):
        return None
    first = tracked[0]
    of_sign = all(value.through == "sign" for value in tracked)
    takes_sign = step.name == "sign" and not (first.through or first.shifted)
    return first._replace(
        origin=max(value.origin for value in tracked),
        pure=False,
        through="sign" if of_sign or takes_sign else "function",
        ties=frozenset().union(*(value.ties for value in tracked)),
    )


def _alone(value: flow.Value) -> bool:
    """Whether nothing but numbers has entered beside the parameter."""
    return value.factor is None and not (value.taint or value.reduced or value.terms)


def _uniform(value: flow.Value) -> bool:
    """Whether it is one number everywhere."""
    same = labels.found(value.dims) <= {labels.SAME}
    return value.number is not None and value.param is None and same


def number(step: walk.Step, values: list[flow.Value]):
    """The ``number`` of what an element-wise operation makes of some values."""
    known = [value.number for value in values]
    zero = [found is not None and found == 0 for found in known]
    if (step.name == "mul" and any(zero)) or (step.name == "div" and zero[0]):
        return np.zeros((), step.avals[0].dtype)
    shared = any(value.factor is not None for value in values) and not all(zero)
    if shared or any(found is None for found in known):
        return None
    if step.name in IDENTITIES:
        return known[0].astype(step.avals[0].dtype)
    with jax.ensure_compile_time_eval():
        return np.asarray(step.primitive.bind(*known, **step.params))
