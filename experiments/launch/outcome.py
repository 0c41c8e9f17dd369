"""What a study returns: its results, shown as tables and figures."""

import os
from typing import NamedTuple

import xarray


class Outcome(NamedTuple):
    """The results of a study.

    Attributes:
      dataset: all metrics, ``[arm, seed, bin]``; see ``loplax.studies.results.load``.
      problem: name of the problem.
      preset: name of the preset, or ``""``.
      workdir: directory of the study, or ``None`` if it is in memory only.
    """

    dataset: xarray.Dataset
    problem: str
    preset: str = ""
    workdir: str | os.PathLike | None = None
