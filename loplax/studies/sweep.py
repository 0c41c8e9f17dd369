"""Runs learners over seeds and settings: many at once, resumable, on all devices."""

import contextlib
import functools
import importlib.metadata
import itertools
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import xarray

from loplax.studies import (
    asking,
    border,
    compiling,
    loop,
    noting,
    pieces,
    planning,
    results,
    shards,
    storage,
    watching,
)


class Learner(NamedTuple):
    """A whole run as two pure functions that can be jitted and vmapped.

    Attributes:
      init: ``init(key, hparams, data) -> state`` with a typed key, ``hparams`` a dict
        of float scalars, and the data that all runs share, all traced; state is any
        pytree of arrays and typed keys.
      segment: ``segment(state, data) -> (state, metrics)`` learns for a fixed number
        of steps; metrics is a dict of arrays ``[bins]`` or ``[bins, subsets]``, NaN
        where one has no value. A ``loss`` or ``weight_change`` that is not finite, or
        any metric of a learner that has neither, marks the run as diverged.
      subsets: names of the subsets of held-out examples that its metrics tell apart;
        the same for all methods of a study that have any.
    """

    init: Callable[[jax.Array, dict[str, jax.Array], Any], Any]
    segment: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]
    subsets: Sequence[str] = ()


class Method(NamedTuple):
    """A learner, the numbers that it uses, and what else tells it from others.

    Attributes:
      learner: the learner.
      hparams: every numeric hyper-parameter that it uses by its dotted name, with its
        value where the sweep does not give another.
      choices: all that is static about the method, as JSON values.
      defaults: for hyper-parameters and choices the library's default.
    """

    learner: Learner
    hparams: Mapping[str, float]
    choices: Mapping[str, Any] = {}
    defaults: Mapping[str, Any] = {}


def run(
    directory: str | os.PathLike | None,
    methods: Mapping[str, Method],
    *,
    key: jax.Array,
    num_seeds: int,
    num_segments: int,
    steps_per_segment: int,
    settings: Mapping[str, Sequence[float]] | None = None,
    data: Any = (),
    config: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    runs_per_block: int = 32,
    devices: Sequence[jax.Device] | None = None,
    compiler_options: Mapping[str, Any] | None = None,
    shard: tuple[int, int] | None = None,
    checkpoint_seconds: float = 60.0,
    keep_states: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    unit: str = "step",
    on_segment: Sequence[Callable[[watching.Progress], None]] = (),
) -> xarray.Dataset:
    """Runs every method with every seed in every setting, or goes on doing so.

    The arms of a method are all combinations of the swept values that it uses. Run
    ``seed`` gets the key ``jax.random.fold_in(key, seed)``, the same for all arms, and
    however the runs are grouped; grouping changes its numbers by rounding at most.

    The same call on the same directory goes on where the last one stopped, and ends
    with the same numbers. A call that asks for more seeds, methods or settings computes
    what is new. One that asks for longer runs goes on from the states that
    ``keep_states`` kept; without them it computes the runs anew, and the shorter ones
    stay until then. What is computed already is known by its content: method with its
    numbers and choices, config, data, key and seed, in whatever order these are given.
    What a learner's functions do is not among it; let ``choices`` or ``config`` hold
    their `loplax.source.digest` if they may change between two calls on a directory.

    Ctrl-C and SIGTERM stop a study that has a directory when the segment in progress
    is over, or after 20 seconds without it; all that is finished is saved then. The
    interpreter's exit waits for what is still computed or compiled; a program that is
    to end at once calls ``os._exit``. A study without a directory is interrupted as any
    other function is.

    Args:
      directory: the study's directory; None keeps everything in memory.
      methods: the methods by name.
      key: random key of the study; of the default kind, since the draws of the others
        depend on what is vmapped.
      num_seeds: number of seeds.
      num_segments: length of a run in segments.
      steps_per_segment: examples that a segment learns from; in that of
        `loplax.supervised.segment` they are ``bins * chunks * stream.chunk``, times
        the examples of an item. Only the learner knows, so a number that is wrong is
        not noticed: the axis ``step`` is wrong then.
      settings: for every swept hyper-parameter its values; a method that does not use
        it has no further arms.
      data: arrays that all runs share, such as the images of a data set; kept once on
        every device, and not part of any state.
      config: whatever else the numbers depend on, as JSON values.
      defaults: the default of what is in ``config``: what has its default counts as
        what did not exist yet.
      runs_per_block: runs that a device vmaps. One block on every device is computed to
        its end before the next begins, so that memory does not grow with the runs.
      devices: devices among which the runs are divided; all by default.
      compiler_options: options for the compiler (XLA's flags), by name.
      shard: ``(i, n)`` computes only the i-th of n parts of the runs, in the directory
        ``shards/i-of-n`` below the study's; `merging.merge` puts the parts together.
        They are whole blocks, so that the numbers are those of the undivided study on
        as many devices as a shard has.
      checkpoint_seconds: least time between two writes of results and states.
      keep_states: whether the last state of every run stays, to go on from.
      overwrite: delete the study in the directory and start anew.
      progress: show a progress bar on stderr.
      unit: what the bar calls a step.
      on_segment: functions to call after each segment of some runs.

    Returns:
      The results that were asked for; `results.load` reads all that the directory has.

    Raises:
      ValueError: if an argument is bad, or the directory cannot be written, is in use,
        or holds something else; nothing has been computed or changed then.
      OSError: if a file cannot be written; the files of before are then intact.
      KeyboardInterrupt: after Ctrl-C or SIGTERM, when all is saved; its argument is
        the number of the signal.

    Example:
      >>> def init(key, hparams, data):
      ...     return {"key": key, "x": jax.numpy.zeros([]), "size": hparams["size"]}
      >>> def segment(state, data):
      ...     key, key_step = jax.random.split(state["key"])
      ...     x = state["x"] + state["size"] * jax.random.normal(key_step)
      ...     return state | {"key": key, "x": x}, {"place": x[None]}
      >>> walk = Method(Learner(init, segment), {"size": 1.0})
      >>> found = run(None, {"walk": walk}, key=jax.random.key(0), num_seeds=3,
      ...             num_segments=5, steps_per_segment=1,
      ...             settings={"size": [0.0, 1.0]}, progress=False)
      >>> found["place"].dims, found["place"].shape
      (('arm', 'seed', 'bin'), (2, 3, 5))
    """
    devices = list(jax.devices() if devices is None else devices)
    border.whole("number of devices", len(devices))
    seconds = border.number("checkpoint_seconds", checkpoint_seconds)
    if seconds < 0:
        raise ValueError(f"checkpoint_seconds is {seconds}; it must be >= 0")
    part = None if shard is None else shards.check(shard)
    folder = None if directory is None else shards.folder(directory, part)
    asked = asking.check(
        methods,
        settings or {},
        key=key,
        data=data,
        config=config or {},
        defaults=defaults or {},
        num_seeds=num_seeds,
        num_segments=num_segments,
        steps_per_segment=steps_per_segment,
        grouping=(len(devices), border.whole("runs_per_block", runs_per_block)),
        shard=part,
        stored=folder is not None,
    )
    fixed = (folder, asked.fixed, asked.defaults)
    known = storage.look(*fixed, overwrite=overwrite)[0] if folder else {}
    programs = compiling.Programs(key, data, devices, compiler_options or {})
    with contextlib.closing(programs):
        asked, dataset = asking.trace(asked, known, folder, programs)
        how = functools.partial(
            storage.opened,
            known=known,
            versions=_versions(devices),
            overwrite=overwrite,
        )
        opened = how(*fixed) if folder else contextlib.nullcontext(known)
        with opened as found:
            study = loop.Study(
                folder, dataset, key, asked.target, programs, seconds, keep_states
            )
            show = functools.partial(watching.bar, unit=unit, shown=progress)
            _finish(study, asked, found, on_segment, show)
    return dataset


def _finish(
    study: loop.Study,
    asked: asking.Asked,
    found: Mapping[str, pieces.Piece],
    on_segment: Sequence[Callable[[watching.Progress], None]],
    show: Callable[[int, int], Any],
) -> None:
    """Computes what is missing of what was asked for."""
    defaults = {name: each.about.defaults for name, each in asked.every.items()}
    best = pieces.chains(found, defaults)
    cells = {
        run: (each.arms[i], each.seeds[i])
        for each in asked.every.values()
        for i, run in enumerate(each.names)
    }
    results.fill(study.dataset, found, best, cells)
    if asked.shard:
        results.ask_for(study.dataset, cells.values())
    if study.folder:
        before = storage.last_asked(study.folder)
        storage.note_asked(study.folder, noting.note(asked, study.dataset, before))
    jobs = planning.jobs(study.folder, asked, best, study.programs)
    steps = asked.target.steps_per_bin
    done = sum(min(best[r].reach, asked.target.bins) for r in cells if r in best)
    with show(
        round(len(cells) * asked.target.bins * steps), round(done * steps)
    ) as bar:
        loop.finish(study, jobs, bar, on_segment)
    anew = (
        run in best and best[run].unit != job.unit
        for job in itertools.chain(*jobs.values())
        for run in (job.runs.names[i] for i in job.ids)
    )
    if study.folder and any(anew):
        storage.prune(study.folder, defaults, cells)


def _versions(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """What the numbers may depend on beside the config."""
    installed = {"python": platform.python_version()}
    for package in ("loplax", "jax", "jaxlib", "numpy", "optax", "flax", "brax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    device = {"platform": devices[0].platform, "device": devices[0].device_kind}
    return installed | device
