"""Models as frameworks hold them: parameters, other state, and what is no array."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


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
    nnx = sys.modules.get("flax.nnx")
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
