"""What may be done when a task begins or ends, beside learning."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import branch, supervised
from loplax.supervised.problem import Keeper, Network, Problem, TrainState
from loplax.units import paths

OnTask = Callable[[TrainState, jax.Array], TrainState]


def reset_head(network: Network, head: str, *, zero: bool) -> OnTask:
    """At a new task the output layer starts again.

    Args:
      network: the model.
      head: name of the output layer, the whole or a part of its path among the
        parameters: ``"output"`` is also ``"dense/output"``.
      zero: whether the layer becomes 0; otherwise it is drawn anew.

    Returns:
      ``Problem.on_task``. The optimiser's state is left as it is.

    Raises:
      ValueError: if no parameter belongs to such a layer.

    References:
      Dohare et al., Nature 632, 2024: zero in "Continual ImageNet", drawn anew in
      "Class-incremental CIFAR-100"; Nikishin et al. 2022.
    """
    inside = lambda name: f"/{head}/" in f"/{name}/"
    shapes, _ = jax.eval_shape(network.init, jax.random.key(0))
    names = list(paths.by_path(shapes).leaves)
    if not any(map(inside, names)):
        raise ValueError(f"no layer {head!r} among {names}.")

    def on_task(state: TrainState, key: jax.Array) -> TrainState:
        def start_again(path, old, new):
            if not inside(paths.name(path)):
                return old
            return jnp.zeros_like(old) if zero else new

        fresh, _ = network.init(key)
        params = jax.tree.map_with_path(start_again, state.params, fresh)
        return state._replace(params=params)

    return on_task


def reset_all(network: Network, tx: optax.GradientTransformation) -> OnTask:
    """At a new task network and optimiser start again.

    Args:
      network: the model.
      tx: the transformation.

    Returns:
      ``Problem.on_task``. Schedules of optax go on, since they count the run's steps.
    """
    is_schedule = lambda state: isinstance(state, optax.ScaleByScheduleState)
    keep = lambda new, old: old if is_schedule(new) else new

    def on_task(state: TrainState, key: jax.Array) -> TrainState:
        params, stats = network.init(key)
        opt = jax.tree.map(keep, tx.init(params), state.opt, is_leaf=is_schedule)
        return state._replace(params=params, stats=stats, opt=opt)

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
