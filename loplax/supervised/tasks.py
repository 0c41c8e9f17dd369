"""What may be done when a task begins or ends, beside learning."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import branch, optim, supervised
from loplax.supervised.problem import Keeper, Problem, TrainState
from loplax.units import paths

OnTask = Callable[[TrainState, jax.Array], TrainState]


def in_head(problem: Problem) -> Callable[[str], bool]:
    """Says of a parameter by its path whether it belongs to the output layer.

    Args:
      problem: the problem; its ``head`` names the layer.

    Returns:
      ``path -> bool``.

    Raises:
      ValueError: if no parameter belongs to such a layer.
    """
    inside = lambda name: f"/{problem.head}/" in f"/{name}/"
    shapes, _ = jax.eval_shape(problem.network.init, jax.random.key(0))
    names = list(paths.by_path(shapes).leaves)
    if not any(map(inside, names)):
        raise ValueError(f"no layer {problem.head!r} among {names}.")
    return inside


def reset_head(problem: Problem, *, zero: bool) -> OnTask:
    """At a new task the output layer starts again.

    Args:
      problem: the problem.
      zero: whether the layer becomes 0; otherwise it is drawn anew.

    Returns:
      One of ``Problem.on_task``. The optimiser's state is left as it is.

    Raises:
      ValueError: if no parameter belongs to such a layer.

    References:
      Dohare et al., Nature 632, 2024: zero in "Continual ImageNet", drawn anew in
      "Class-incremental CIFAR-100"; Nikishin et al. 2022.
    """
    inside = in_head(problem)

    def on_task(state: TrainState, key: jax.Array) -> TrainState:
        def start_again(path, old, new):
            if not inside(paths.name(path)):
                return old
            return jnp.zeros_like(old) if zero else new

        fresh, _ = problem.network.init(key)
        params = jax.tree.map_with_path(start_again, state.params, fresh)
        return state._replace(params=params)

    return on_task


def reset_all(problem: Problem) -> OnTask:
    """At a new task network and optimiser start again.

    Args:
      problem: the problem.

    Returns:
      One of ``Problem.on_task``. Schedules of optax go on, since they count the run's
      steps.
    """
    is_schedule = lambda state: isinstance(state, optax.ScaleByScheduleState)
    keep = lambda new, old: old if is_schedule(new) else new

    def on_task(state: TrainState, key: jax.Array) -> TrainState:
        params, stats = problem.network.init(key)
        new = problem.tx.init(params)
        opt = jax.tree.map(keep, new, state.opt, is_leaf=is_schedule)
        return state._replace(params=params, stats=stats, opt=opt)

    return on_task


def reset_optimizer(problem: Problem) -> OnTask:
    """At a new task the optimiser starts again, with its schedules.

    What stands around it, and what it draws or remembers of units, goes on.

    Args:
      problem: the problem; its optimiser is marked by `optim.restartable`.

    Returns:
      One of ``Problem.on_task``.
    """
    restarts = lambda state: isinstance(state, optim.RestartableState)
    choose = lambda old, new: new if restarts(old) else old

    def on_task(state: TrainState, key: jax.Array) -> TrainState:
        new = problem.tx.init(state.params)
        opt = jax.tree.map(choose, state.opt, new, is_leaf=restarts)
        return state._replace(opt=opt)

    return on_task


class Best(NamedTuple):
    """What early stopping keeps.

    Attributes:
      accuracy: the best validation accuracy of the task so far.
      params: the parameters then.
      stats: the statistics then.
    """

    accuracy: jax.Array
    params: Any
    stats: Any


def early_stopping(problem: Problem) -> Keeper:
    """Ends every task with the weights of its best validation epoch.

    Args:
      problem: the problem; its stream has a ``validation`` without subsets,
        ``epoch_ends`` and ``task_ends``, its measures an ``"accuracy"``.

    Returns:
      One of ``Problem.keepers``. The optimiser's state is left as it is.

    Raises:
      ValueError: if the problem lacks one of these.

    References:
      Dohare et al., Nature 632, 2024, "Class-incremental CIFAR-100".
    """
    stream = problem.stream
    needed = (stream.validation, stream.epoch_ends, stream.task_ends)
    if None in needed or "accuracy" not in problem.measures:
        raise ValueError(
            "early stopping needs a stream with validation, epoch_ends and task_ends, "
            "and a measure 'accuracy'."
        )
    if stream.validation.subsets:
        raise ValueError(
            "early stopping needs a validation without subsets, got "
            f"{stream.validation.subsets}."
        )
    name = "early_stopping"

    def init(state: TrainState) -> Best:
        copy = jax.tree.map(jnp.copy, (state.params, state.stats))
        return Best(jnp.float32(-1), *copy)

    def validate(state: TrainState) -> Best:
        accuracy = supervised.evaluate(problem, state, stream.validation)["accuracy"]
        new = Best(accuracy, state.params, state.stats)
        best = state.memory[name]
        return _select(accuracy > best.accuracy, new, best)

    def on_chunk(state: TrainState) -> TrainState:
        ends = stream.epoch_ends(state.stream)
        best = branch.cond(ends, validate, lambda state: state.memory[name], state)
        over = stream.task_ends(state.stream)
        params, stats = _select(over, best[1:], (state.params, state.stats))
        best = best._replace(accuracy=jnp.where(over, -1.0, best.accuracy))
        memory = state.memory | {name: best}
        return state._replace(params=params, stats=stats, memory=memory)

    return Keeper(name, init, on_chunk=on_chunk)


def _select(flag, new, old):
    return jax.tree.map(lambda new, old: jnp.where(flag, new, old), new, old)
