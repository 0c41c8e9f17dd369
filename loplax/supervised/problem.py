"""What a supervised learner is made of: a stream, a network, a transformation."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from loplax import units
from loplax.streams import base


class Network(NamedTuple):
    """A model as pure functions.

    Attributes:
      init: ``key -> (params, stats)``; ``stats`` is what changes without gradients,
        such as the running statistics of BatchNorm, or ``()``.
      apply: ``(params, stats, inputs) -> (outputs, stats)``, while it learns.
      predict: ``(params, stats, inputs) -> outputs``, for evaluation.
      restart: ``(stats, replaced) -> stats`` gives the statistics of the units in
        ``replaced``, bool ``[size]`` per group name, their first values.
      embed: ``(params, stats, inputs) -> [batch, features]``, what the output layer is
        given, as in ``predict``; None where nothing needs it.
      per_example: whether what ``predict`` says of an example depends on it alone, and
        not on the others of a batch.
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    apply: Callable[[Any, Any, Any], tuple[Any, Any]]
    predict: Callable[[Any, Any, Any], Any]
    restart: Callable[[Any, Any], Any] = lambda stats, replaced: stats
    embed: Callable[[Any, Any, Any], jax.Array] | None = None
    per_example: bool = True


def stateless(
    init: Callable, apply: Callable, embed: Callable | None = None
) -> Network:
    """A network without statistics.

    Args:
      init: ``key -> params``.
      apply: ``(params, inputs) -> outputs``.
      embed: ``(params, inputs) -> [batch, features]``, what the output layer is given.

    Returns:
      The network.
    """
    return Network(
        init=lambda key: (init(key), ()),
        apply=lambda params, stats, x: (apply(params, x), stats),
        predict=lambda params, stats, x: apply(params, x),
        embed=embed and (lambda params, stats, x: embed(params, x)),
    )


class Seen(NamedTuple):
    """What a step learns from, and what the network makes of it.

    Attributes:
      item: the stream's item: indices, say, and the slots of a buffer that they fill.
      inputs: what the network sees.
      targets: what its outputs should be.
      outputs: what they are before the step.
      features: those that the transformation gets.
    """

    item: Any
    inputs: Any
    targets: Any
    outputs: Any
    features: Any


class Keeper(NamedTuple):
    """Something with a memory of its own: a teacher, a buffer, a mean of the weights.

    Attributes:
      name: where its memory is: ``state.memory[name]``, for whoever needs it.
      init: ``TrainState -> memory``.
      on_step: ``(TrainState, Seen) -> TrainState`` after every step. It may change all
        but the stream.
      on_chunk: ``TrainState -> TrainState`` after every chunk.
    """

    name: str
    init: Callable[["TrainState"], Any]
    on_step: Callable[["TrainState", Seen], "TrainState"] | None = None
    on_chunk: Callable[["TrainState"], "TrainState"] | None = None


class Problem(NamedTuple):
    """What to learn, with what. Its numbers may be traced.

    What a step descends is the mean of ``loss``, as the stream weighs the examples, or
    ``objective``, and all ``penalties``. These see the state before the step, with the
    parameters that they are differentiated by: a penalty on ``state.params``, or a
    distance of ``seen.outputs`` from those of a teacher in ``state.memory``. What a
    transformation needs to know, it is given: projecting the gradient takes another
    one, of replayed examples say, in ``extra_args``.

    Attributes:
      stream: the stream of examples.
      network: the model.
      loss: ``(outputs, targets) -> [examples]``, or a scalar for a single example.
      tx: the transformation.
      groups: hidden layers that the diagnostics look at, in forward order.
      measures: what else to measure, each like ``loss``; ``accuracy``, say.
      objective: ``(TrainState, Seen) -> scalar`` in place of the mean loss, which is
        still measured.
      penalties: ``(TrainState, Seen) -> scalar`` each, added to it.
      extra_args: further arguments of ``tx.update`` beside ``features``, by name:
        ``(TrainState, Seen) -> value`` each, with the state before the step.
      forward: ``(params, stats, inputs) -> ((outputs, stats), features)``, which gives
        ``tx`` its features; by default ``network.apply`` with its units tapped.
      features: ``(params, stats, inputs) -> features`` of ``groups``, for the
        diagnostics; by default those of ``network.predict``, tapped.
      on_task: what happens at the beginning of every task but the first, in this order:
        ``(TrainState, key) -> TrainState`` each.
      keepers: what else happens, in this order.
      evaluated: ``TrainState -> (params, stats)`` of what is tested, by the beginning
        of the names that the measures get; a mean of the weights in place of what
        learns, say, or beside it.
      by_subset: ``(TrainState, number) -> (params, stats)`` of what is tested on the
        subset with this number, where that differs; the state has what ``evaluated``
        gives. See `loplax.supervised.task_norms`.
      test_starts: whether tests also take place when a task begins, after ``on_task``
        and before the first step.
      head: name of the output layer, for whoever needs it: the whole or a part of its
        path among the parameters; ``"output"`` is also ``"dense/output"``.
      observe: names of the diagnostics at the end of each bin, keys of
        ``loplax.supervised.FAMILIES``.
    """

    stream: base.Stream
    network: Network
    loss: Callable[[Any, Any], jax.Array]
    tx: optax.GradientTransformation
    groups: units.Units
    measures: Mapping[str, Callable[[Any, Any], jax.Array]] = {}
    objective: Callable[["TrainState", Seen], jax.Array] | None = None
    penalties: tuple[Callable[["TrainState", Seen], jax.Array], ...] = ()
    extra_args: Mapping[str, Callable[["TrainState", Seen], Any]] = {}
    forward: Callable | None = None
    features: Callable | None = None
    on_task: tuple[Callable[["TrainState", jax.Array], "TrainState"], ...] = ()
    keepers: tuple[Keeper, ...] = ()
    evaluated: Mapping[str, Callable[["TrainState"], tuple[Any, Any]]] = {
        "test": lambda state: (state.params, state.stats)
    }
    by_subset: Callable[["TrainState", jax.Array], tuple[Any, Any]] | None = None
    test_starts: bool = False
    head: str = "output"
    observe: tuple[str, ...] = ("weights", "features")


class TrainState(NamedTuple):
    """State of a run.

    Attributes:
      params: network parameters.
      stats: network statistics.
      initial: the parameters at the start.
      opt: state of the transformation.
      stream: state of the stream.
      memory: what the keepers keep, by their names.
      hparams: the numeric settings, float scalars.
      key_tx: key given to the transformation.
      key_task: key of what ``on_task`` is still to draw.
      key_fresh: key of the freshly initialised networks to come.
    """

    params: Any
    stats: Any
    initial: Any
    opt: optax.OptState
    stream: Any
    memory: dict[str, Any]
    hparams: dict[str, jax.Array]
    key_tx: jax.Array
    key_task: jax.Array
    key_fresh: jax.Array


def check(problem: Problem) -> None:
    """Raises ``ValueError`` for names that are taken, or tests without examples."""
    names = [keeper.name for keeper in problem.keepers]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"keepers must have names of their own, got {names}.")
    if "features" in problem.extra_args:
        raise ValueError("extra_args must not have 'features': the network gives them.")
    if problem.test_starts and problem.stream.test is None:
        raise ValueError("test_starts is set, but the stream has nothing to test on.")


# (hparams, key of the transformation, data) -> Problem
Build = Callable[[dict[str, jax.Array], jax.Array, Any], Problem]
