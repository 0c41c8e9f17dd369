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
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    apply: Callable[[Any, Any, Any], tuple[Any, Any]]
    predict: Callable[[Any, Any, Any], Any]
    restart: Callable[[Any, Any], Any] = lambda stats, replaced: stats


def stateless(init: Callable, apply: Callable) -> Network:
    """A network without statistics.

    Args:
      init: ``key -> params``.
      apply: ``(params, inputs) -> outputs``.

    Returns:
      The network.
    """
    return Network(
        init=lambda key: (init(key), ()),
        apply=lambda params, stats, x: (apply(params, x), stats),
        predict=lambda params, stats, x: apply(params, x),
    )


class Keeper(NamedTuple):
    """Something to do after every chunk, with a memory of its own.

    Attributes:
      init: ``TrainState -> memory``.
      update: ``TrainState -> TrainState``; finds its memory in ``state.memory``.
    """

    init: Callable[["TrainState"], Any]
    update: Callable[["TrainState"], "TrainState"]


class Problem(NamedTuple):
    """What to learn, with what. Its numbers may be traced.

    Attributes:
      stream: the stream of examples.
      network: the model.
      loss: ``(outputs, targets) -> [examples]``, or a scalar for a single example.
      tx: the transformation.
      groups: hidden layers that the diagnostics look at, in forward order.
      measures: what else to measure, each like ``loss``; ``accuracy``, say.
      forward: ``(params, stats, inputs) -> ((outputs, stats), features)``, which gives
        ``tx`` its features; by default ``network.apply`` with its units tapped.
      features: ``(params, stats, inputs) -> features`` of ``groups``, for the
        diagnostics; by default those of ``network.predict``, tapped.
      on_task: ``(TrainState, key) -> TrainState``, at the beginning of every task but
        the first.
      keeper: what to do after every chunk.
      observe: names of the diagnostics at the end of each bin, keys of
        ``loplax.supervised.FAMILIES``.
    """

    stream: base.Stream
    network: Network
    loss: Callable[[Any, Any], jax.Array]
    tx: optax.GradientTransformation
    groups: units.Units
    measures: Mapping[str, Callable[[Any, Any], jax.Array]] = {}
    forward: Callable | None = None
    features: Callable | None = None
    on_task: Callable[["TrainState", jax.Array], "TrainState"] | None = None
    keeper: Keeper | None = None
    observe: tuple[str, ...] = ("weights", "features")


class TrainState(NamedTuple):
    """State of a run.

    Attributes:
      params: network parameters.
      stats: network statistics.
      initial: the parameters at the start.
      opt: state of the transformation.
      stream: state of the stream.
      memory: what the keeper keeps.
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
    memory: Any
    hparams: dict[str, jax.Array]
    key_tx: jax.Array
    key_task: jax.Array
    key_fresh: jax.Array


# (hparams, key of the transformation, data) -> Problem
Build = Callable[[dict[str, jax.Array], jax.Array, Any], Problem]
