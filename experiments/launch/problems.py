"""The problems: folders with a configuration, a study, a plot and a program."""

import importlib
import pathlib
from typing import Any

from loplax import checks

_ROOT = pathlib.Path(__file__).parents[1]
NAMES = tuple(sorted(path.parent.name for path in _ROOT.glob("*/study.py")))


def part(problem: str, name: str) -> Any:
    """A module of a problem.

    Args:
      problem: one of ``NAMES``.
      name: ``config``, ``study`` or ``plot``.

    Returns:
      The module.

    Raises:
      ValueError: for an unknown problem.
    """
    checks.one_of("problem", problem, NAMES)
    return importlib.import_module(f"experiments.{problem}.{name}")


def default_preset(problem: str) -> str:
    """Name of the preset that runs if the user names none."""
    return next(iter(part(problem, "config").PRESETS))
