"""Penalties on leaving where the weights were, each as strong as its weight is worth.

Transformations of this kind add ``strength * importance * (w - anchor)`` to the
gradient. What they differ in is the importance, and what a boundary between two tasks
makes of the earlier anchor and importance.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import expected, keys, paths, placement


class ConsolidationState(NamedTuple):
    """State of a transformation that consolidates.

    Attributes:
      anchor: what the weights are pulled to, at least float32.
      importance: how strongly, at least float32; 0 before the first boundary.
    """

    anchor: optax.Params
    importance: optax.Params


class Consolidating(optax.GradientTransformationExtraArgs):
    """A transformation with a step of its own for the boundary of two tasks.

    Attributes:
      consolidate: ``(state, params, ...) -> state``, to be called when a task is over;
        ``state`` may be any part of an optimiser's state that holds this
        transformation's once.
    """

    consolidate: Callable[..., Any]

    def __new__(cls, init, update, consolidate):
        """A transformation, and what it does at a boundary."""
        self = super().__new__(cls, init, update)
        self.consolidate = consolidate
        return self


def identity(weight: jax.Array) -> jax.Array:
    """The weight itself."""
    return weight


def quadratic(
    strength, through: Callable | None, accumulate: Callable
) -> Consolidating:
    """The transformation, whatever the importance is.

    Args:
      strength: of the penalty, at least 0.
      through: ``weight -> weight``, what is penalised of it. Default: the weight.
      accumulate: ``(anchor, importance, now, new) -> (anchor, importance)`` at a
        boundary, of one parameter: ``now`` is what is penalised there, ``new`` the
        importance that the task gives.
    """
    checks.in_range("strength", strength)
    what = through or identity
    seen = lambda param: what(paths.at_least_float32(param))

    def init(params):
        expected.arrays(params)
        anchor = jax.tree.map(seen, params)
        return ConsolidationState(anchor, jax.tree.map(jnp.zeros_like, anchor))

    def update(grads, state, params=None, **extra_args):
        del extra_args
        expected.required_params(params)
        placement.require_before_optimizer()
        pull = pulled(strength, seen)
        return jax.tree.map(pull, grads, params, *state), state

    def step(state, params, importance):
        anchors, before = paths.by_path(state.anchor), paths.by_path(state.importance)
        params = expected.alike("params", params, anchors.leaves)
        given = expected.alike("importance", importance, anchors.leaves)
        for path, anchor in anchors.leaves.items():
            given[path] = new = jnp.asarray(given[path], anchor.dtype)
            for bound in (jnp.min, jnp.max):
                checks.in_range(f"importance of {path!r}", bound(new, initial=0))
        for path, anchor in anchors.leaves.items():
            old = anchor, before.leaves[path]
            new = jnp.where(given[path] >= 0, given[path], jnp.nan)
            both = accumulate(*old, seen(params[path]), new)
            anchors.leaves[path], before.leaves[path] = where_finite(both, old)
        return ConsolidationState(anchors.unflatten(), before.unflatten())

    def consolidate(state, params, importance):
        step_here = lambda mine: step(mine, params, importance)
        return where_it_is(ConsolidationState, step_here, state)

    return Consolidating(init, update, consolidate)


def pulled(strength, seen: Callable) -> Callable[..., jax.Array]:
    """The gradient of one parameter with that of its penalty."""

    def pull(grad, param, anchor, importance):
        penalty = strength * (importance * (seen(param) - anchor))
        return (grad + penalty).astype(grad.dtype)

    return pull


def where_finite(
    new: tuple[jax.Array, jax.Array], old: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """New anchor and importance of weights, the old ones where not both are finite."""
    known = jnp.isfinite(new[0]) & jnp.isfinite(new[1])
    anchor, importance = (
        jnp.where(known, x, x_old).astype(x_old.dtype)
        for x, x_old in zip(new, old, strict=True)
    )
    return anchor, importance


def where_it_is(kind: type, step: Callable, state: Any) -> Any:
    """Makes a step in the one state of a kind that another state is or holds.

    Raises:
      ValueError: if there is none, or more than one.
    """
    mine = lambda x: isinstance(x, kind)
    number = sum(map(mine, jax.tree.leaves(state, is_leaf=mine)))
    if number != 1:
        raise ValueError(
            f"consolidate needs a state that holds one {kind.__name__}, got {number}. "
            "Give it the optimiser's state, or the part of it that is meant."
        )
    return jax.tree.map(lambda x: step(x) if mine(x) else x, state, is_leaf=mine)


def permuted(importance: Any, key: jax.Array) -> Any:
    """The same importances, in each parameter at random places: a control.

    Whatever remains of a benefit is due to the strength of the penalty and not to which
    weights it holds.

    Args:
      importance: a tree of arrays.
      key: typed random key.

    Returns:
      A tree of the same form.

    Raises:
      ValueError: for an untyped key.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from loplax import optim
      >>> found = optim.permuted({"w": jnp.arange(4.0)}, jax.random.key(0))
      >>> sorted(found["w"].tolist())
      [0.0, 1.0, 2.0, 3.0]

    References:
      "Random consolidation" in Laborieux et al., `Synaptic metaplasticity in binarized
      neural networks <https://arxiv.org/abs/2003.03533>`_, 2021, Table 1.
    """
    checks.typed_key(key)
    found = paths.by_path(importance)
    for path, leaf in found.leaves.items():
        shuffle = jax.random.permutation(keys.named(key, path), leaf.ravel())
        found.leaves[path] = shuffle.reshape(leaf.shape)
    return found.unflatten()
