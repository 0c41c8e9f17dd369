"""The results of a study, finished or running, as one labelled ``xarray.Dataset``."""

import collections
import itertools
import json
import os
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray

from loplax.studies import noting, pieces, storage

_DIMS = ("arm", "seed", "bin", "subset")
_OWN_COORDS = (*_DIMS, "run", "method", "step")
_OWN_VARIABLES = ("diverged", "bins_asked", "bins_done", "bins_sound")
# These always have a value: where one is not finite, the run has diverged.
_SIGNS = ("loss", "weight_change")


def arm(method: str, swept: Mapping[str, float]) -> str:
    """The name of an arm: its method, and the swept numbers by name.

    Args:
      method: name of the method.
      swept: for every swept number that the method uses its value.

    Returns:
      The name.

    Example:
      >>> arm("cbp", {"learning_rate": 0.1, "cbp.replacement_rate": 1e-4})
      'cbp cbp.replacement_rate=0.0001 learning_rate=0.1'
    """
    return " ".join([method, *(f"{n}={_short(swept[n])}" for n in sorted(swept))])


def _short(value: float) -> str:
    """A number in few digits, if these are all it has."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)


def empty(
    methods: Sequence[str],
    settings: Mapping[str, Sequence[float] | np.ndarray],
    seeds: Sequence[int],
    steps: Sequence[float] | np.ndarray,
    metrics: Mapping[str, tuple[np.dtype, bool]],
    subsets: Sequence[str] = (),
) -> xarray.Dataset:
    """Results of a study that has not begun: every metric is NaN.

    Args:
      methods: the method of every arm, ``[arms]``.
      settings: for every swept name its value in each arm, ``[arms]``; NaN where the
        method does not use it.
      seeds: the seeds.
      steps: examples seen at the end of each bin, ``[bins]``.
      metrics: for every metric the type in which it is kept, and whether it has a value
        for each subset.
      subsets: names of the subsets of held-out examples.

    Returns:
      A Dataset with one variable ``[arm, seed, bin]`` or ``[arm, seed, bin, subset]``
      for each metric, and ``diverged``, ``bins_asked`` (all of them), ``bins_done``
      and ``bins_sound``, ``[arm, seed]``.

    Raises:
      ValueError: if a swept name or a metric takes a name that the results need, or two
        arms are the same.

    Example:
      >>> results = empty(["bp", "bp"], {"learning_rate": [0.1, 0.01]}, range(3),
      ...                 [10.0, 20.0], {"loss": (np.dtype("float32"), False)})
      >>> dict(results.sizes)
      {'arm': 2, 'seed': 3, 'bin': 2}
      >>> results["arm"].values.tolist()
      ['bp learning_rate=0.1', 'bp learning_rate=0.01']
    """
    for kind, names in (("swept", settings), ("metric", metrics)):
        taken = {*_OWN_COORDS, *_OWN_VARIABLES, *(settings if names is metrics else ())}
        for name in sorted(taken.intersection(names)):
            raise ValueError(f"{kind} name {name!r} is taken; give it another name")
    settings = {name: np.asarray(values, float) for name, values in settings.items()}
    arms = [
        arm(method, {n: float(v[i]) for n, v in settings.items() if not np.isnan(v[i])})
        for i, method in enumerate(methods)
    ]
    for name in {name for name in arms if arms.count(name) > 1}:
        raise ValueError(f"there are two arms {name!r}; arms must differ")
    shape = (len(arms), len(seeds), len(steps), len(subsets))
    variables = {}
    for name, (dtype, per_subset) in metrics.items():
        rank = 4 if per_subset else 3
        variables[name] = (_DIMS[:rank], np.full(shape[:rank], np.nan, dtype))
    variables["diverged"] = (_DIMS[:2], np.zeros(shape[:2], bool))
    for name, bins in {"asked": len(steps), "done": 0, "sound": 0}.items():
        variables[f"bins_{name}"] = (_DIMS[:2], np.full(shape[:2], bins, np.int32))
    coords = {
        "arm": ("arm", arms),
        "method": ("arm", list(methods)),
        "seed": ("seed", list(seeds)),
        "bin": ("bin", np.arange(len(steps))),
        "step": ("bin", np.asarray(steps, float)),
    }
    if subsets:
        coords["subset"] = ("subset", list(subsets))
    coords |= {name: ("arm", values) for name, values in settings.items()}
    return xarray.Dataset(variables, coords)


def kept_as(dtype: np.dtype) -> np.dtype:
    """The type in which a metric of some type is kept: one that has NaN."""
    return np.result_type(dtype, np.float32)


def record(
    dataset: xarray.Dataset,
    where: tuple[np.ndarray, np.ndarray],
    first_bin: int,
    metrics: Mapping[str, np.ndarray],
) -> None:
    """Enters the metrics of one segment into the results, in place.

    A run has diverged from the first bin on in which its ``loss`` or its
    ``weight_change`` is not finite, or any metric of a learner that reports neither.
    Another metric that is NaN has no value in that bin, and says nothing of the run.

    Args:
      dataset: the results, from ``empty``.
      where: for each of the ``[cells]`` to fill the indices of its arm and its seed.
      first_bin: bin at which the segment begins.
      metrics: the metrics, each ``[cells, bins of a segment]``, and ``[..., subsets]``
        where it has a value for each subset.
    """
    signs = [metrics[name] for name in _SIGNS if name in metrics] or metrics.values()
    finite = [np.isfinite(x).all(axis=tuple(range(2, np.ndim(x)))) for x in signs]
    sound = np.logical_and.accumulate(np.all(finite, axis=0), axis=1)
    end = first_bin + sound.shape[1]
    for name, values in metrics.items():
        dataset[name].values[(*where, slice(first_bin, end))] = values
    before, diverged = dataset["bins_sound"].values, dataset["diverged"].values
    here = first_bin + sound.sum(axis=1)
    before[where] = np.where(diverged[where], before[where], here)
    diverged[where] |= ~sound.all(axis=1)
    dataset["bins_done"].values[where] = end


def forget(
    dataset: xarray.Dataset, where: tuple[np.ndarray, np.ndarray], first_bin: int
) -> None:
    """Blanks the metrics of some runs from a bin on, in place.

    Args:
      dataset: the results.
      where: the ``[cells]`` of the runs, as in ``record``.
      first_bin: first bin to blank.
    """
    for name in dataset.drop_vars(list(_OWN_VARIABLES)):
        dataset[name].values[(*where, slice(first_bin, None))] = np.nan
    sound = dataset["bins_sound"].values
    dataset["diverged"].values[where] &= sound[where] < first_bin
    sound[where] = np.minimum(sound[where], first_bin)
    dataset["bins_done"].values[where] = first_bin


def ask_for(dataset: xarray.Dataset, cells: Iterable[tuple[int, int]]) -> None:
    """Enters into results, in place, that only some of their runs were asked for.

    Args:
      dataset: the results.
      cells: indices of arm and seed of these.
    """
    bins = np.zeros_like(dataset["bins_asked"].values)
    for cell in cells:
        bins[cell] = dataset.sizes["bin"]
    dataset["bins_asked"].values[:] = bins


def load(directory: str | os.PathLike) -> xarray.Dataset:
    """Reads the results of a study, finished or still running.

    All runs are there that were ever finished or are under way, and those that the last
    call asked for, in the order in which arms were first asked for. An arm is a method
    in one setting: ``results.sel(arm="cbp")``.
    Metrics are ``[arm, seed, bin]``, those with a value for each subset of held-out
    examples ``[arm, seed, bin, subset]``, and NaN where there is no value: not yet, or
    not at all.
    ``bins_asked`` counts the bins of a run that were ever asked for, ``bins_done``
    those that are finished, ``bins_sound`` those before it diverged, if it did, which
    ``diverged`` says; see `record`.

    Args:
      directory: the study's directory.

    Returns:
      The results, in memory; ``attrs["config"]`` is the study's config as JSON. There
      is a warning for each file that is damaged; its runs are left out.

    Raises:
      FileNotFoundError: if there are none.

    Example:
      >>> load("nowhere")
      Traceback (most recent call last):
      FileNotFoundError: no results in nowhere: no study was begun there
    """
    folder = pathlib.Path(directory)
    found, damaged = pieces.read_all(folder, {})
    asked = storage.last_asked(folder)
    if not found and not asked:
        raise FileNotFoundError(f"no results in {directory}: no study was begun there")
    for path, reason in damaged.items():
        warnings.warn(f"{path} is left out: {reason}", stacklevel=2)
    return _together(found, asked)


def _together(
    found: Mapping[str, pieces.Piece], asked: Mapping[str, Any]
) -> xarray.Dataset:
    """All that was asked for or found, as one Dataset."""
    groups = sorted((p.group for p in found.values()), key=lambda group: group.unit)
    defaults = {group.about.method: group.about.defaults for group in groups}
    defaults |= asked.get("defaults", {})
    arms = {name: (method, hparams) for name, method, hparams in asked.get("arms", ())}
    seeds = set(range(asked.get("num_seeds", 0)))
    for group in groups:
        for row, (name, seed) in enumerate(group.runs(defaults)):
            seeds.add(seed)
            hparams = {key: float(values[row]) for key, values in group.hparams.items()}
            arms.setdefault(name, (group.about.method, hparams))
    first = [name for name in asked.get("order", ()) if name in arms]
    names = list(dict.fromkeys([*first, *arms]))
    methods = list(dict.fromkeys(arms[name][0] for name in names))
    names.sort(key=lambda name: methods.index(arms[name][0]))
    points = [arms[name] for name in names]
    kinds = pieces.kinds(found.values())
    for name, (dtype, per_subset) in asked.get("metrics", {}).items():
        kinds.setdefault(name, (np.dtype(dtype), per_subset))
    about = [group.about for group in groups]
    best = pieces.chains(found, defaults)
    bins = max([asked.get("bins", 0), *(chain.reach for chain in best.values())])
    steps_per_bin = asked.get("steps_per_bin") or about[0].steps_per_bin
    subsets = [asked.get("subsets", ()), *(each.subsets for each in about)]
    dataset = empty(
        [method for method, _ in points],
        {
            name: [hparams.get(name, np.nan) for _, hparams in points]
            for name in sorted({*_varied(points), *asked.get("swept", ())})
        },
        sorted(seeds),
        np.arange(1, bins + 1) * steps_per_bin,
        kinds,
        next(filter(None, subsets), ()),
    )
    config = asked["config"] if asked else about[-1].study["config"]
    dataset.attrs["config"] = json.dumps(config, sort_keys=True)
    order = {seed: place for place, seed in enumerate(sorted(seeds))}
    places = {name: place for place, name in enumerate(names)}
    cells = {(name, seed): (places[name], order[seed]) for name, seed in best}
    fill(dataset, found, best, cells)
    wanted = _wanted(asked.get("requests", ()))
    dataset["bins_asked"].values[:] = [
        [
            wanted.get((name, seed), bins if (name, seed) in best else 0)
            for seed in order
        ]
        for name in names
    ]
    return dataset


def _wanted(requests: Sequence[Sequence[Any]]) -> dict[pieces.Run, int]:
    """How many bins of a run were asked for, of those that were."""
    found: dict[pieces.Run, int] = collections.defaultdict(int)
    for request in requests:
        names, _, bins = request
        for run in itertools.product(names, noting.seeds(request)):
            found[run] = max(found[run], bins)
    return found


def _varied(points: Sequence[tuple[str, Mapping[str, float]]]) -> set[str]:
    """Names of the numbers in which arms of one method differ."""
    values: dict[str, list[set[tuple[str, float]]]] = collections.defaultdict(list)
    for method, hparams in points:
        values[method].append(set(hparams.items()))
    apart = [set.union(*some) - some[0].intersection(*some) for some in values.values()]
    return {name for some in apart for name, _ in some}


def fill(
    dataset: xarray.Dataset,
    found: Mapping[str, pieces.Piece],
    best: Mapping[pieces.Run, pieces.Chain],
    cells: Mapping[pieces.Run, tuple[int, int]],
) -> None:
    """Enters into results what there is on disk, in place.

    Args:
      dataset: the results, empty.
      found: the pieces by name.
      best: what there is of every run.
      cells: places of arm and seed of the runs that the results hold.
    """
    bins = dataset.sizes["bin"]
    for where, first, metrics in pieces.spans(found, best, cells, bins):
        record(dataset, where, first, metrics)


def counting(dataset: xarray.Dataset, metric: str) -> xarray.DataArray:
    """The values of a metric that count: those that exist, in bins before a divergence.

    Args:
      dataset: the results.
      metric: name of the metric.

    Returns:
      Its values as floats, ``[arm, seed, bin]`` or ``[arm, seed, bin, subset]``; the
      others are NaN.

    Raises:
      ValueError: if there is no such metric.

    Example:
      >>> kinds = {"loss": (np.dtype("float32"), False)}
      >>> results = empty(["bp"], {}, [0], [10.0, 20.0], kinds)
      >>> cell = (np.array([0]), np.array([0]))
      >>> record(results, cell, 0, {"loss": np.array([[1.0, np.inf]])})
      >>> counting(results, "loss").values.tolist()
      [[[1.0, nan]]]
    """
    known = [str(name) for name in dataset if name not in _OWN_VARIABLES]
    if metric not in known:
        raise ValueError(f"no metric {metric!r}; the metrics are {', '.join(known)}")
    values = dataset[metric].astype(float)
    sound = dataset["bins_sound"] > dataset["bin"]
    return values.where(sound & np.isfinite(values))
