"""Whole runs: init and segment, pure functions of a key and numbers."""

from typing import Any

import jax
import jax.numpy as jnp

from loplax import branch, metrics
from loplax.supervised import evaluation, learning, observation
from loplax.supervised.problem import Build, Problem, TrainState


def init(
    build: Build, key: jax.Array, hparams: dict[str, jax.Array], data: Any = ()
) -> TrainState:
    """Starts a run.

    Args:
      build: ``(hparams, key_tx, data) -> Problem``.
      key: the run's key.
      hparams: the numeric settings.
      data: arrays that all runs share.

    Returns:
      The state before the first example.
    """
    key_task, key_stream, key_net, key_tx, key_fresh = jax.random.split(key, 5)
    problem = build(hparams, key_tx, data)
    params, stats = problem.network.init(key_net)
    state = TrainState(
        params=params,
        stats=stats,
        initial=jax.tree.map(jnp.copy, params),  # so that the state can be donated
        opt=problem.tx.init(params),
        stream=problem.stream.init(key_stream),
        memory=(),
        hparams=hparams,
        key_tx=key_tx,
        key_task=key_task,
        key_fresh=key_fresh,
    )
    if problem.keeper:
        state = state._replace(memory=problem.keeper.init(state))
    return state


def segment(
    build: Build,
    state: TrainState,
    data: Any = (),
    *,
    bins: int,
    chunks: int,
    unroll: int = 1,
    fresh: bool = True,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Learns from ``bins * chunks * stream.chunk`` items, one after the other.

    Args:
      build: as for `init`.
      state: where the run stands.
      data: as for `init`.
      bins: number of bins of the metrics.
      chunks: draws from the stream per bin.
      unroll: steps per iteration of the compiled loop.
      fresh: whether a freshly initialised network learns the first chunk too.

    Returns:
      The state, and metrics ``[bins]``:

      - ``loss`` and the problem's other measures: means over the bin, of each item
        before it is learned from;
      - the same with ``test_`` before the name: of what the stream tests, at the end of
        the bin;
      - the diagnostics of `observation.observe` at the end of the bin, on the task of
        the next chunk, and ``weight_change``, the bin's ``sum|change|``;
      - if ``fresh``, ``loss_first``, ``loss_fresh`` and so on: the measures over the
        segment's first chunk, of this run and of a freshly initialised network
        (repeated).
    """
    problem = build(state.hparams, state.key_tx, data)

    def one_chunk(state, _):
        stream, items = problem.stream.draw(state.stream)
        state = _begin_task(problem, state._replace(stream=stream))
        state, found = learning.learn(problem, state, items, unroll)
        if problem.keeper:
            state = problem.keeper.update(state)
        return state, jax.tree.map(jnp.mean, found)

    def one_bin(state, _):
        before = state.params
        state, measured = jax.lax.scan(one_chunk, state, None, length=chunks)
        found = jax.tree.map(jnp.mean, measured)
        if problem.stream.test:
            tested = evaluation.evaluate(problem, state, problem.stream.test)
            found |= {f"test_{name}": value for name, value in tested.items()}
        found["weight_change"] = metrics.weight_change(before, state.params)
        stream, items = problem.stream.draw(state.stream)
        after = _begin_task(problem, state._replace(stream=stream))
        item = jax.tree.map(lambda x: x[0], items)
        found |= observation.observe(
            problem, after, lambda s: learning.step(problem, s, item)
        )
        return state, (found, jax.tree.map(lambda x: x[0], measured))

    # A key of its own: what is learned does not depend on where segments end.
    key, key_fresh = jax.random.split(state.key_fresh)
    state = state._replace(key_fresh=key)
    stream, items = problem.stream.draw(state.stream)
    state, (found, measured) = jax.lax.scan(one_bin, state, None, length=bins)
    if fresh:
        other = init(build, key_fresh, state.hparams, data)._replace(stream=stream)
        _, beginner = learning.learn(problem, other, items, unroll)
        for name, values in measured.items():
            found[f"{name}_first"] = jnp.broadcast_to(values[0], (bins,))
            found[f"{name}_fresh"] = jnp.broadcast_to(beginner[name].mean(), (bins,))
    return state, found


def _begin_task(problem: Problem, state: TrainState) -> TrainState:
    """Lets ``on_task`` act if the chunk just drawn begins a new task."""
    if problem.on_task is None:
        return state

    key, key_task = jax.random.split(state.key_task)
    begins = problem.stream.begins(state.stream)
    leave = lambda state, key: state
    state = state._replace(key_task=key)
    return branch.cond(begins, problem.on_task, leave, state, key_task)
