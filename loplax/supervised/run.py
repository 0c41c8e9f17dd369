"""Whole runs: init and segment, pure functions of a key and numbers."""

from typing import Any

import jax
import jax.numpy as jnp

from loplax import checks, streams
from loplax.supervised import binning, learning
from loplax.supervised.problem import Build, TrainState, check


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

    Raises:
      ValueError: if the problem is contradictory.
    """
    return _begin(build, key, hparams, data)


def _begin(build: Build, key, hparams, data, stream: Any = None) -> TrainState:
    """A new learner, of a new stream or of one that is somewhere."""
    key_task, key_stream, key_net, key_tx, key_fresh = jax.random.split(key, 5)
    problem = build(hparams, key_tx, data)
    check(problem)
    params, stats = problem.network.init(key_net)
    if stream is None:
        stream = problem.stream.init(key_stream)
    state = TrainState(
        params=params,
        stats=stats,
        initial=jax.tree.map(jnp.copy, params),  # so that the state can be donated
        opt=problem.tx.init(params),
        stream=stream,
        memory={},
        hparams=hparams,
        key_tx=key_tx,
        key_task=key_task,
        key_fresh=key_fresh,
    )
    memory = {keeper.name: keeper.init(state) for keeper in problem.keepers}
    return state._replace(memory=memory)


def segment(
    build: Build,
    state: TrainState,
    data: Any = (),
    *,
    bins: int,
    chunks: int = 1,
    bins_per_chunk: int = 1,
    unroll: int = 1,
    fresh: bool = True,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Learns from ``bins * chunks`` draws of the stream, one item after the other.

    A bin is some chunks, or with ``bins_per_chunk`` a part of one, down to a single
    step: it is as if the stream drew so few at a time, but what happens once per chunk
    still does.

    Args:
      build: as for `init`.
      state: where the run stands.
      data: as for `init`.
      bins: number of bins of the metrics.
      chunks: draws from the stream per bin.
      bins_per_chunk: bins of a draw; with more than one, ``chunks`` is 1.
      unroll: steps per iteration of the compiled loop.
      fresh: whether a freshly initialised network learns the first chunk too.

    Returns:
      The state, and metrics ``[bins]``:

      - ``loss`` and the problem's other measures: means over the bin, of each item
        before it is learned from;
      - ``task``: the number of the task, from 0, of the bin's last item;
      - ``test_loss`` and so on: the measures of what the stream tests, at the end of
        the bin, before anything happens at a new task; ``[bins, subsets]`` where the
        examples have subsets. Other names in ``Problem.evaluated`` than ``test`` stand
        before those of the measures likewise;
      - with ``Problem.test_starts`` also ``test_loss_start`` and so on: the same when
        ``task`` began, after what happens then and before the first step; NaN in bins
        in which no task begins;
      - the diagnostics of `observation.observe` at the end of the bin, on the task of
        the next item, and ``weight_change``, the bin's ``sum|change|``;
      - if ``fresh``, ``loss_first``, ``loss_fresh`` and so on: the measures over the
        segment's first chunk, of this run and of a freshly initialised network
        (repeated).

    Raises:
      ValueError: if the bins do not fit the chunks, the stream draws chunks of another
        length than it says, or the problem is contradictory.
    """
    problem = build(state.hparams, state.key_tx, data)
    check(problem)
    _check_bins(problem.stream, bins, chunks, bins_per_chunk)
    # A key of its own: what is learned does not depend on where segments end.
    key, key_fresh = jax.random.split(state.key_fresh)
    state = state._replace(key_fresh=key)
    before = state.stream
    stream, items = problem.stream.draw(before)
    _check_drawn(problem.stream, items)
    if bins_per_chunk == 1:
        one = lambda state, _: binning.of_chunks(problem, state, chunks, unroll)
        state, (found, first) = jax.lax.scan(one, state, None, length=bins)
    else:
        one = lambda state, _: binning.in_chunk(problem, state, bins_per_chunk, unroll)
        state, (found, first) = jax.lax.scan(one, state, None, bins // bins_per_chunk)
        found = jax.tree.map(lambda x: x.reshape(bins, *x.shape[2:]), found)
    if fresh:
        # What it keeps of the stream begins with where the stream is.
        other = _begin(build, key_fresh, state.hparams, data, before)
        other = other._replace(stream=stream)
        _, beginner = learning.learn(problem, other, items, unroll)
        for name, values in first.items():
            found[f"{name}_first"] = jnp.broadcast_to(values[0], (bins,))
            found[f"{name}_fresh"] = jnp.broadcast_to(beginner[name].mean(), (bins,))
    return state, found


def _check_bins(stream: streams.Stream, bins: int, chunks: int, parts: int) -> None:
    checks.whole("bins", bins, 1)
    checks.whole("chunks", chunks, 1)
    checks.whole("bins_per_chunk", parts, 1)
    if stream.chunk % parts or bins % parts:
        raise ValueError(
            f"bins_per_chunk ({parts}) must divide the {stream.chunk} items of a chunk "
            f"and the {bins} bins."
        )
    if parts > 1 and chunks > 1:
        raise ValueError(f"with bins_per_chunk {parts} chunks must be 1, got {chunks}.")


def _check_drawn(stream: streams.Stream, items: Any) -> None:
    for leaf in jax.tree.leaves(items):
        if jnp.shape(leaf)[:1] != (stream.chunk,):
            raise ValueError(
                f"the stream's chunk is {stream.chunk}, but draw gives items of the "
                f"shape {jnp.shape(leaf)}: their leading axis must be a chunk."
            )
