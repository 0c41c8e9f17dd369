"""A finished or running study on disk, as one labelled ``xarray.Dataset``.

A study directory holds ``results.nc`` (netCDF-3: ``xarray.open_dataset`` reads it),
``config.json`` (what was asked for) and ``versions.json`` (what it ran on). Every file
is written beside its place and then renamed, so that a reader never sees half a file.
"""

import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import xarray

_DIMS = ("method", "setting", "seed", "bin")
_OWN_COORDS = (*_DIMS, "step")
_OWN_VARIABLES = ("diverged", "bins_done", "bins_sound")
# These always have a value: where one is not finite, the run has diverged.
_SIGNS = ("loss", "weight_change")


def empty(
    methods: Sequence[str],
    settings: Mapping[str, Sequence[float]],
    num_seeds: int,
    steps: Sequence[float],
    metrics: Mapping[str, np.dtype],
) -> xarray.Dataset:
    """Results of a study that has not begun: every metric is NaN.

    Args:
      methods: names of the methods.
      settings: for every swept name its value in each setting, ``[settings]``.
      num_seeds: number of seeds.
      steps: examples seen at the end of each bin, ``[bins]``.
      metrics: for every metric the type in which it is kept.

    Returns:
      A Dataset with one variable ``[method, setting, seed, bin]`` for each metric, and
      ``diverged``, ``bins_done`` and ``bins_sound``, ``[method, setting, seed]``.

    Raises:
      ValueError: if a swept name or a metric takes a name that the results need.

    Example:
      >>> results = empty(["bp"], {"learning_rate": [0.1, 0.01]}, 3, [10.0, 20.0],
      ...                 {"loss": np.dtype("float32")})
      >>> dict(results.sizes)
      {'method': 1, 'setting': 2, 'seed': 3, 'bin': 2}
    """
    for kind, names in (("swept", settings), ("metric", metrics)):
        taken = {*_OWN_COORDS, *_OWN_VARIABLES, *(settings if names is metrics else ())}
        for name in taken.intersection(names):
            raise ValueError(f"{kind} name {name!r} is taken; give it another name")
    num_settings = len(next(iter(settings.values()), (0,)))
    shape = (len(methods), num_settings, num_seeds, len(steps))
    variables = {
        name: (_DIMS, np.full(shape, np.nan, dtype)) for name, dtype in metrics.items()
    }
    variables["diverged"] = (_DIMS[:3], np.zeros(shape[:3], bool))
    for name in ("bins_done", "bins_sound"):
        variables[name] = (_DIMS[:3], np.zeros(shape[:3], np.int32))
    coords = {name: (name, np.arange(n)) for name, n in zip(_DIMS, shape, strict=True)}
    coords["method"] = ("method", list(methods))
    coords["step"] = ("bin", np.asarray(steps, float))
    for name, values in settings.items():
        coords[name] = ("setting", np.asarray(values, float))
    return xarray.Dataset(variables, coords)


def record(
    dataset: xarray.Dataset,
    where: tuple[int, np.ndarray, np.ndarray],
    first_bin: int,
    metrics: Mapping[str, np.ndarray],
) -> None:
    """Enters the metrics of one segment into the results, in place.

    A run has diverged from the first bin on in which its ``loss`` or its
    ``weight_change`` is not finite, or any metric of a learner that reports neither.
    Another metric that is NaN has no value in that bin, and says nothing of the run.

    Args:
      dataset: the results, from ``empty``.
      where: index of the method, and for each of the ``[cells]`` to fill the indices
        of its setting and of its seed.
      first_bin: bin at which the segment begins.
      metrics: the metrics, each ``[cells, bins of a segment]``.
    """
    method, setting, seed = where
    cells = (method, setting, seed)
    signs = [metrics[name] for name in _SIGNS if name in metrics] or metrics.values()
    sound = np.logical_and.accumulate(np.isfinite([*signs]).all(axis=0), axis=1)
    end = first_bin + sound.shape[1]
    for name, values in metrics.items():
        dataset[name].values[(*cells, slice(first_bin, end))] = values
    before, diverged = dataset["bins_sound"].values, dataset["diverged"].values
    here = first_bin + sound.sum(axis=1)
    before[cells] = np.where(diverged[cells], before[cells], here)
    diverged[cells] |= ~sound.all(axis=1)
    dataset["bins_done"].values[cells] = end


def forget(
    dataset: xarray.Dataset, where: tuple[int, np.ndarray, np.ndarray], first_bin: int
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


def take_up(dataset: xarray.Dataset, directory: str | os.PathLike) -> None:
    """Copies the results in a directory, if there are any, into ``dataset``.

    Damaged results are lost: there is a warning, and ``dataset`` is left as it is.

    Args:
      dataset: empty results of the same study.
      directory: the study's directory.

    Raises:
      ValueError: if the results there have other metrics or bins.
    """
    try:
        found = load(directory)
    except FileNotFoundError:
        return
    except ValueError as error:
        warnings.warn(f"{error}; the study starts anew", stacklevel=3)
        return
    old, new = (
        {name: variable.shape for name, variable in given.data_vars.items()}
        for given in (found, dataset)
    )
    if old != new:
        raise ValueError(
            f"the metrics have changed since the study in {directory} began: from "
            f"{old} to {new}; choose another directory, or overwrite the study"
        )
    for name in dataset:
        dataset[name].values[...] = found[name].values


def write(dataset: xarray.Dataset, directory: str | os.PathLike) -> None:
    """Writes the results in place of those in the directory, all or nothing.

    Args:
      dataset: the results.
      directory: the study's directory.

    Raises:
      OSError: if they cannot be written; the earlier file is then intact.
    """
    data = dataset.to_netcdf(None, engine="scipy")
    replace(pathlib.Path(directory) / "results.nc", data)


def replace(path: pathlib.Path, data: bytes) -> None:
    """Writes a file whole, or leaves the one that is there as it was.

    Args:
      path: the file.
      data: what it is to hold.

    Raises:
      OSError: if it cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        message = f"{error.strerror}; the file there is left as it was"
        raise OSError(error.errno, message, str(path)) from error


def load(directory: str | os.PathLike) -> xarray.Dataset:
    """Reads the results of a study, finished or still running.

    Metrics are ``[method, setting, seed, bin]``, and NaN where there is no value: not
    yet, or not at all. ``bins_done`` counts the finished bins of a run, ``bins_sound``
    those before it diverged, if it did, which ``diverged`` says; see `record`.
    Select a method by ``results.sel({"method": name})``: xarray takes the keyword
    ``sel(method=...)`` for a way to interpolate, and selects nothing.

    Args:
      directory: the study's directory.

    Returns:
      The results, in memory.

    Raises:
      FileNotFoundError: if there are none.
      ValueError: if the file cannot be read.

    Example:
      >>> load("nowhere")
      Traceback (most recent call last):
      FileNotFoundError: no results in nowhere: no study was begun there
    """
    path = pathlib.Path(directory) / "results.nc"
    if not path.is_file():
        raise FileNotFoundError(f"no results in {directory}: no study was begun there")
    try:
        return xarray.load_dataset(path, engine="scipy")
    except Exception as error:  # scipy raises whatever its parser stumbles over
        raise ValueError(f"{path} is damaged: {error}") from error


def counting(dataset: xarray.Dataset, metric: str) -> xarray.DataArray:
    """The values of a metric that count: those that exist, in bins before a divergence.

    Args:
      dataset: the results.
      metric: name of the metric.

    Returns:
      Its values as floats, ``[method, setting, seed, bin]``; the others are NaN.

    Raises:
      ValueError: if there is no such metric.

    Example:
      >>> results = empty(["bp"], {}, 1, [10.0, 20.0], {"loss": np.dtype("float32")})
      >>> cells = (0, np.array([0]), np.array([0]))
      >>> record(results, cells, 0, {"loss": np.array([[1.0, np.inf]])})
      >>> counting(results, "loss").values.tolist()
      [[[[1.0, nan]]]]
    """
    known = [name for name in dataset if name not in _OWN_VARIABLES]
    if metric not in known:
        raise ValueError(f"no metric {metric!r}; the metrics are {', '.join(known)}")
    values = dataset[metric].astype(float)
    sound = dataset["bins_sound"] > dataset["bin"]
    return values.where(sound & np.isfinite(values))
