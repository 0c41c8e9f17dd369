"""The sections of a configuration that say what methods do, and what is swept."""

import itertools
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from experiments.methods.table import PLUGINS
from loplax import checks, spelling

# All methods of one plugin that are worth comparing.
ALL = tuple(name for name, plugin in PLUGINS.items() if plugin.compared)
# The choices of all plugins by address.
_CHOICES = {
    f"{name}.{choice}": value
    for name, plugin in PLUGINS.items()
    for choice, value in plugin.choices.items()
}
# The defaults of all plugins by address.
DEFAULTS = {
    f"{name}.{setting}": value
    for name, plugin in PLUGINS.items()
    for setting, value in {**plugin.numbers, **plugin.choices}.items()
}


def check_preset(preset: str, presets: Mapping[str, str]) -> None:
    """Raises ``ValueError`` with the nearest name unless there is such a preset."""
    checks.one_of("preset", preset, tuple(presets))


def add_methods(config: ml_collections.ConfigDict) -> None:
    """Adds a section for every plugin that has numbers or choices: its defaults.

    A section may also get numbers of the optimiser, ``learning_rate`` say, which then
    hold for the methods with that plugin.

    Args:
      config: the configuration, with its ``learning_rate``.
    """
    for name, plugin in PLUGINS.items():
        if plugin.numbers or plugin.choices:
            section = {**plugin.numbers, **plugin.choices}
            config[name] = ml_collections.ConfigDict(section)


def add_sweep(config: ml_collections.ConfigDict, *others: str) -> None:
    """Adds the values to sweep, none: all combinations run, of what a method uses.

    Numbers are traced, and swept within one program; each combination of choices, such
    as the size of a buffer, is a method of its own, see `variants`.

    Args:
      config: the configuration, complete.
      *others: addresses of further numbers that can be swept.
    """
    config.sweep = ml_collections.ConfigDict()
    for address in ("learning_rate", *others):
        *path, name = address.split(".")
        section = config.sweep
        for part in path:
            section[part] = section.get(part, ml_collections.ConfigDict())
            section = section[part]
        section[name] = ()
    for name, plugin in PLUGINS.items():
        held = [n for n, value in plugin.choices.items() if isinstance(value, tuple)]
        own = sorted(set(config.get(name, ())) - set(held))
        if own:
            config.sweep[name] = dict.fromkeys(own, ())


def swept(config: ml_collections.ConfigDict) -> dict[str, list[float]]:
    """The values to sweep by address, of the numbers that have any.

    Args:
      config: the configuration.

    Returns:
      For example ``{"cbp.replacement_rate": [1e-4, 1e-3]}``.

    Raises:
      ValueError: for a value that is no finite number.
    """
    found = {at: values for at, values in _asked(config) if at not in _CHOICES}
    for address, values in found.items():
        for value in values:
            real = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not real or not math.isfinite(value):
                raise ValueError(f"{address} takes finite numbers only, got {value!r}.")
    return found


def _asked(config) -> list[tuple[str, list]]:
    """Addresses that have values to sweep, with these."""
    return [(at, list(values)) for at, values in flatten(config.sweep) if len(values)]


def check_swept(config, methods: Mapping[str, Iterable[str]]) -> None:
    """Refuses values to sweep that belong to a plugin of no method.

    Args:
      config: the configuration.
      methods: for every method its plugins.

    Raises:
      ValueError: if there are any.
    """
    used = {plugin for plugins in methods.values() for plugin in plugins}
    for address, _ in _asked(config):
        plugin = address.partition(".")[0]
        if plugin in PLUGINS and plugin not in used:
            raise ValueError(
                f"{address} is swept, but no method of {list(methods)} has it: add one "
                f"with {plugin}, or sweep it no more, sweep.{address}=()."
            )


def variants(config, methods: Mapping[str, Iterable[str]]) -> list[tuple]:
    """The methods to run: each in all combinations of its swept choices.

    Args:
      config: the configuration.
      methods: for every method its plugins.

    Returns:
      ``(name, method, configuration)`` each: ``er er.capacity=100`` is the method
      ``er`` in a configuration with that capacity.

    Raises:
      ValueError: for a value of another type than the default's.
    """
    asked = {at: values for at, values in _asked(config) if at in _CHOICES}
    for address, values in asked.items():
        default = _CHOICES[address]
        if any(type(value) is not type(default) for value in values):
            raise ValueError(f"{address} takes such as {default!r}, got {values}.")
    found = []
    for name, plugins in methods.items():
        own = {at: v for at, v in asked.items() if at.partition(".")[0] in plugins}
        for point in itertools.product(*own.values()):
            changed = config.copy_and_resolve_references()
            for address, value in zip(own, point, strict=True):
                changed.update_from_flattened_dict({address: value})
            ends = [f" {at}={value}" for at, value in zip(own, point, strict=True)]
            found.append((name + "".join(ends), name, changed))
    return found


def check_known(config, address: str) -> None:
    """Refuses the address of a setting that is not there.

    Args:
      config: the configuration.
      address: the address, ``cbp.decay_rate`` or ``sweep.cbp.decay_rate``.

    Raises:
      ValueError: with the setting that may have been meant, or with those that the
        section has.
    """
    every = [at for at, _ in flatten(config)]
    if address in every:
        return
    sweep = "sweep." if address.startswith("sweep.") else ""
    own = address.removeprefix(sweep)
    if sweep and own in every:
        raise ValueError(
            f"{own} is a setting that is not swept: run the study once for each value."
        )
    alike = [at for at in every if at.startswith("sweep.") == bool(sweep)]
    known = [at.removeprefix(sweep) for at in alike]
    section, _, name = own.partition(".")
    inside = [at.partition(".")[2] for at in known if at.startswith(f"{section}.")]
    has = ""
    if inside or section in PLUGINS:
        has = f"; {section} has {', '.join(inside) or 'none'}"
        known, own, sweep = inside, name, f"{sweep}{section}."
    # Compared without what they have in common, which makes all of them alike.
    meant = [f"; did you mean {sweep + at!r}?" for at in spelling.near(own, known)]
    raise ValueError(f"there is no setting {address!r}{next(iter(meant), has)}")


def flatten(section: Mapping, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a configuration, or of a part of it, with its address."""
    for name, value in section.items():
        if hasattr(value, "items"):
            yield from flatten(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def each(config, values: Mapping[str, float]) -> Iterator[dict[str, float]]:
    """The numbers of a method, then with each of their swept values in turn.

    Args:
      config: the configuration.
      values: the numbers by address.

    Yields:
      The numbers by address: all that is to be checked before anything runs.
    """
    yield dict(values)
    for address, others in swept(config).items():
        for value in others if address in values else ():
            yield {**values, address: value}
