"""The host's loop over units of runs and their segments: progress, saving, Ctrl-C."""

import contextlib
import functools
import pathlib
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
import xarray

from loplax.studies import checkpoints, results, runs


class Study(NamedTuple):
    """A study in progress.

    Attributes:
      folder: its directory.
      dataset: its results; filled in place.
      key: its random key.
      data: arrays that all runs share.
      num_segments: length of a run in segments.
      steps_per_segment: examples that a segment learns from.
      checkpoint_seconds: least time between two writes of results and checkpoint.
    """

    folder: pathlib.Path
    dataset: xarray.Dataset
    key: jax.Array
    data: Any
    num_segments: int
    steps_per_segment: int
    checkpoint_seconds: float


class Grouping(NamedTuple):
    """How runs are computed together, which changes their numbers by rounding at most.

    Attributes:
      devices: devices among which the runs are divided.
      runs_per_block: runs that a device vmaps.
      max_runs: runs held at once; all of a method if None.
      compiler_options: options for ``jax.jit``.
    """

    devices: Sequence[jax.Device]
    runs_per_block: int
    max_runs: int | None
    compiler_options: Mapping[str, Any] | None


def finish(
    study: Study,
    every: Sequence[runs.Runs],
    grouping: Grouping,
    progress: bool,
) -> None:
    """Computes all that is not finished, and keeps the results on disk up to date.

    Args:
      study: the study; what its results hold already is not computed again.
      every: the runs of every method.
      grouping: how to compute them together.
      progress: whether to show a progress bar on stderr.

    Raises:
      OSError: if a file cannot be written.
      KeyboardInterrupt: after Ctrl-C, when all is saved.
    """
    resumed = _resume(study, every)
    total = sum(each.seeds.size for each in every)
    done = sum(int(_done(study, each).sum()) for each in every)
    bar = tqdm.tqdm(
        total=total * study.num_segments * study.steps_per_segment,
        initial=done // every[0].bins * study.steps_per_segment,
        unit="step",
        unit_scale=True,
        disable=not progress,
    )
    with bar, _interrupts() as asked:
        for each in every:
            bar.set_description(each.name)
            _run_method(study, each, grouping, resumed, (bar, asked))


def _run_method(
    study: Study,
    each: runs.Runs,
    grouping: Grouping,
    resumed: checkpoints.Checkpoint | None,
    watch: tuple[tqdm.tqdm, threading.Event],
) -> None:
    """Computes what is not finished of one method, unit by unit."""
    total = each.seeds.size
    size = -(-total // -(-total // (grouping.max_runs or total)))
    ids = np.flatnonzero(_done(study, each) < study.num_segments * each.bins)
    units = []
    if resumed and resumed.method == each.name:
        units = [resumed.runs]
        ids = np.setdiff1d(ids, units[0])
    units += [ids[i : i + size] for i in range(0, ids.size, size)]
    program, rows, data = None, 0, ()
    for unit in units:
        if max(size, unit.size) != rows:
            rows = max(size, unit.size)
            program = runs.build(
                each.learner,
                rows,
                grouping.devices,
                grouping.runs_per_block,
                grouping.compiler_options,
            )
            data = runs.share(program, study.data)
        if resumed and unit is units[0] and resumed.method == each.name:
            state = runs.to_devices(program, each, resumed.leaves)
            first = resumed.segment
        else:
            state = runs.begin(program, each, unit, study.key, data)
            first = 0
        advance = functools.partial(program.segment, data)
        _run_unit(study, each, advance, (unit, first, state), watch)


def _run_unit(
    study: Study,
    each: runs.Runs,
    advance: Callable[[Any], tuple[Any, Any]],
    begun: tuple[np.ndarray, int, Any],
    watch: tuple[tqdm.tqdm, threading.Event],
) -> None:
    """Computes some runs of a method, all at the same time, to their end."""
    ids, first, state = begun
    bar, asked = watch
    where = each.cells(ids)
    written = time.monotonic()
    for segment in range(first, study.num_segments):
        state, metrics = advance(state)
        metrics = {
            name: np.asarray(values)[: ids.size] for name, values in metrics.items()
        }
        results.record(study.dataset, where, segment * each.bins, metrics)
        bar.update(ids.size * study.steps_per_segment)
        unfinished = segment + 1 < study.num_segments
        due = time.monotonic() - written >= study.checkpoint_seconds
        if due or asked.is_set() or not unfinished:
            # In this order a checkpoint never knows more than the results.
            results.write(study.dataset, study.folder)
            if unfinished:
                leaves = runs.to_host(state, ids.size)
                saved = checkpoints.Checkpoint(each.name, ids, segment + 1, leaves)
                checkpoints.save(study.folder / "checkpoints", saved)
            written = time.monotonic()
        if asked.is_set():
            bar.write("stopped and saved; the same call goes on from here", sys.stderr)
            raise KeyboardInterrupt


def _done(study: Study, each: runs.Runs) -> np.ndarray:
    """Finished bins of each run of a method, ``[runs]``."""
    return study.dataset["bins_done"].values[each.where]


def _resume(study: Study, every: Sequence[runs.Runs]) -> checkpoints.Checkpoint | None:
    """Finds the checkpoint to go on from; blanks the results that run ahead of it."""
    resumed = _find_checkpoint(study, {each.name: each for each in every})
    for each in every:
        ids = np.flatnonzero(_done(study, each) < study.num_segments * each.bins)
        if resumed and resumed.method == each.name:
            where = each.cells(resumed.runs)
            results.forget(study.dataset, where, resumed.segment * each.bins)
            ids = np.setdiff1d(ids, resumed.runs)
        results.forget(study.dataset, each.cells(ids), 0)
    return resumed


def _find_checkpoint(
    study: Study, every: Mapping[str, runs.Runs]
) -> checkpoints.Checkpoint | None:
    """The newest good checkpoint, unless its runs have finished since."""
    for saved in checkpoints.read(study.folder / "checkpoints"):
        each = every[saved.method]
        reason = runs.mismatch(each, saved.leaves)
        done = _done(study, each)[saved.runs]
        if not reason and (done >= study.num_segments * each.bins).all():
            return None
        if not reason and (done >= saved.segment * each.bins).all():
            return saved
        warnings.warn(
            "a checkpoint is left out: "
            + (reason or "the results do not reach as far as it does"),
            stacklevel=2,
        )
    return None


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C into an event; the second interrupts as usual."""
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or before in (None, signal.SIG_IGN):
        yield asked
        return

    def ask(*_: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)
        with contextlib.suppress(RuntimeError):  # it may interrupt another print
            print("\nsaving after this segment; Ctrl-C stops now", file=sys.stderr)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
