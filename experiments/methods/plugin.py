"""What a method is made of: plugins, each of which fills one or more slots."""

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from loplax import units


class Setting(NamedTuple):
    """What the builders of a plugin may need beside its own numbers and choices.

    Attributes:
      groups: the hidden layers.
      initializer: distribution of re-drawn weights, or one per path.
      key: typed random key, the plugin's own.
      highest: the largest value that each of its numbers takes in the study.
      per_unit: whether the optimiser is to count steps per unit.
    """

    groups: units.Units
    initializer: Any
    key: jax.Array
    highest: Mapping[str, float] = {}
    per_unit: bool = False


class Stage(enum.IntEnum):
    """Where a plugin wraps the optimiser: the lowest first, around which the others go.

    Attributes:
      RATE: the learning rate comes after what it wraps.
      SCALE: it scales the steps of the optimiser.
      STEP: it does something beside them.
      FREEZE: it keeps weights as they are.
      READ: it reads the steps that are made.
      REPLACE: it sets weights to values that nothing may change.
    """

    RATE = 0
    SCALE = 1
    STEP = 2
    FREEZE = 3
    READ = 4
    REPLACE = 5


class Plugin(NamedTuple):
    """One entry of the table of methods: its numbers, and the slots that it fills.

    Builders get the plugin's numbers, which may be traced, and its choices as keyword
    arguments ``own``. Slots that hold one thing are ``optimizer``, ``objective``,
    ``stream``, those named in ``claims``, and every option of the network. What the
    slots of the learner return, `loplax.supervised.Problem` says; they are given the
    problem as it is without them.

    Attributes:
      label: what figures call it.
      colour: its colour, the same in every figure.
      numbers: its numbers with their defaults; every one can be swept.
      choices: its settings that are no numbers to sweep, with their defaults.
      sets: numbers of the optimiser among its own, which replace the optimiser's.
      halfway: numbers that are items of the stream before the end of the run; where
        they are 0 in a configuration, half of them all.
      claims: slots of which a method has one; ``gradient``, ``wrap`` or ``around``,
        where nothing beside it may fill them.
      options: options of the network that it learns with.
      optimizer: ``(setting, **numbers) -> transformation``; numbers include
        ``learning_rate``, which may be a schedule.
      gradient: ``(setting, **own) -> transformation`` before the optimiser.
      wrap: ``(inner, setting, **own) -> transformation`` around the optimiser.
      stage: where it wraps the optimiser; at one stage the order of the names counts.
      maintains: ``layer -> bool``, whether a hidden layer counts as one; a bottleneck
        that the plugin adds does not.
      per_unit: ``choices -> bool``, whether the optimiser counts steps per unit.
      around: ``(network, shape, **own) -> network`` for inputs of a shape.
      stream: ``(stream, **own) -> stream``.
      lone_stream: the same, in methods in which no other plugin changes the stream.
      objective: ``(problem, **own) -> Problem.objective``.
      penalty: ``(problem, **own) -> `` one of ``Problem.penalties``.
      extra_args: ``(problem, **own) -> Problem.extra_args``.
      keeper: ``(problem, **own) -> `` one of ``Problem.keepers``.
      evaluated: ``(problem, **own) -> Problem.evaluated``, beside what learns.
      on_task: ``(problem, **own) -> `` one of ``Problem.on_task``.
      draws_output: whether it cannot begin with output weights of 0.
      sessions: whether it needs a problem that is learned in sessions.
      restarts: whether the optimiser begins anew in every session.
      tints: whether its colour is mixed with those of the plugins beside it;
        that of what most methods of a problem have would tell nothing apart.
      compared: whether it is among all methods, when these are compared.
      does: what it does, in words that go on from its name.
      paper: where it comes from: authors and year.
      made_by: dotted name of what builds it, where its formula is.
      note: where its defaults come from, and what differs from the paper.
    """

    label: str
    colour: str
    numbers: Mapping[str, float] = {}
    choices: Mapping[str, Any] = {}
    sets: tuple[str, ...] = ()
    halfway: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    options: Mapping[str, Any] = {}
    optimizer: Callable | None = None
    gradient: Callable | None = None
    wrap: Callable | None = None
    stage: Stage = Stage.STEP
    maintains: Callable[[str], bool] = lambda layer: True
    per_unit: Callable[[Mapping[str, Any]], bool] = lambda choices: False
    around: Callable | None = None
    stream: Callable | None = None
    lone_stream: Callable | None = None
    objective: Callable | None = None
    penalty: Callable | None = None
    extra_args: Callable | None = None
    keeper: Callable | None = None
    evaluated: Callable | None = None
    on_task: Callable | None = None
    draws_output: bool = False
    sessions: bool = False
    restarts: bool = False
    tints: bool = True
    compared: bool = True
    does: str = ""
    paper: str = ""
    made_by: str = ""
    note: str = ""
