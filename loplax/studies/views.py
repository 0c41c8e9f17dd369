"""Results seen otherwise: what is evaluated as arms, and subsets as metrics."""

import numpy as np
import xarray

from loplax import metrics
from loplax.studies import results

NAMED = ("old", "new", "all")


def evaluated(dataset: xarray.Dataset) -> xarray.Dataset:
    """What is tested beside the weights that learn becomes arms of its own.

    Where an arm ``er+ema`` has ``ema_accuracy`` beside ``test_accuracy``, another arm
    ``er+ema (ema)`` gets that as its ``test_accuracy``.

    Args:
      dataset: the results.

    Returns:
      The results with these arms, of methods that are named likewise, after the others.

    Example:
      >>> kinds = {name: (np.dtype("float32"), False)
      ...          for name in ("test_loss", "ema_loss")}
      >>> found = results.empty(["ema"], {}, [0], [1.0], kinds)
      >>> found["ema_loss"][:], found["bins_done"][:] = 2.0, 1
      >>> evaluated(found)["test_loss"].sel(arm="ema (ema)").item()
      2.0
    """
    tested = [str(name) for name in dataset if str(name).startswith("test_")]
    kinds = [name.removeprefix("test_") for name in tested]
    beside = [
        name.removesuffix(f"_{kinds[0]}")
        for name in map(str, dataset)
        if kinds and name.endswith(f"_{kinds[0]}") and name not in tested
    ]
    beside = [name for name in beside if all(f"{name}_{k}" in dataset for k in kinds)]
    parts = [dataset.drop_vars([f"{name}_{k}" for name in beside for k in kinds])]
    for name in beside:
        there = dataset[f"{name}_{kinds[0]}"].notnull()
        arms = np.flatnonzero(there.any([d for d in there.dims if d != "arm"]))
        part = dataset.isel(arm=arms)
        part = part.assign({f"test_{k}": part[f"{name}_{k}"] for k in kinds})
        part = part.drop_vars([f"{other}_{k}" for other in beside for k in kinds])
        renamed = {
            coord: ("arm", [f"{value} ({name})" for value in part[coord].values])
            for coord in ("arm", "method")
        }
        parts.append(part.assign_coords(renamed))
    return xarray.concat(parts, "arm", join="exact", combine_attrs="override")


def named(dataset: xarray.Dataset, metric: str = "test_accuracy") -> xarray.Dataset:
    """The metric on old, new and all that was learned so far, and on what was first.

    Args:
      dataset: the results; the metric's subsets are the tasks, ``"0"``, ``"1"`` and so
        on, or have the names ``old``, ``new`` and ``all``.
      metric: the metric.

    Returns:
      The results with the metrics ``first``, ``old``, ``new`` and ``all``, ``[arm,
      seed, bin]``: of tasks, means over them, and the first is task 0; else it is
      ``base``. NaN where there is nothing yet.

    Raises:
      ValueError: for other subsets.
    """
    names = [str(name) for name in dataset["subset"].values]
    order = ("arm", "seed", "bin", "subset")
    values = results.counting(dataset, metric).transpose(*order)
    found: dict[str, xarray.DataArray | tuple]
    if set(NAMED) <= set(names):
        found = {name: values.sel(subset=name, drop=True) for name in NAMED}
        first = values.sel(subset="base", drop=True) if "base" in names else None
    elif names == [str(i) for i in range(len(names))]:
        task = results.counting(dataset, "task").transpose(*order[:-1])
        parts = metrics.old_new_all(values.values, task.values)
        found = {n: (order[:-1], parts[..., i]) for i, n in enumerate(NAMED)}
        first = values.sel(subset="0", drop=True)
    else:
        raise ValueError(f"subsets must be tasks, or have old, new and all: {names}")
    if first is not None:
        found["first"] = first
    return dataset.assign(found)
