"""What a program does before jax is imported: it reads flags, and reports bad input."""

import contextlib
import sys

from absl import flags
from ml_collections import config_flags


@contextlib.contextmanager
def clear_errors():
    """Ends the program with one line if input was bad, or a package is missing."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(130)


def define_config(default: str) -> flags.FlagHolder:
    """Defines ``--config``, whose settings are checked at once.

    Args:
      default: path of the configuration file, and preset.

    Returns:
      The flag.
    """
    description = "configuration as FILE:PRESET; --config.NAME=VALUE changes a setting"
    try:
        return config_flags.DEFINE_config_file("config", default, description)
    except (AttributeError, KeyError) as error:
        text = str(error.args[0]).replace("\\n", " ").replace("\\", "")
        reason = " ".join(text.replace("'", "").split())
        sys.exit(f"error: no setting {reason}. All settings are in {default}.")


def read_flags(argv: list[str]) -> list[str]:
    """Reads the flags, for ``app.run(main, flags_parser=read_flags)``.

    A flag that is unknown, or whose value is bad, ends the program with one line, and
    ``--help`` ends it with status 0.

    Args:
      argv: the command line.

    Returns:
      What is left of it; see `no_arguments`.
    """
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, TypeError, ValueError) as error:
        lines = str(error.args[0]).strip().splitlines()
        # ml_collections puts the traceback of a bad preset into the message.
        reason = lines[-1:] if any("Traceback" in line for line in lines) else lines
        sys.exit(
            f"error: {' '.join(' '.join(reason).split())} (--help lists the flags)"
        )
    except SystemExit:  # absl ends --help with status 1
        sys.exit(0)


def no_arguments(argv: list[str]) -> None:
    """Raises ``ValueError`` if there are arguments that are no flags."""
    if argv[1:]:
        raise ValueError(
            f"unexpected arguments {argv[1:]}; settings are --config.NAME=."
        )
