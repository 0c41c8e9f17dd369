"""What a method builds: its transformation, its network, the slots of the learner."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optax

from experiments.methods.composing import Method
from experiments.methods.plugin import Plugin, Setting, Stage
from loplax import checks, optim, streams
from loplax.optim import keys
from loplax.supervised import Network, Problem

# What builders are given before the plugin's own; those of other slots a problem.
_GIVEN = {
    "optimizer": ("setting",),
    "gradient": ("setting",),
    "wrap": ("inner", "setting"),
    "around": ("network", "shape"),
    "stream": ("stream",),
    "lone_stream": ("stream",),
}


def transformation(
    made: Method,
    hparams: Mapping[str, Any],
    key,
    *,
    groups,
    initializer,
    schedule: Callable = lambda rate: rate,
    restarts: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Builds the transformation of a method.

    Args:
      made: the method.
      hparams: its numbers by address, numbers or traced.
      key: typed random key.
      groups: the hidden layers.
      initializer: distribution of re-drawn weights, or one per path.
      schedule: makes of a learning rate what the optimiser takes.
      restarts: whether the optimiser begins anew in every session.

    Returns:
      The transformation: what is done to gradients, then the optimiser, and around it
      what the other plugins put there, by their stages and in the order of their names.

    Raises:
      ValueError: for a number out of range.
    """
    for address in made.values:
        checks.in_range(address, hparams[address], 0)
    per_unit = any(
        plugin.per_unit(made.choices[each]) for each, plugin in made.plugins.items()
    )

    def setting(each: str) -> Setting:
        highest = made.own(each, made.highest)
        own_key = keys.named(key, each)
        return Setting(groups, initializer, own_key, highest, per_unit)

    numbers = made.own(made.optimizer, hparams)
    rate = schedule(numbers.pop("learning_rate"))
    rate_last = any(plugin.stage == Stage.RATE for plugin in made.plugins.values())
    numbers["learning_rate"] = 1.0 if rate_last else rate
    optimizer = _builder(made.optimizer, made.plugins[made.optimizer], "optimizer")
    tx = optimizer(setting(made.optimizer), **numbers)
    if restarts or any(plugin.restarts for plugin in made.plugins.values()):
        tx = optim.restartable(tx)
    for each, build in _filled(made, "gradient"):
        tx = optax.chain(build(setting(each), **_given(made, each, hparams)), tx)
    for each, build in _filled(made, "wrap"):
        tx = build(tx, setting(each), **_given(made, each, hparams))
        if made.plugins[each].stage == Stage.RATE:
            # So that a schedule counts the steps of all that learns in turn.
            tx = optax.chain(tx, optax.scale_by_learning_rate(rate, flip_sign=False))
    return optax.with_extra_args_support(tx)


def _filled(made: Method, slot: str) -> Iterable[tuple[str, Callable]]:
    """Plugins that fill a slot, with what they put there, by stage and then by name."""
    ordered = sorted(made.plugins.items(), key=lambda item: item[1].stage)
    return [(n, _builder(n, p, slot)) for n, p in ordered if getattr(p, slot)]


def _builder(name: str, plugin: Plugin, slot: str) -> Callable:
    """What a plugin has in a slot; if it cannot take what it is given, that is said."""
    build = getattr(plugin, slot)

    def checked(*given, **own):
        try:
            inspect.signature(build).bind(*given, **own)
        except TypeError:
            takes = ", ".join((*_GIVEN.get(slot, ("problem",)), *own))
            raise ValueError(f"plugin {name}: {slot} must take ({takes}).") from None
        return build(*given, **own)

    return checked


def _given(made: Method, each: str, hparams: Mapping) -> dict[str, Any]:
    return made.own(each, hparams) | made.choices[each]


def network(made: Method, plain: Network, hparams: Mapping, shape) -> Network:
    """The network of a method.

    Args:
      made: the method.
      plain: the network that its options made.
      hparams: the numbers by address, or traced.
      shape: shape of the input of one example.

    Returns:
      The network that learns: ``plain`` itself if no plugin puts anything around it.

    Raises:
      ValueError: for a number out of range.
    """
    for each, build in _filled(made, "around"):
        plain = build(plain, shape, **_given(made, each, hparams))
    return plain


def stream(made: Method, plain: streams.Stream, hparams: Mapping) -> streams.Stream:
    """The stream of a method.

    Args:
      made: the method.
      plain: the problem's stream.
      hparams: the numbers by address, or traced.

    Returns:
      The stream: ``plain`` itself if no plugin changes it.

    Raises:
      ValueError: for a number out of range, or if a plugin needs a problem that is
        learned in sessions, and this is none.
    """
    for each, plugin in made.plugins.items():
        if plugin.sessions and plain.rehearse is None:
            raise ValueError(f"{each} needs a problem that is learned in sessions.")
    for each, build in _filled(made, "stream") or _filled(made, "lone_stream"):
        plain = build(plain, **_given(made, each, hparams))
    return plain


def fill(made: Method, problem: Problem, hparams: Mapping) -> Problem:
    """Fills the slots of a problem that a method's plugins have something for.

    Args:
      made: the method.
      problem: what it learns, complete but for them.
      hparams: the numbers by address, or traced.

    Returns:
      The problem. What is evaluated is what learns, and what plugins add.

    Raises:
      ValueError: for a number out of range, or a problem that lacks what one needs.
    """
    built = {
        slot: [
            build(problem, **_given(made, each, hparams))
            for each, build in _filled(made, slot)
        ]
        for slot in ("objective", "penalty", "extra_args", "keeper", "evaluated")
    }
    starts = [
        build(problem, **_given(made, each, hparams))
        for each, build in _filled(made, "on_task")
    ]
    merged = lambda parts: {name: of for part in parts for name, of in part.items()}
    return problem._replace(
        objective=next(iter(built["objective"]), None),
        penalties=tuple(built["penalty"]),
        extra_args=merged(built["extra_args"]),
        keepers=tuple(built["keeper"]),
        evaluated=merged([problem.evaluated, *built["evaluated"]]),
        on_task=(*problem.on_task, *starts),
    )
