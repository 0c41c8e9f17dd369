"""Models as frameworks hold them: parameters, other state, no arrays; and a trace."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend import core

HAS_AUX = " (if apply returns (output, new statistics), say has_aux=True)"
"""What to say to who may have forgotten."""


class Model(NamedTuple):
    """A model taken apart.

    Attributes:
      params: the tree of its parameters, arrays only.
      rest: its other arrays: running statistics, random keys.
      merge: the model again, of ``(params, rest)``.
      state: the ``rest`` of a merged model that has run.
      write: stores such a ``rest`` in the model that was taken apart.
    """

    params: Any
    rest: Any
    merge: Callable[[Any, Any], Any]
    state: Callable[[Any], Any]
    write: Callable[[Any], None]


def split(model: Any) -> Model:
    """Takes a model apart.

    An nnx module (or a tree that holds some) has its ``nnx.Param`` as parameters, each
    shared one once; its other state may change when the model runs. Any other tree
    (linen, ``nnx.State``, Equinox) has all its arrays as parameters; functions,
    Python numbers and strings among its leaves are set aside.

    Args:
      model: the model.

    Returns:
      Its parts.
    """
    # If flax was never imported, no model is an nnx module; units need no flax.
    nnx: Any = sys.modules.get("flax.nnx")
    is_module = lambda node: nnx is not None and isinstance(node, nnx.Pytree)
    if any(map(is_module, jax.tree.leaves(model, is_leaf=is_module))):
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        return Model(
            params,
            rest,
            merge=lambda params, rest: nnx.merge(graph, params, rest),
            state=lambda merged: nnx.split(merged, nnx.Param, ...)[2],
            write=lambda rest: nnx.update(model, rest),
        )
    params, merge = arrays(model)
    return Model(
        params, (), lambda params, _: merge(params), lambda _: (), lambda _: None
    )


def arrays(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Splits a tree into its arrays and a function that puts the other leaves back."""
    is_array = lambda leaf: hasattr(leaf, "dtype") and hasattr(leaf, "shape")
    keep = lambda chosen: jax.tree.map(
        lambda x: x if is_array(x) is chosen else None, tree
    )
    held, others = keep(True), keep(False)

    def merge(held):
        pick = lambda array, other: other if array is None else array
        return jax.tree.map(pick, held, others, is_leaf=lambda x: x is None)

    return held, merge


class Trace(NamedTuple):
    """A traced model.

    Attributes:
      closed: its jaxpr; the parameters are its first inputs, in tree order.
      kept: number of leading outputs that count.
      structure: structure of the outputs: what the model returns, its changed state.
      leaves: the inputs of the jaxpr.
      write: stores the changed state in the model, if that is a module.
      hint: what to say of units that are returned, if it may be by mistake.
    """

    closed: core.ClosedJaxpr
    kept: int
    structure: Any
    leaves: list
    write: Callable[[Any], None]
    hint: str


def _require_function(apply) -> None:
    """Raises ``ValueError`` unless ``apply`` can be called as one of the parameters."""
    if not callable(apply):
        raise ValueError(
            "apply, which comes first, must be a function (params, *inputs) -> output, "
            f"got {type(apply).__name__}."
        )
    linen: Any = sys.modules.get("flax.linen")
    if linen is not None and isinstance(apply, linen.Module) and apply.scope is None:
        name = type(apply).__name__
        raise ValueError(
            f"apply must be a function, got the linen module {name}, which holds no "
            "parameters. Pass its method apply: find(net.apply, params, x)."
        )


def trace(apply, params, inputs, has_aux: bool) -> Trace:
    """Traces a model.

    Args:
      apply: the model.
      params: its parameters.
      inputs: its inputs.
      has_aux: whether it returns ``(output, aux)``.

    Returns:
      The traced model. A module is not changed.

    Raises:
      ValueError: if ``apply`` is no function of the parameters, or returns no pair
        with ``has_aux``.
    """
    _require_function(apply)
    model = split(params)
    given, merge = arrays(inputs)
    leaves, treedef = jax.tree.flatten((model.params, model.rest, given))

    def flat(*leaves):
        params, rest, given = jax.tree.unflatten(treedef, leaves)
        merged = model.merge(params, rest)
        return apply(merged, *merge(given)), model.state(merged)

    closed, (shape, state) = jax.make_jaxpr(flat, return_shape=True)(*leaves)
    pair = isinstance(shape, tuple) and len(shape) == 2
    if has_aux and not pair:
        raise ValueError(
            "With has_aux=True the model must return a pair (output, aux), not "
            f"{type(shape).__name__}."
        )
    counted = shape[0] if has_aux else shape
    structure = jax.tree.structure((shape, state))
    kept = len(jax.tree.leaves(counted))
    hint = HAS_AUX if pair and not has_aux else ""
    return Trace(closed, kept, structure, leaves, model.write, hint)
