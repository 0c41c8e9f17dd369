"""What is left to compute of a study: which runs together, and from which state."""

import itertools
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from loplax.studies import asking, checkpoints, compiling, files, pieces, runs, states


class Job(NamedTuple):
    """Runs of a method to compute together, to their end.

    Attributes:
      runs: the method's runs.
      ids: which of them.
      program_rows: rows of the program that computes them.
      unit: their number, under which they are written.
      first: bins that they have finished.
      saved: bins that are on disk already under this number.
      state: file of their state then; None if they begin.
      rows: row of each run in that state, ``[runs]``.
    """

    runs: runs.Runs
    ids: np.ndarray
    program_rows: int = 0
    unit: int = 0
    first: int = 0
    saved: int = 0
    state: pathlib.Path | None = None
    rows: np.ndarray | None = None


def jobs(
    study: pathlib.Path | None,
    asked: asking.Asked,
    best: Mapping[pieces.Run, pieces.Chain],
    programs: compiling.Programs,
) -> dict[str, list[Job]]:
    """What is left to compute: first what goes on from a state, then what begins.

    Args:
      study: the study's directory, if there is one.
      asked: what is asked for.
      best: what there is of every run.
      programs: the programs of the methods.

    Returns:
      The jobs of every method that has any.
    """
    going = list(_resumed(study, asked, best, programs)) if study else []
    free = itertools.count(_first_free(study))
    found = {}
    for name, each in asked.every.items():
        own = [job for job in going if job.runs is each]
        taken = {i for job in own for i in job.ids.tolist()}
        left = [
            i
            for i, run in enumerate(each.names)
            if i not in taken and _reach(best, run) < asked.target.bins
        ]
        rows = asked.rows.get(name) or rows_for(asked, name, len(left))
        begin = (left[i : i + rows] for i in range(0, len(left), rows or 1))
        own += [Job(each, np.array(ids), rows) for ids in begin]
        if own:
            found[name] = [job._replace(unit=job.unit or next(free)) for job in own]
    return found


def _first_free(study: pathlib.Path | None) -> int:
    """The first number that no unit has."""
    if study is None:
        return 1
    used = [pieces.unit_of(path) for path in pieces.of_units(study)]
    used += [checkpoints.unit_of(path) for path in checkpoints.of_units(study)]
    return max(used, default=0) + 1


def rows_for(asked: asking.Asked, name: str, number: int) -> int:
    """How many runs of a method the program computes that computes so many."""
    rows = asked.rows.get(name, 0)
    return rows if number <= rows else runs.layout(number, *asked.grouping)


def _reach(best: Mapping[pieces.Run, pieces.Chain], run: pieces.Run) -> int:
    return best[run].reach if run in best else 0


def _resumed(
    study: pathlib.Path,
    asked: asking.Asked,
    best: Mapping[pieces.Run, pieces.Chain],
    programs: compiling.Programs,
) -> Iterator[Job]:
    """The jobs that go on from a state: of each unit its newest good one."""
    for unit in dict.fromkeys(map(checkpoints.unit_of, checkpoints.of_units(study))):
        for path in reversed(checkpoints.of_unit(study, unit)):
            try:
                found = checkpoints.check(path)
            except ValueError as error:
                files.set_aside(study, path, str(error))
                continue
            going = _go_on(found, asked, best)
            if not going:
                continue
            program = programs.trace(going[0].runs, going[0].program_rows)
            reason = states.mismatch(program.state, found.leaves)
            if not reason:
                yield from (job._replace(state=path) for job in going)
                break
            warnings.warn(f"the state {path} is left out: {reason}", stacklevel=4)


def _go_on(
    found: checkpoints.Checkpoint,
    asked: asking.Asked,
    best: Mapping[pieces.Run, pieces.Chain],
) -> list[Job]:
    """The jobs that go on from a state, if it has any that are asked for."""
    unit, method = found.group.unit, found.group.about.method
    bins, per_segment, _ = asked.target
    each = asked.every.get(method)
    if each is None or not per_segment or found.bin % per_segment or found.bin >= bins:
        return []
    places = {run: i for i, run in enumerate(each.names)}
    defaults = {method: each.about.defaults}
    every_run = found.group.runs(defaults)
    # A state never knows more than the results, and goes on with its own only.
    good = [
        run in places
        and run in best
        and best[run].unit == unit
        and best[run].reach >= found.bin
        for run in every_run
    ]
    left = [
        ok and _reach(best, run) < bins for ok, run in zip(good, every_run, strict=True)
    ]
    if not any(left):
        return []
    whole = all(good)
    rows = np.flatnonzero(good if whole else left)
    ids = np.array([places[every_run[row]] for row in rows])
    size = rows_for(asked, method, ids.size)
    if whole and size >= ids.size:
        return [Job(each, ids, size, unit, found.bin, found.bin, rows=rows)]
    # A part of a unit goes on under a number of its own.
    parts = (slice(i, i + size) for i in range(0, ids.size, size))
    return [
        Job(each, ids[part], size, first=found.bin, rows=rows[part]) for part in parts
    ]
