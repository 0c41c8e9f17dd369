"""Norms with parameters and statistics of their own for every task."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from loplax import streams
from loplax.supervised.problem import Keeper, Network, TrainState
from loplax.units import paths

NAME = "task_norms"


class TaskNorms(NamedTuple):
    """Statistics of a network whose norms are remembered.

    Attributes:
      now: the statistics of the network itself.
      params: parameters of its norms at the end of each task, ``[tasks, ...]`` by path;
        NaN where there are none: of tasks to come, and of units replaced since.
      stats: the same of ``now``.
    """

    now: Any
    params: dict[str, jax.Array]
    stats: dict[str, jax.Array]


class PerTask(NamedTuple):
    """What a problem needs to test every task with its own norms.

    Attributes:
      network: the network, its statistics being `TaskNorms`.
      keeper: the last of ``Problem.keepers``: it remembers the norms of the task.
      by_subset: as in ``Problem``.
    """

    network: Network
    keeper: Keeper
    by_subset: Callable[[TrainState, jax.Array], tuple[Any, Any]]


def per_task(
    network: Network,
    stream: streams.Stream,
    groups,
    *,
    is_norm: Callable[[str], bool] = lambda path: "norm" in path,
) -> PerTask:
    """Tests every earlier task with the norms that it ended with.

    One set of norms learns and goes on from task to task. What it was at the end of a
    task, scales, biases and running statistics, is what that task is tested with later;
    the present task is tested with the present ones. So a test has to know the task. A
    unit that is replaced has no past: it is tested with what it has now.

    Args:
      network: the network.
      stream: the stream, whose subsets are the tasks.
      groups: the ``UnitGroup`` records of units that may be replaced.
      is_norm: whether the parameter of a path belongs to a norm.

    Returns:
      The network with a memory, and what makes it remember and be tested.

    Raises:
      ValueError: if the subsets are not the tasks, or there is nothing to remember.

    References:
      Laborieux et al., `Synaptic metaplasticity in binarized neural networks
      <https://doi.org/10.1038/s41467-021-22768-y>`_, Nature Communications 12, 2021,
      and the authors' code.
    """
    tasks = _tasks(stream)
    rows = lambda leaf: jnp.full((tasks, *leaf.shape), jnp.nan, leaf.dtype)

    def norms(params, stats) -> tuple[dict, dict]:
        params, stats = paths.by_path(params).leaves, paths.by_path(stats).leaves
        real = {path: leaf for path, leaf in stats.items() if _is_real(leaf)}
        return {path: leaf for path, leaf in params.items() if is_norm(path)}, real

    if not any(norms(*jax.eval_shape(network.init, jax.random.key(0)))):
        raise ValueError("per_task: the network has neither norms nor statistics.")

    def init(key):
        params, stats = network.init(key)
        return params, TaskNorms(stats, *jax.tree.map(rows, norms(params, stats)))

    def apply(params, known: TaskNorms, x):
        outputs, now = network.apply(params, known.now, x)
        return outputs, known._replace(now=now)

    def restart(known: TaskNorms, replaced):
        params = dict(known.params)
        for group in groups:
            for axis in (*group.scales, *group.biases):
                if axis.path in params and group.name in replaced:
                    shape = params[axis.path].shape[1:]
                    gone = axis.spread(replaced[group.name], shape)
                    params[axis.path] = jnp.where(gone, jnp.nan, params[axis.path])
        # What becomes a number again is of a unit that is replaced.
        unknown = jax.tree.map(
            lambda x: jnp.full_like(x, jnp.nan) if _is_real(x) else x, known.now
        )
        marked = paths.by_path(network.restart(unknown, replaced)).leaves
        stats = {
            path: jnp.where(jnp.isnan(marked[path]), row, jnp.nan)
            for path, row in known.stats.items()
        }
        return TaskNorms(network.restart(known.now, replaced), params, stats)

    def remember(state: TrainState) -> TrainState:
        known, task = state.stats, stream.task(state.stream)
        now = norms(state.params, known.now)
        new = jax.tree.map(lambda row, x: row.at[task].set(x), tuple(known[1:]), now)
        return state._replace(stats=TaskNorms(known.now, *new))

    def by_subset(state: TrainState, number: jax.Array):
        known, earlier = state.stats, number < stream.task(state.stream)

        def as_it_was(tree, rows):
            found = paths.by_path(tree)
            for path, row in rows.items():
                then, now = row[number], found.leaves[path]
                found.leaves[path] = jnp.where(earlier & ~jnp.isnan(then), then, now)
            return found.unflatten()

        stats = known._replace(now=as_it_was(known.now, known.stats))
        return as_it_was(state.params, known.params), stats

    predict, embed = (
        function and (lambda params, known, x, of=function: of(params, known.now, x))
        for function in (network.predict, network.embed)
    )
    wrapped = network._replace(
        init=init, apply=apply, predict=predict, restart=restart, embed=embed
    )
    return PerTask(
        wrapped, Keeper(NAME, lambda state: (), on_chunk=remember), by_subset
    )


def _is_real(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _tasks(stream: streams.Stream) -> int:
    """The number of tasks, which the stream's subsets must be."""
    subsets = stream.test.subsets if stream.test else ()
    if not subsets or subsets != tuple(map(str, range(len(subsets)))):
        raise ValueError(
            "per_task needs a stream whose subsets are its tasks, '0', '1' and so on; "
            f"got {subsets}."
        )
    return len(subsets)
