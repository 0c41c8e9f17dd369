"""A traced model as a flat list of steps: calls are opened, dead code is dropped."""

import itertools
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core

from loplax.units import products

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
}
"""Primitives that run one jaxpr once, and the parameter that holds it."""

COLLECTIVES = {"psum": "reduce_sum", "pmax": "reduce_max", "pmin": "reduce_min"}
"""What collectives over axes of an array, as ``vmap`` leaves them, are."""


class Step(NamedTuple):
    """One primitive operation.

    Attributes:
      name: name of the primitive.
      primitive: the primitive itself.
      params: its static parameters.
      inputs: numbers of the values it reads.
      outputs: numbers of the values it makes.
      avals: shapes and types of the outputs.
      address: position in the jaxpr, one index per level of nested calls.
      custom: name of the custom-derivative call around the step, or ``None``.
    """

    name: str
    primitive: core.Primitive
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    avals: tuple[Any, ...]
    address: tuple[int, ...]
    custom: str | None


class Program(NamedTuple):
    """A traced model.

    Attributes:
      steps: the operations that the outputs depend on, in execution order.
      inputs: numbers of the input values.
      outputs: numbers of the output values.
      constants: of each constant its shape and, of a scalar that the program itself
        holds, the value; by its number.
    """

    steps: list[Step]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: dict[int, tuple[tuple[int, ...], Any]]


def sub_jaxpr(eqn: core.JaxprEqn) -> core.Jaxpr | core.ClosedJaxpr | None:
    """The jaxpr that a call runs, or ``None`` if ``eqn`` is no plain call."""
    key = CALLS.get(eqn.primitive.name)
    return None if key is None else eqn.params.get(key)


def flatten(closed: core.ClosedJaxpr, kept: int | None = None) -> Program:
    """Opens all calls of a jaxpr and drops what the outputs do not need.

    Args:
      closed: the jaxpr of the model.
      kept: number of leading outputs that count; all by default.

    Returns:
      The program.
    """
    opener = _Opener()
    inputs = tuple(opener.fresh() for _ in closed.jaxpr.invars)
    outputs = opener.open(closed, inputs, (), None)[:kept]
    needed, steps = set(outputs), []
    for step in reversed(opener.steps):
        if needed.intersection(step.outputs):
            needed.update(step.inputs)
            steps.append(step)
    return Program(steps[::-1], inputs, outputs, opener.constants)


class _Opener:
    def __init__(self):
        self.steps: list[Step] = []
        self.constants: dict[int, tuple[tuple[int, ...], Any]] = {}
        self._numbers = itertools.count()

    def fresh(self) -> int:
        return next(self._numbers)

    def constant(self, shape: tuple[int, ...], value: Any = None) -> int:
        number = self.fresh()
        self.constants[number] = shape, value
        return number

    def open(self, jaxpr, inputs, address, custom) -> tuple[int, ...]:
        """Appends the steps of ``jaxpr``; returns the numbers of its outputs."""
        if isinstance(jaxpr, core.ClosedJaxpr):
            jaxpr = jaxpr.jaxpr
        known = dict(zip(jaxpr.invars, inputs, strict=True))
        known |= {var: self.constant(var.aval.shape) for var in jaxpr.constvars}

        def number(atom) -> int:
            if isinstance(atom, core.Literal):
                kind: Any = atom.aval
                value = np.asarray(atom.val, kind.dtype)
                return self.constant(kind.shape, None if value.ndim else value)
            return known[atom]

        for index, eqn in enumerate(jaxpr.eqns):
            read = tuple(map(number, eqn.invars))
            made = self._step(eqn, read, (*address, index), custom)
            known.update(zip(eqn.outvars, made, strict=True))
        return tuple(map(number, jaxpr.outvars))

    def _step(self, eqn, inputs, address, custom) -> tuple[int, ...]:
        name, params, inner = eqn.primitive.name, eqn.params, sub_jaxpr(eqn)
        known = None if inner is None else products.recognise(eqn)
        if known is not None:
            name, params = known
        elif inner is not None:
            custom = name if name.startswith("custom") else custom
            return self.open(inner, inputs, address, custom)
        outputs = tuple(self.fresh() for _ in eqn.outvars)
        avals = tuple(var.aval for var in eqn.outvars)
        step = Step(
            name, eqn.primitive, params, inputs, outputs, avals, address, custom
        )
        self.steps.extend(_reductions(step, eqn))
        return outputs


def is_collective(step: Step) -> bool:
    """Whether a step reduces the batch axis that a ``vmap`` gave a name."""
    return step.primitive.name in COLLECTIVES and step.name not in COLLECTIVES


def _reductions(step: Step, eqn: core.JaxprEqn) -> list[Step]:
    """A collective over axes of its arrays as plain reductions; others as they are."""
    axes = step.params.get("axes", ())
    if step.name not in COLLECTIVES or any(isinstance(axis, str) for axis in axes):
        return [step]
    made = []
    for var, read, out, aval in zip(
        eqn.invars, step.inputs, step.outputs, step.avals, strict=True
    ):
        kind: Any = var.aval
        whole = {"axes": tuple(axis % len(kind.shape) for axis in axes)}
        made.append(
            step._replace(
                name=COLLECTIVES[step.name],
                params=whole,
                inputs=(read,),
                outputs=(out,),
                avals=(aval,),
            )
        )
    return made
