"""What a transformation is told when a task is over."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from loplax import branch, optim
from loplax.supervised import evaluation
from loplax.supervised.problem import Keeper, Problem, TrainState


def consolidating(
    problem: Problem,
    name: str,
    consolidate: Callable[..., Any],
    importance: Callable[[TrainState], Any] | None = None,
) -> Keeper:
    """Consolidates at the end of every task.

    Args:
      problem: the problem; its stream has ``task_ends``.
      name: of the keeper; it keeps nothing of its own.
      consolidate: ``(opt, params) -> opt``, or ``(opt, params, importance) -> opt``, of
        a transformation such as `optim.elastic_weight_consolidation`.
      importance: ``TrainState -> importance``, with the stream still at the task that
        ends.

    Returns:
      One of ``Problem.keepers``.

    Raises:
      ValueError: for a stream without ends of tasks.
    """
    ends = problem.stream.task_ends
    if ends is None:
        raise ValueError(f"{name} needs tasks: the stream has no task_ends.")

    def end(state: TrainState):
        found = (importance(state),) if importance else ()
        return consolidate(state.opt, state.params, *found)

    def on_chunk(state: TrainState) -> TrainState:
        over = ends(state.stream)
        opt = branch.cond(over, end, lambda state: state.opt, state)
        return state._replace(opt=opt)

    return Keeper(name, lambda state: (), on_chunk=on_chunk)


def fisher(problem: Problem, examples: int) -> Callable[[TrainState], Any]:
    """The empirical Fisher information of the loss on a task's first examples.

    Args:
      problem: the problem; its stream has a ``session``, its network is evaluated on
        one example at a time.
      examples: about so many, in whole batches of the session; 0 for all.

    Returns:
      ``TrainState -> importance``, see `optim.fisher`.

    Raises:
      ValueError: for a stream without sessions, or a network whose outputs for an
        example depend on others.
    """

    def of(params, stats, x, y, counted):
        loss = lambda params, x, y: problem.loss(
            problem.network.predict(params, stats, x), y
        )
        return optim.fisher(loss, params, x, y, weights=counted)

    return _mean(problem, of, examples)


def sensitivity(problem: Problem, examples: int) -> Callable[[TrainState], Any]:
    """How much the outputs for a task's first examples depend on each weight.

    Args:
      problem: as for `fisher`.
      examples: likewise.

    Returns:
      ``TrainState -> importance``, see `optim.sensitivity`.

    Raises:
      ValueError: as `fisher`.
    """

    def of(params, stats, x, y, counted):
        predict = lambda params, x: problem.network.predict(params, stats, x)
        return optim.sensitivity(predict, params, x, weights=counted)

    return _mean(problem, of, examples)


def _mean(problem: Problem, of: Callable, examples: int):
    """The mean over examples of what a batch's mean is."""
    held_out = problem.stream.session
    if held_out is None:
        raise ValueError(
            "importance is of a task's examples: the stream has no session."
        )
    if not problem.network.per_example:
        raise ValueError(
            "importance is of single examples, but this network is evaluated with the "
            "statistics of a batch: it must have running ones."
        )

    def importance(state: TrainState):
        _, _, weights = jax.eval_shape(held_out.batch, state.stream, 0)
        batches = -(-examples // weights.shape[0]) or held_out.batches
        some = held_out._replace(batches=min(batches, held_out.batches))

        def one_batch(params, stats, x, y, counted):
            number = jnp.sum(counted)
            found = of(params, stats, x, y, counted)
            return jax.tree.map(lambda x: x * number, found), number

        sums, number = evaluation.total(state, some, one_batch)
        return jax.tree.map(lambda x: x / number, sums)

    return importance
