"""Bins of the metrics: of several chunks, or several of one chunk."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from loplax import branch, metrics
from loplax.supervised import evaluation, learning, observation
from loplax.supervised.problem import Problem, TrainState

Metrics = dict[str, jax.Array]


def of_chunks(
    problem: Problem, state: TrainState, chunks: int, unroll: int
) -> tuple[TrainState, tuple[Metrics, Metrics]]:
    """Learns from some chunks.

    Args:
      problem: what to learn.
      state: where the run stands.
      chunks: how many.
      unroll: steps per iteration of the compiled loop.

    Returns:
      The state, and the metrics of the bin, scalars or ``[subsets]``, with the measures
      over its first chunk.
    """

    def one_chunk(state, _):
        state, items, begins = _begin(problem, state)
        tested = _test_start(problem, state, begins)
        state, found = learning.learn(problem, state, items, unroll)
        return _end(problem, state), (jax.tree.map(jnp.mean, found), begins, tested)

    before = state.params
    state, (measured, begins, tested) = jax.lax.scan(one_chunk, state, None, chunks)
    # Of the last task that begins. If none does, -1 is a chunk in which none does: NaN.
    last = jnp.max(jnp.where(begins, jnp.arange(chunks), -1))
    found = jax.tree.map(jnp.mean, measured)
    found |= jax.tree.map(lambda x: x[last], tested)
    found |= _at_end(problem, before, state)
    if problem.observe:
        after, items, _ = _begin(problem, state)
        found |= _observe(problem, after, jax.tree.map(lambda x: x[0], items))
    return state, (found, jax.tree.map(lambda x: x[0], measured))


def in_chunk(
    problem: Problem, state: TrainState, parts: int, unroll: int
) -> tuple[TrainState, tuple[Metrics, Metrics]]:
    """Learns from one chunk, every part of which is a bin.

    Args:
      problem: what to learn.
      state: where the run stands.
      parts: how many.
      unroll: steps per iteration of the compiled loop.

    Returns:
      The state, and the metrics of the bins, ``[parts]`` or ``[parts, subsets]``, with
      the measures over the chunk.
    """
    params = state.params
    state, items, begins = _begin(problem, state)
    tested = _test_start(problem, state, begins)
    items = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), items)
    number = jnp.arange(parts)
    following = jax.tree.map(lambda x: x[(number + 1) % parts, 0], items)
    closes = any(keeper.on_chunk for keeper in problem.keepers)

    def next_chunk(state, item):
        after, items, _ = _begin(problem, state)
        return after, jax.tree.map(lambda x: x[0], items)

    def one_part(carry, part):
        state, before = carry
        number, items, item = part
        is_last = number == parts - 1
        state, measured = learning.learn(problem, state, items, unroll)
        if closes:
            end = functools.partial(_end, problem)
            state = jax.lax.cond(is_last, end, lambda state: state, state)
        found = jax.tree.map(jnp.mean, measured) | _at_end(problem, before, state)
        if problem.observe:
            stay = lambda state, item: (state, item)
            upcoming = jax.lax.cond(is_last, next_chunk, stay, state, item)
            found |= _observe(problem, *upcoming)
        return (state, state.params), found

    # What on_task changes counts as a change in the first bin.
    parted = number, items, following
    (state, _), found = jax.lax.scan(one_part, (state, params), parted)
    first = {name: jnp.mean(found[name]) for name in ("loss", *problem.measures)}
    in_first = lambda x: jnp.full((parts, *x.shape), jnp.nan).at[0].set(x)
    return state, (found | jax.tree.map(in_first, tested), first)


def _begin(problem: Problem, state: TrainState):
    """Draws a chunk, whether it begins a task, and lets ``on_task`` act if so."""
    stream, items = problem.stream.draw(state.stream)
    before, task = problem.stream.task(state.stream), problem.stream.task(stream)
    begins, state = task != before, state._replace(stream=stream)
    if not problem.on_task:
        return state, items, begins

    def act(state, keys):
        for each, key in zip(problem.on_task, keys, strict=True):
            state = each(state, key)
        return state

    key, *keys = jax.random.split(state.key_task, len(problem.on_task) + 1)
    leave = lambda state, keys: state
    state = state._replace(key_task=key)
    new = begins & (before >= 0)
    return branch.cond(new, act, leave, state, keys), items, begins


def _test_start(problem: Problem, state: TrainState, begins: jax.Array) -> Metrics:
    """What is tested where a task begins; NaN where none does."""
    if not problem.test_starts:
        return {}
    test = functools.partial(evaluation.test, problem)
    tested = branch.cond(begins, test, None, state)
    value = lambda x: jnp.where(begins, x, jnp.nan)
    return {name + metrics.continual.AT_START: value(x) for name, x in tested.items()}


def _end(problem: Problem, state: TrainState) -> TrainState:
    """Lets the keepers act at the end of a chunk."""
    for keeper in problem.keepers:
        state = keeper.on_chunk(state) if keeper.on_chunk else state
    return state


def _at_end(problem: Problem, before: Any, state: TrainState) -> Metrics:
    """What is known at the end of a bin, whatever comes next."""
    task = problem.stream.task(state.stream)
    return evaluation.test(problem, state) | {
        "task": jnp.asarray(task, jnp.float32),
        "weight_change": metrics.weight_change(before, state.params),
    }


def _observe(problem: Problem, state: TrainState, item: Any) -> Metrics:
    step = lambda state: learning.step(problem, state, item)
    return observation.observe(problem, state, step)
