"""Measures of what a network gives, on items learned from or held out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from loplax import branch
from loplax.streams import base
from loplax.supervised.problem import Problem, TrainState


def measure(problem: Problem, outputs: Any, targets: Any) -> dict[str, jax.Array]:
    """The problem's loss and other measures.

    Args:
      problem: what to learn.
      outputs: the network's.
      targets: what they should be.

    Returns:
      Their values by name, ``[examples]`` or scalars as the problem gives them.
    """
    measures = {"loss": problem.loss, **problem.measures}
    return {name: value(outputs, targets) for name, value in measures.items()}


def evaluate(
    problem: Problem, state: TrainState, held_out: base.HeldOut
) -> dict[str, jax.Array]:
    """Measures the network on examples that it does not learn from.

    Args:
      problem: what is learned.
      state: where the run stands.
      held_out: the examples; a batch without weight costs nothing.

    Returns:
      Weighted means by name, ``[subsets]`` where the examples have subsets, else
      scalars; NaN where there is no weight.

    Raises:
      ValueError: if there are not as many weights as subsets.
    """
    apart = (len(held_out.subsets),) if held_out.subsets else ()
    _, _, weights = jax.eval_shape(held_out.batch, state.stream, 0)
    if weights.shape[1:] != apart:
        raise ValueError(
            f"weights must be [examples, *{apart}] for subsets {held_out.subsets}, "
            f"got {weights.shape}."
        )

    def weighed(params, stats, x, y, weights):
        if not (apart and problem.by_subset):
            return _sums(problem, params, stats, x, y, weights)
        now = state._replace(params=params, stats=stats)

        def on_subset(number, weights):
            return _sums(problem, *problem.by_subset(now, number), x, y, weights)

        def one(subset):
            there = jnp.any(subset[1] > 0)
            return branch.cond(there, on_subset, None, *subset)

        return jax.lax.map(one, (jnp.arange(*apart), weights.T))

    found, number = total(state, held_out, weighed)
    return jax.tree.map(lambda x: x / number, found)


def _sums(problem: Problem, params, stats, x, y, weights: jax.Array):
    """Weighted sums of a batch's measures, and of the weights."""
    values = measure(problem, problem.network.predict(params, stats, x), y)

    def weigh(value):
        value = value.reshape(-1, *[1] * (weights.ndim - 1))
        # Without weight the loss may be infinite: of a masked class, say.
        return jnp.sum(value * weights, axis=0, where=weights > 0)

    return jax.tree.map(weigh, values), jnp.sum(weights, axis=0)


def total(state: TrainState, held_out: base.HeldOut, of: Callable[..., Any]) -> Any:
    """Sums over examples that are not learned from, a batch at a time.

    Args:
      state: where the run stands.
      held_out: the examples; a batch without weight costs nothing.
      of: ``(params, stats, inputs, targets, weights) -> tree`` of a batch's sums.

    Returns:
      The sums over all batches; 0 if none has a weight.
    """
    params, stats, stream = state.params, state.stats, state.stream
    counts = lambda i: jnp.any(held_out.batch(stream, i)[2] > 0)
    one_batch = lambda i: of(params, stats, *held_out.batch(stream, i))

    # Those with a weight first. A branch for each would copy what it needs.
    counted = jax.lax.map(counts, jnp.arange(held_out.batches))
    order = jnp.argsort(~counted, stable=True)
    add = lambda i, sums: jax.tree.map(jnp.add, sums, one_batch(order[i]))
    shapes = jax.eval_shape(one_batch, 0)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.fori_loop(0, jnp.sum(counted), add, zeros)


def test(problem: Problem, state: TrainState) -> dict[str, jax.Array]:
    """Measures what is to be evaluated on what the stream tests.

    Args:
      problem: what is learned.
      state: where the run stands.

    Returns:
      As `evaluate`, ``test_loss`` and so on; nothing where nothing is tested.
    """
    if problem.stream.test is None:
        return {}
    found: dict[str, jax.Array] = {}
    for name, weights in problem.evaluated.items():
        params, stats = weights(state)
        now = state._replace(params=params, stats=stats)
        values = evaluate(problem, now, problem.stream.test)
        found |= {f"{name}_{measure}": value for measure, value in values.items()}
    return found
