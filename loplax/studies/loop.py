"""The host's loop over units of runs and their segments: progress, saving, stopping."""

import contextlib
import pathlib
import sys
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
    states,
    watching,
)

_POLL = 0.02  # most seconds between two looks at whether a segment is computed


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
      wish: whether to stop.
      on_segment: functions to call after each segment.
    """

    bar: Any
    wish: signals.Wish
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
      Stop: after Ctrl-C or SIGTERM, when all is saved.
    """
    # Where nothing can be saved, signals do what they always do.
    wishes = (
        signals.wishes() if study.folder else contextlib.nullcontext(signals.Wish())
    )
    with wishes as wish:
        watch = Watch(bar, wish, on_segment)
        try:
            for place, (method, some) in enumerate(jobs.items(), 1):
                for job in some:
                    _run(study, job, f"{method} ({place}/{len(jobs)})", watch)
        except signals.Stop:
            text = "stopped and saved; the same call goes on from here"
            bar.write(text, sys.stderr)
            raise


def _run(study: Study, job: planning.Job, title: str, watch: Watch) -> None:
    """Computes a job."""
    watch.wish.heed()
    each, rows = job.runs, job.program_rows
    study.programs.trace(each, rows)
    ready = study.programs.ready(each, rows)
    watch.bar.set_description(title if ready else f"compiling {title}")
    with watching.standing(watch.bar):
        program, data = study.programs.get(each, rows, watch.wish)
    watch.bar.set_description(title)
    if job.state:
        leaves = {n: x[job.rows] for n, x in checkpoints.load(job.state).items()}
        state = states.to_devices(program, leaves)
    else:
        state = runs.begin(program, each, job.ids, study.key, data)
    _forget(study, job)
    _advance(study, job, program, data, state, watch)


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
    """Computes the segments of a job, and saves those that are finished."""
    bins, done, leaves = study.target.per_segment, job.first, {}
    written, warned = time.monotonic(), False
    try:
        while done < study.target.bins:
            watch.wish.heed()
            begun = time.monotonic()
            state, metrics = program.segment(data, state)
            metrics = _computed(metrics, job, watch)
            now = time.monotonic()
            results.record(study.dataset, job.runs.cells(job.ids), done, metrics)
            done += bins
            watch.bar.update(job.ids.size * bins * study.target.steps_per_bin)
            last = done == study.target.bins
            if study.folder and (study.keep_states or not last):
                # The next segment takes the state's place, and may be given up.
                leaves = states.to_host(program, state, job.ids.size)
            if study.folder and (last or now - written >= study.checkpoint_seconds):
                job = _save(study, job, program, leaves, done)
                written, leaves = time.monotonic(), {}
            _tell(study, job, done, metrics, watch)
            warned = warned or _warn(job, now - begun)
    except signals.Stop:
        if leaves:
            _save(study, job, program, leaves, done)
        raise


def _computed(
    metrics: Mapping[str, jax.Array], job: planning.Job, watch: Watch
) -> dict[str, np.ndarray]:
    """The metrics of a segment on the host, when it is computed.

    Python's signal handlers run meanwhile.

    Raises:
      Stop: if it is wished, and the segment takes too long.
    """
    begun = time.monotonic()
    # jax does not declare `is_ready`, which all arrays have.
    while not all(values.is_ready() for values in metrics.values()):  # type: ignore[attr-defined]
        watch.wish.heed(signals.GRACE)
        time.sleep(min(_POLL, (time.monotonic() - begun) / 20))
    return {name: np.asarray(x)[: job.ids.size] for name, x in metrics.items()}


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
    if seconds <= signals.GRACE:
        return False
    warnings.warn(
        f"a segment of {job.runs.about.method} takes {seconds:.0f} s, and is computed "
        "again if it is stopped: use shorter segments, or fewer runs_per_block",
        stacklevel=3,
    )
    return True


def _save(
    study: Study,
    job: planning.Job,
    program: runs.Program,
    leaves: Mapping[str, np.ndarray],
    done: int,
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
