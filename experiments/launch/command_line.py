"""What a program does with its command line: flags, help, and bad input."""

import contextlib
import importlib
import os
import pathlib
import signal
import sys

from absl import flags
from ml_collections import config_flags

from experiments.launch import comments
from experiments.methods import composing, settings
from experiments.methods.plugin import Plugin
from experiments.methods.table import NAMED, PLUGINS
from loplax import checks


@contextlib.contextmanager
def clear_errors():
    """Ends the program with one line if input was bad, or a package is missing."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


@contextlib.contextmanager
def ends_at_once():
    """Ends the program when it is stopped, whatever is still computed or compiled.

    The interpreter's own exit waits for that, which may take minutes. The status is the
    usual one, 128 and the number of the signal.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + next(iter(stop.args), signal.SIGINT))


def presets(argv: list[str], folder: pathlib.Path) -> tuple[list[str], str]:
    """Reads which preset a command line asks for.

    ``--preset=NAME``, ``--config=NAME`` and ``--config=FILE:NAME`` mean the same. Of
    a setting that is given several times the last counts, as of every flag.

    Args:
      argv: the arguments.
      folder: that of the experiment; its ``config.py`` has the ``PRESETS``.

    Returns:
      The arguments, with one ``--config`` in place of all of these, first; and the name
      of the preset: the first of them all if none is asked for, ``""`` of another file.
    """
    own = file = str(folder / "config.py")
    preset, left, arguments = None, [], iter(argv)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.lstrip("-") not in ("preset", "config") or not name.startswith("-"):
            left.append(argument)
            continue
        value = value if equals else next(arguments, "")
        if name.endswith("config") and ".py" in value:
            file, colon, chosen = value.partition(":")
            preset = chosen if colon else preset
        else:
            preset = value
    with clear_errors():
        known = tuple(_configs(folder).PRESETS)
        foreign = pathlib.Path(file).resolve() != pathlib.Path(own).resolve()
        if preset is not None and not foreign:
            checks.one_of("preset", preset, known)
    whole = file if preset is None else f"{file}:{preset}"
    usual = "" if foreign else known[0]
    return [f"--config={whole}", *_last(left)], usual if preset is None else preset


def _last(arguments: list[str]) -> list[str]:
    """The arguments, of ``--config.NAME=`` the last: ml_collections joins tuples."""
    found: dict[object, str] = {}
    for place, argument in enumerate(arguments):
        address = _address(argument)
        key = address if address and "=" in argument else place
        found.pop(key, None)
        found[key] = argument
    return list(found.values())


def _address(argument: str) -> str:
    """The address of the setting that an argument changes, if it does."""
    name = argument.partition("=")[0]
    flag, _, address = name.lstrip("-").partition(".")
    changes = name.startswith("-") and flag in ("config", "noconfig")
    return address if changes else ""


def _configs(folder: pathlib.Path):
    return importlib.import_module(f"experiments.{folder.name}.config")


def define_config(default: str) -> flags.FlagHolder:
    """Defines ``--config``, whose settings are checked at once.

    Args:
      default: path of the configuration file, and preset.

    Returns:
      The flag.
    """
    description = "configuration as FILE:PRESET; --config.NAME=VALUE changes a setting"
    return config_flags.DEFINE_config_file("config", default, description)


def _check_known(argv: list[str]) -> None:
    """Refuses settings that are not there; argv is as `presets` leaves it."""
    config = flags.FLAGS["config"].parser.parse(argv[1].partition("=")[2])
    for address in filter(None, map(_address, argv)):
        settings.check_known(config, address.partition("[")[0])


def read_flags(argv: list[str], folder: pathlib.Path | None = None) -> list[str]:
    """Reads the flags, for ``app.run(main, flags_parser=read_flags)``.

    A flag that is unknown, or whose value is bad, ends the program with one line.
    ``--help`` ends it with status 0; of an experiment it tells all that can be set.

    Args:
      argv: the command line.
      folder: that of the experiment, if it is one.

    Returns:
      What is left of it; see `no_arguments`.
    """
    if folder and {"--help", "-h"}.intersection(argv):
        print(usage(folder))
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except AttributeError as error:  # of ml_collections, without the address
        with clear_errors():
            _check_known(argv)
        raise error
    except (flags.Error, TypeError, ValueError) as error:
        lines = str(error.args[0]).strip().splitlines()
        # ml_collections puts the traceback of a bad preset into the message.
        reason = lines[-1:] if any("Traceback" in line for line in lines) else lines
        sys.exit(
            f"error: {' '.join(' '.join(reason).split())} (--help lists the flags)"
        )
    except SystemExit:  # absl ends --help with status 1
        sys.exit(0)


def usage(folder: pathlib.Path) -> str:
    """What can be asked of an experiment: presets, flags, methods, settings.

    Args:
      folder: that of the experiment.

    Returns:
      The text.
    """
    configs = _configs(folder)
    preset = next(iter(configs.PRESETS))
    config = configs.get_config(preset)
    lines = [configs.__doc__.strip(), "", "presets, the first by default (--preset=):"]
    lines += [f"  {name:24}{text}" for name, text in configs.PRESETS.items()]
    lines += ["", "flags:"]
    lines += [
        f"  --{flag.name:22}{' '.join(flag.help.split())}"
        for flag in flags.FLAGS.get_flags_for_module("experiments.launch.program")
    ]
    lines += [
        "",
        "plugins of methods (--config.methods=bp,cbp+layer_norm):",
    ]
    here = {name: plugin for name, plugin in PLUGINS.items() if _place(plugin, config)}
    lines += [f"  {name:24}{plugin.does}" for name, plugin in here.items()]
    lines += [
        f"  {name:24}{n.does}: {n.plugins}"
        for name, n in NAMED.items()
        if here.keys() >= set(n.plugins.split("+"))
    ]
    lines += [
        "",
        f"settings, as in {preset} (--config.NAME=, --config.sweep.NAME=):",
    ]
    said = comments.of_problem(configs)
    lines += [
        f"  {name:44}{value!s:24}{said.get(name, '')}".rstrip()
        for name, value in settings.flatten(config)
        if not name.startswith("sweep.")
    ]
    return "\n".join(lines)


def _place(plugin: Plugin, config) -> bool:
    """Whether a problem with such a configuration can have a plugin."""
    needs = any(getattr(plugin, slot) for slot in composing.OF_STREAMS)
    # Where diagnostics can be chosen, a stream of examples is learned.
    streams = "observe" in config or not needs
    return streams and ("sessions" in config or not plugin.sessions)


def no_arguments(argv: list[str]) -> None:
    """Raises ``ValueError`` if there are arguments that are no flags."""
    if argv[1:]:
        raise ValueError(
            f"unexpected arguments {argv[1:]}; settings are --config.NAME=."
        )
