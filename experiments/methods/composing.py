"""Methods as lists of plugins: what a name such as ``cbp+layer_norm`` means."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.methods import settings
from experiments.methods.plugin import Plugin
from experiments.methods.table import NAMED, PLUGINS, Named
from loplax import checks, source

_OURS = ("experiments", "loplax")
# Slots that hold several, or one where a plugin claims them.
SLOTS = ("gradient", "wrap", "around")
# Slots that are of no use where no stream of examples is learned.
OF_STREAMS = (
    "around",
    "stream",
    "objective",
    "penalty",
    "extra_args",
    "keeper",
    "evaluated",
    "on_task",
)


class Method(NamedTuple):
    """A method with all that a configuration says about it.

    Attributes:
      name: its name, as it was given.
      plugins: they by name, in that order; the optimiser comes first.
      optimizer: name of the plugin that is the optimiser.
      addresses: where each number is set, ``{plugin: {number: address}}``; an address
        is ``plugin.number``, or the name of a number that all methods share.
      values: the numbers by address.
      choices: of each plugin, ``{plugin: {choice: value}}``.
      highest: the largest value of each number in the study, by address.
    """

    name: str
    plugins: dict[str, Plugin]
    optimizer: str
    addresses: dict[str, dict[str, str]]
    values: dict[str, float]
    choices: dict[str, dict[str, Any]]
    highest: dict[str, float]

    def own(self, plugin: str, hparams: Mapping[str, Any]) -> dict[str, Any]:
        """The numbers of a plugin by their own names, from those by address."""
        return {name: hparams[at] for name, at in self.addresses[plugin].items()}

    @property
    def options(self) -> dict[str, Any]:
        """Options of the network."""
        return {k: v for p in self.plugins.values() for k, v in p.options.items()}

    def check_options(self, known: Collection[str]) -> None:
        """Raises ``ValueError`` for an option that a network does not have."""
        for name, plugin in self.plugins.items():
            for option in plugin.options:
                if option not in known:
                    raise ValueError(f"{name} needs a network with an option {option}.")

    def check_without_stream(self, where: str) -> None:
        """Raises ``ValueError`` for what needs a stream of examples, and has none."""
        for name, plugin in self.plugins.items():
            if plugin.sessions or any(getattr(plugin, slot) for slot in OF_STREAMS):
                raise ValueError(f"{name} has no place in {where}.")

    @property
    def described(self) -> dict[str, Any]:
        """What is fixed about the method, and no number, by name.

        Of a plugin that is not the project's the code too, which its author may change.
        """
        fixed = {
            f"{plugin}.{choice}": value
            for plugin, own in self.choices.items()
            for choice, value in own.items()
        }
        for name, plugin in self.plugins.items():
            functions = [each for each in plugin if callable(each)]
            theirs = [f for f in functions if source.package(f) not in _OURS]
            if theirs:
                fixed[f"code of {name}"] = source.digest(*theirs)
        return {"plugins": list(self.plugins), **fixed}


def method(config, name: str, items: int = 0) -> Method:
    """Reads a method's name, and what a configuration says about its plugins.

    Args:
      config: a configuration with the sections of ``settings.add_methods``.
      name: names of plugins, and of lists of them, joined by ``+``.
      items: how many items of the stream a run learns from; 0 if that is not known.

    Returns:
      The method.

    Raises:
      ValueError: for an unknown plugin or optimiser, one that is named twice, or two
        that claim one slot or set one number of the optimiser; for a step that comes
        after the last item.

    Example:
      >>> from experiments.slowly_changing_regression import config as configs
      >>> method(configs.get_config(), "cbp+layer_norm").values["cbp.decay_rate"]
      0.99
    """
    for each in name.split("+"):
        checks.one_of("methods", each, (*PLUGINS, *NAMED))
    parts = [NAMED[n].plugins if n in NAMED else n for n in name.split("+")]
    names = "+".join(parts).split("+")
    if len(set(names)) < len(names):
        raise ValueError(f"method {name!r} names a plugin twice.")
    known = [each for each, plugin in PLUGINS.items() if plugin.optimizer]
    optimizer = next((each for each in names if each in known), config.optimizer)
    checks.one_of("optimizer", optimizer, known)
    plugins = {each: PLUGINS[each] for each in dict.fromkeys([optimizer, *names])}
    _check_claims(name, plugins)
    addresses = {
        each: {n: f"{each}.{n}" for n in plugin.numbers if n not in plugin.sets}
        for each, plugin in plugins.items()
    }
    addresses[optimizer] = _of_optimizer(config, name, plugins, optimizer)
    values = {at: _get(config, at) for own in addresses.values() for at in own.values()}
    choices = {
        each: {choice: config[each][choice] for choice in plugin.choices}
        for each, plugin in plugins.items()
    }
    swept = settings.swept(config)
    for each, plugin in plugins.items():
        for at in (addresses[each][number] for number in plugin.halfway):
            values[at] = values[at] or items // 2
            _check_reached(at, (values[at], *swept.get(at, ())), items)
    highest = {at: max((value, *swept.get(at, ()))) for at, value in values.items()}
    return Method(name, plugins, optimizer, addresses, values, choices, highest)


def _check_reached(address: str, values: Sequence[float], items: int) -> None:
    """Refuses steps that a run of so many items, if that is known, does not reach."""
    for value in values if items else ():
        if not 0 < value < items:
            raise ValueError(
                f"{address} is {value:g}, which a run of {items} items never reaches: "
                f"choose 1 to {items - 1}, or leave the setting at 0: half of the run."
            )


def _check_claims(name: str, plugins: Mapping[str, Plugin]) -> None:
    """Refuses two plugins for one slot."""
    taken: dict[str, str] = {}
    claimed = {slot for plugin in plugins.values() for slot in plugin.claims}
    single = {"optimizer", "objective", "stream", *(claimed & set(SLOTS))}
    for each, plugin in plugins.items():
        filled = [slot for slot in sorted(single) if getattr(plugin, slot)]
        for slot in dict.fromkeys([*plugin.claims, *plugin.options, *filled]):
            if slot in taken:
                raise ValueError(
                    f"method {name!r}: {taken[slot]} and {each} both claim {slot}, of "
                    "which a method has one."
                )
            taken[slot] = each


def _of_optimizer(config, name, plugins, optimizer: str) -> dict[str, str]:
    """Addresses of the optimiser's numbers, some of which another plugin may set.

    One whose own number it is comes before those whose sections have it in addition;
    of several, the first, if they all say the same.
    """
    swept, own = settings.swept(config), plugins[optimizer].numbers
    found = {}
    for number in dict.fromkeys(["learning_rate", *own, "weight_decay"]):
        setters = [
            each
            for each, plugin in plugins.items()
            if each != optimizer
            and number in config.get(each, {})
            and (number in plugin.sets or number not in _own(plugin))
        ]
        setters = [n for n in setters if number in plugins[n].sets] or setters
        said = [
            (config[each][number], swept.get(f"{each}.{number}")) for each in setters
        ]
        if any(values != said[0] for values in said):
            raise ValueError(
                f"method {name!r}: {' and '.join(setters)} both set the optimiser's "
                f"{number}, to different values."
            )
        if setters or number in own:
            found[number] = f"{(setters or [optimizer])[0]}.{number}"
        elif number == "learning_rate":
            found[number] = number
    return found


def _own(plugin: Plugin) -> dict[str, Any]:
    """What only the plugin itself knows by these names."""
    return {**plugin.numbers, **plugin.choices}


def _get(config, address: str) -> Any:
    """What stands at an address such as ``cbp.replacement_rate``."""
    for part in address.split("."):
        config = config[part]
    return config


def label(name: str) -> str:
    """What figures call a method."""
    return " + ".join(_shown(each).label for each in name.split("+"))


def colour(name: str) -> str:
    """The colour of a method: the mixture of its plugins', as ``#rrggbb``."""
    shown = [_shown(each) for each in name.split("+")]
    mixed = [each.colour for each in shown if each.tints]
    mixed = mixed or [each.colour for each in shown]
    channels = [[int(c[i : i + 2], 16) for c in mixed] for i in (1, 3, 5)]
    means = [math.sqrt(sum(v * v for v in values) / len(mixed)) for values in channels]
    return "#" + "".join(f"{round(mean):02x}" for mean in means)


def _shown(name: str) -> Plugin | Named:
    """What a name stands for, with its label and colour."""
    return NAMED.get(name) or PLUGINS[name]
