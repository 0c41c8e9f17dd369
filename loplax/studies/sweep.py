"""Runs learners over seeds and settings: many at once, resumable, on all devices."""

import contextlib
import difflib
import importlib.metadata
import itertools
import json
import math
import numbers
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray

from loplax.studies import checkpoints, loop, results, runs


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
    directory: str | os.PathLike,
    methods: Mapping[str, Method],
    *,
    key: jax.Array,
    num_seeds: int,
    num_segments: int,
    steps_per_segment: int,
    settings: Mapping[str, Sequence[float]] | None = None,
    data: Any = (),
    config: Mapping[str, Any] | None = None,
    runs_per_block: int = 32,
    max_runs: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    compiler_options: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = 60.0,
    overwrite: bool = False,
    progress: bool = True,
) -> xarray.Dataset:
    """Runs every method with every seed in every setting, or goes on doing so.

    The arms of a method are all combinations of the swept values that it uses. Run
    ``seed`` gets the key ``jax.random.fold_in(key, seed)``, the same for all arms, and
    however the runs are grouped; grouping changes its numbers by rounding at most.

    The same call on the same directory goes on where the last one stopped, and ends
    with the same numbers. Ctrl-C stops after the current segment.

    Args:
      directory: the study's directory.
      methods: the methods by name.
      key: random key of the study; of the default kind, since the draws of the others
        depend on what is vmapped.
      num_seeds: number of seeds.
      num_segments: length of a run in segments.
      steps_per_segment: examples that a segment learns from.
      settings: for every swept hyper-parameter its values; a method that does not use
        it has no further arms.
      data: arrays that all runs share, such as the images of a data set; kept once on
        every device, and not part of any checkpoint.
      config: whatever else the numbers depend on, as JSON values; kept in
        ``config.json``, and the study goes on only if it is the same.
      runs_per_block: runs that a device vmaps; its blocks follow one another.
      max_runs: runs held at once, rounded up to whole blocks; all by default.
      devices: devices among which the runs are divided; all by default.
      compiler_options: options for ``jax.jit`` (XLA's flags), by name.
      checkpoint_seconds: least time between two writes of results and checkpoint.
      overwrite: delete the study in the directory and start anew.
      progress: show a progress bar on stderr.

    Returns:
      The results, as ``results.load`` reads them.

    Raises:
      ValueError: if an argument is bad, or the directory cannot be written or holds a
        study with another config; nothing has been computed or changed then.
      OSError: if a file cannot be written; the files of before are then intact.
      KeyboardInterrupt: after Ctrl-C, when all is saved.

    Example:
      >>> import tempfile
      >>> def init(key, hparams, data):
      ...     return {"key": key, "x": jnp.zeros([]), "size": hparams["size"]}
      >>> def segment(state, data):
      ...     key, key_step = jax.random.split(state["key"])
      ...     x = state["x"] + state["size"] * jax.random.normal(key_step)
      ...     return state | {"key": key, "x": x}, {"place": x[None]}
      >>> walk = Method(Learner(init, segment), {"size": 1.0})
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     found = run(directory, {"walk": walk}, key=jax.random.key(0), num_seeds=3,
      ...                 num_segments=5, steps_per_segment=1,
      ...                 settings={"size": [0.0, 1.0]}, progress=False)
      >>> found["place"].dims, found["place"].shape
      (('arm', 'seed', 'bin'), (2, 3, 5))
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = {
        "num_seeds": num_seeds,
        "num_segments": num_segments,
        "steps_per_segment": steps_per_segment,
    }
    grouping = {
        "runs_per_block": runs_per_block,
        "max_runs": 1 if max_runs is None else max_runs,
    }
    _check_counts(sizes | grouping | {"devices": len(devices)})
    _check_key(key)
    if not checkpoint_seconds >= 0:
        raise ValueError(f"checkpoint_seconds is {checkpoint_seconds}; it must be >= 0")
    methods, settings = _check_numbers(methods, settings or {})
    points = {name: _points(each, settings) for name, each in methods.items()}
    firsts = itertools.accumulate(map(len, points.values()), initial=0)
    every = [
        runs.enumerate_runs(
            name, first, methods[name], points[name], (key, num_seeds), data
        )
        for name, first in zip(methods, firsts, strict=False)
    ]
    dataset = _empty(every, points, sizes)
    dataset.attrs["config"] = json.dumps(checkpoints.as_json(config or {}))
    asked = _describe(methods, settings, key) | sizes
    whole = {"study": asked, "config": config or {}}
    folder = checkpoints.open_study(directory, whole, _versions(devices), overwrite)
    results.take_up(dataset, folder)
    results.write(dataset, folder)
    study = loop.Study(
        folder, dataset, key, data, num_segments, steps_per_segment, checkpoint_seconds
    )
    loop.finish(
        study,
        every,
        loop.Grouping(devices, runs_per_block, max_runs, compiler_options),
        progress,
    )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return results.load(folder)


def _check_counts(counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        whole = isinstance(count, numbers.Integral) and not isinstance(count, bool)
        if not whole or count < 1:
            raise ValueError(f"{name} is {count!r}; it must be an integer, at least 1")


def _check_key(key: jax.Array) -> None:
    typed = jnp.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key)
    if not typed or key.shape != ():
        raise ValueError("key must be one typed key, such as jax.random.key(0)")


def _check_numbers(
    methods: Mapping[str, Method], settings: Mapping[str, Sequence[float]]
) -> tuple[dict[str, Method], dict[str, list[float]]]:
    """Methods and settings with all numbers as floats; refuses bad ones."""
    if not methods:
        raise ValueError("methods is empty: there is nothing to run")
    methods = {
        name: method._replace(
            hparams={key: _finite(key, v) for key, v in method.hparams.items()}
        )
        for name, method in methods.items()
    }
    known = sorted({name for method in methods.values() for name in method.hparams})
    for name, values in settings.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.0)
            hint = f"the nearest is {near[0]!r}" if near else "there are none"
            raise ValueError(f"no method has a hyper-parameter {name!r}; {hint}")
        if not len(values) or len(set(values)) < len(values):
            raise ValueError(f"values of {name!r} are missing or repeated: {values}")
    swept = {key: [_finite(key, v) for v in values] for key, values in settings.items()}
    return methods, swept


def _finite(name: str, value: float) -> float:
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; it must be a finite number")
    return float(value)


def _points(
    method: Method, settings: Mapping[str, list[float]]
) -> list[dict[str, float]]:
    """The swept numbers of each arm of a method."""
    used = sorted(settings.keys() & method.hparams.keys())
    values = itertools.product(*(settings[name] for name in used))
    return [dict(zip(used, point, strict=True)) for point in values]


def _empty(
    every: Sequence[runs.Runs],
    points: Mapping[str, Sequence[Mapping[str, float]]],
    sizes: Mapping[str, int],
) -> xarray.Dataset:
    """Empty results for the runs of all methods."""
    bins = {each.name: each.bins for each in every}
    if len(set(bins.values())) != 1:
        raise ValueError(f"methods have different numbers of bins a segment: {bins}")
    subsets = {tuple(each.learner.subsets) for each in every} - {()}
    if len(subsets) > 1:
        raise ValueError(f"methods have different subsets: {sorted(subsets)}")
    ends = np.arange(1, sizes["num_segments"] * every[0].bins + 1) / every[0].bins
    arms = [(name, point) for name in points for point in points[name]]
    swept = sorted({name for _, point in arms for name in point})
    return results.empty(
        [name for name, _ in arms],
        {name: [point.get(name, np.nan) for _, point in arms] for name in swept},
        range(sizes["num_seeds"]),
        ends * sizes["steps_per_segment"],
        {
            name: (np.result_type(shape.dtype, np.float32), len(shape.shape) > 1)
            for each in every
            for name, shape in each.metrics.items()
        },
        next(iter(subsets), ()),
    )


def _describe(
    methods: Mapping[str, Method], settings: Mapping[str, list[float]], key: jax.Array
) -> dict[str, Any]:
    """What was asked for, as JSON values."""
    return {
        "methods": {
            name: {"hparams": method.hparams, "choices": method.choices}
            for name, method in methods.items()
        },
        "settings": settings,
        "key": [str(jax.random.key_impl(key)), jax.random.key_data(key).tolist()],
    }


def _versions(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """What the numbers may depend on beside the config."""
    installed = {"python": platform.python_version()}
    for package in ("loplax", "jax", "jaxlib", "numpy", "optax", "flax", "brax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    device = {"platform": devices[0].platform, "device": devices[0].device_kind}
    return installed | device
