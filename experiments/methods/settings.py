"""The sections of a configuration that say what methods do, and what is swept."""

import math
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from experiments.methods.table import PLUGINS
from loplax import checks

# All methods of one plugin that are worth comparing.
ALL = tuple(name for name, plugin in PLUGINS.items() if plugin.compared)
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
        own = sorted(set(config.get(name, ())) - set(plugin.choices))
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
    found = {at: list(values) for at, values in flatten(config.sweep) if len(values)}
    for address, values in found.items():
        for value in values:
            if not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise ValueError(f"{address} takes finite numbers only, got {value!r}.")
    return found


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
