"""The host's loop over units of runs and their segments: progress, saving, stopping."""

import pathlib
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray

from loplax.studies import (
    asking,
    checkpoints,
    compiling,
    pieces,
    planning,
    results,
    runs,
    signals,
    watching,
)

_LONG = 30.0  # seconds in which a scheduler's job that is told to stop is to be saved


class Study(NamedTuple):
    """A study in progress.

    Attributes:
      folder: its directory; None if nothing is kept.
      dataset: its results; filled in place.
      key: its random key.
      target: where its runs are to come.
      programs: the programs of its methods.
      checkpoint_seconds: least time between two writes of results and state.
      keep_states: whether the last state of every run stays.
    """

    folder: pathlib.Path | None
    dataset: xarray.Dataset
    key: jax.Array
    target: asking.Target
    programs: compiling.Programs
    checkpoint_seconds: float
    keep_states: bool


class Watch(NamedTuple):
    """Who follows the study.

    Attributes:
      bar: the progress bar.
      stop: whether to stop, after the segment.
      on_segment: functions to call after each segment.
    """

    bar: Any
    stop: threading.Event
    on_segment: Sequence[Callable[[watching.Progress], None]]


def finish(
    study: Study,
    jobs: Mapping[str, Sequence[planning.Job]],
    bar: Any,
    on_segment: Sequence[Callable[[watching.Progress], None]],
) -> None:
    """Computes the jobs, and keeps the files up to date.

    Args:
      study: the study.
      jobs: for every method its jobs.
      bar: the progress bar.
      on_segment: functions to call after each segment.

    Raises:
      OSError: if a file cannot be written.
      KeyboardInterrupt: after Ctrl-C or SIGTERM, when all is saved.
    """
    with signals.wishes() as stop:
        watch = Watch(bar, stop, on_segment)
        for place, (method, some) in enumerate(jobs.items(), 1):
            for job in some:
                _run(study, job, f"{method} ({place}/{len(jobs)})", watch)


def _run(study: Study, job: planning.Job, title: str, watch: Watch) -> None:
    """Computes a job."""
    if watch.stop.is_set():
        _stop(study, watch)
    each, rows = job.runs, job.program_rows
    study.programs.trace(each, rows)
    ready = study.programs.ready(each, rows)
    watch.bar.set_description(title if ready else f"compiling {title}")
    program, data = study.programs.get(each, rows, watch.stop)
    watch.bar.set_description(title)
    if job.state:
        leaves = {n: x[job.rows] for n, x in checkpoints.load(job.state).items()}
        state = runs.to_devices(program, leaves)
    else:
        state = runs.begin(program, each, job.ids, study.key, data)
    _forget(study, job)
    _advance(study, job, program, data, state, watch)


def _stop(study: Study, watch: Watch) -> None:
    """Stops; all is saved, if anything is."""
    if study.folder:
        watch.bar.write(
            "stopped and saved; the same call goes on from here", sys.stderr
        )
    raise KeyboardInterrupt


def _forget(study: Study, job: planning.Job) -> None:
    """Takes back what the results know beyond the state from which a job goes on."""
    results.forget(study.dataset, job.runs.cells(job.ids), job.first)
    if study.folder:
        beyond = pieces.of_units(study.folder, job.first)
        _delete(path for path in beyond if pieces.unit_of(path) == job.unit)


def _advance(
    study: Study,
    job: planning.Job,
    program: runs.Program,
    data: Any,
    state: Any,
    watch: Watch,
) -> None:
    """Computes the segments of a job."""
    cells, count, bins = job.runs.cells(job.ids), job.ids.size, study.target.per_segment
    written, warned = time.monotonic(), False
    for first in range(job.first, study.target.bins, bins):
        begun = time.monotonic()
        state, metrics = program.segment(data, state)
        metrics = {name: np.asarray(values)[:count] for name, values in metrics.items()}
        now = time.monotonic()
        results.record(study.dataset, cells, first, metrics)
        done = first + bins
        watch.bar.update(count * bins * study.target.steps_per_bin)
        stopping = watch.stop.is_set()  # a wish that comes later is for the next one
        due = now - written >= study.checkpoint_seconds or stopping
        if study.folder and (due or done == study.target.bins):
            job = _save(study, job, program, state, done)
            written = time.monotonic()
        _tell(study, job, done, metrics, watch)
        warned = warned or _warn(job, now - begun)
        if stopping and done < study.target.bins:
            _stop(study, watch)


def _tell(
    study: Study,
    job: planning.Job,
    done: int,
    metrics: Mapping[str, np.ndarray],
    watch: Watch,
) -> None:
    """Tells the user's functions of a segment."""
    about = job.runs.about
    step = done * study.target.steps_per_bin
    for tell in watch.on_segment:
        means = watching.means(metrics, about.subsets)
        tell(watching.Progress(about.method, step, means, job.unit, job.ids.size))


def _warn(job: planning.Job, seconds: float) -> bool:
    """Warns of segments that take too long, and returns whether it did."""
    if seconds <= _LONG:
        return False
    warnings.warn(
        f"a segment of {job.runs.about.method} takes {seconds:.0f} s, and to stop and "
        "save takes as long: use shorter segments, or fewer runs_per_block",
        stacklevel=3,
    )
    return True


def _save(
    study: Study, job: planning.Job, program: runs.Program, state: Any, done: int
) -> planning.Job:
    """Saves what is new of a job, or all of it at the end, and then the state.

    In this order a state never knows more than the results.
    """
    last = done == study.target.bins
    first = 0 if last else job.saved
    group = job.runs.group(job.ids, job.unit)
    cells = job.runs.cells(job.ids)
    here = (*cells, slice(first, done))
    metrics = {
        name: study.dataset[name].values[here].astype(results.kept_as(shape.dtype))
        for name, shape in program.metrics.items()
    }
    files = pieces.write(study.folder, pieces.Piece(group, first, metrics))
    if study.keep_states or not last:
        leaves = runs.to_host(program, state, job.ids.size)
        checkpoints.save(study.folder, group, done, leaves, 1 if last else 2)
    if last:
        whole = {path.name for path in files}
        old = [p for p in pieces.of_units(study.folder) if p.name not in whole]
        _delete(path for path in old if pieces.unit_of(path) == job.unit)
    if last and not study.keep_states:
        _delete(checkpoints.of_unit(study.folder, job.unit))
    return job._replace(saved=done)


def _delete(paths: Iterable[pathlib.Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
