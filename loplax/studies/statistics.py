"""What the runs of a study say together: means over seeds, and how sure they are."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import xarray

from loplax.studies import intervals, results

LEAST_TO_SPLIT = 4  # seeds, below which a best arm is chosen and shown on the same


def summary(
    dataset: xarray.Dataset,
    metric: str,
    bins: Sequence[int] = (-1,),
    *,
    confidence: float = 0.95,
) -> xarray.Dataset:
    """Mean of a metric over the seeds, with an interval of that mean.

    In every bin those runs count that have a value there and had not diverged by its
    end, whatever became of them later.

    Args:
      dataset: the results.
      metric: name of the metric.
      bins: indices of the bins; negative ones count from the end.
      confidence: probability that the intervals are to cover, in (0, 1).

    Returns:
      A Dataset ``[arm, bin]``, or ``[arm, bin, subset]`` if the metric has subsets:
      ``mean``, ``low`` and ``high``, see `intervals.mean`; ``iqm``, ``iqm_low`` and
      ``iqm_high``, see `intervals.interquartile_mean`; ``runs`` (how many count); and
      ``diverged`` ``[arm, bin]`` (how many had by then). What too few runs do not tell
      is NaN. ``.to_dataframe()`` makes a table of it.

    Raises:
      ValueError: if there is no such metric or bin, or confidence is out of range.

    Example:
      >>> found = results.empty(
      ...     ["bp"], {}, [0, 1], [10.0], {"loss": (np.dtype("float32"), False)}
      ... )
      >>> both = (np.array([0, 0]), np.array([0, 1]))
      >>> results.record(found, both, 0, {"loss": np.array([[1.0], [3.0]])})
      >>> float(summary(found, "loss")["mean"].item())
      2.0
    """
    intervals.check(confidence)
    chosen = _bins(dataset, bins)
    values = results.counting(chosen, metric)
    found = _over_seeds(intervals.mean, ("mean", "low", "high"), values, confidence)
    names = ("iqm", "iqm_low", "iqm_high")
    found |= _over_seeds(intervals.interquartile_mean, names, values, confidence)
    found["runs"] = values.notnull().sum("seed")
    found["diverged"] = _lost(chosen).sum("seed")
    return xarray.Dataset(found)


def differences(
    dataset: xarray.Dataset,
    metric: str,
    bins: Sequence[int] = (-1,),
    *,
    baseline: str | None = None,
    higher_is_better: bool = False,
    confidence: float = 0.95,
) -> xarray.Dataset:
    """Every arm against one of them, seed by seed.

    Runs of one seed see the same data, so that a difference within a seed varies less
    than one of means. The mean difference is over the seeds with which both runs
    count. The probability of improvement is the share of seeds with which the arm is
    better; a tie is half an improvement, and a run that has diverged is worse than any
    that has not.

    Args:
      dataset: the results.
      metric: name of the metric.
      bins: indices of the bins; negative ones count from the end.
      baseline: the arm to compare with; the first if there is none.
      higher_is_better: whether the metric measures success, not error.
      confidence: probability that the intervals are to cover, in (0, 1).

    Returns:
      A Dataset of the other arms, ``[arm, bin]`` or ``[arm, bin, subset]``: ``mean``,
      ``low`` and ``high`` of arm minus baseline, see `intervals.mean`; ``runs`` (how
      many pairs count); ``improvement``, ``improvement_low`` and ``improvement_high``,
      see `intervals.proportion`. Its attribute ``baseline`` is the baseline's name.

    Raises:
      ValueError: if there is no such metric, bin or arm, or confidence is out of range.

    Example:
      >>> found = results.empty(
      ...     ["bp", "cbp"], {}, [0, 1], [10.0], {"loss": (np.dtype("float32"), False)}
      ... )
      >>> every = (np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
      >>> results.record(found, every, 0, {"loss": np.array([[1.0], [9], [0], [7]])})
      >>> against = differences(found, "loss")
      >>> against["mean"].item(), against["improvement"].item()
      (-1.5, 1.0)
    """
    intervals.check(confidence)
    arms = [str(name) for name in dataset["arm"].values]
    baseline = arms[0] if baseline is None else baseline
    if baseline not in arms:
        raise ValueError(f"no arm {baseline!r}; the arms are {', '.join(arms)}")
    chosen = _bins(dataset, bins)
    values = results.counting(chosen, metric)
    ranks = values if higher_is_better else -values
    ranks = ranks.where(~_lost(chosen), -np.inf)
    mine, theirs = ranks.drop_sel(arm=baseline), ranks.sel(arm=baseline, drop=True)
    paired = mine.notnull() & theirs.notnull()
    paired &= values.notnull().any(("arm", "seed"))  # else there is nothing to win
    wins = ((mine > theirs) + 0.5 * (mine == theirs)).where(paired)
    names = ("mean", "low", "high")
    apart = values.drop_sel(arm=baseline) - values.sel(arm=baseline, drop=True)
    found = _over_seeds(intervals.mean, names, apart, confidence)
    found["runs"] = apart.notnull().sum("seed")
    names = ("improvement", "improvement_low", "improvement_high")
    counts = (wins.sum("seed"), paired.sum("seed"))
    shares = xarray.apply_ufunc(
        intervals.proportion,
        *counts,
        output_core_dims=[[]] * 3,
        kwargs={"confidence": confidence},
    )
    found |= dict(zip(names, shares, strict=True))
    return xarray.Dataset(found, attrs={"baseline": baseline})


def _bins(dataset: xarray.Dataset, bins: Sequence[int]) -> xarray.Dataset:
    if not all(-dataset.sizes["bin"] <= index < dataset.sizes["bin"] for index in bins):
        raise ValueError(f"bins {list(bins)}: there are {dataset.sizes['bin']} bins")
    return dataset.isel(bin=list(bins))


def _lost(dataset: xarray.Dataset) -> xarray.DataArray:
    """Whether a run has diverged by the end of each bin, ``[arm, seed, bin]``."""
    return dataset["diverged"] & (dataset["bins_sound"] <= dataset["bin"])


def _over_seeds(
    interval: Callable, names: Sequence[str], values: xarray.DataArray, confidence
) -> dict[str, xarray.DataArray]:
    found = xarray.apply_ufunc(
        lambda array: interval(array, confidence),
        values,
        input_core_dims=[["seed"]],
        output_core_dims=[[]] * len(names),
    )
    return dict(zip(names, found, strict=True))


class Best(NamedTuple):
    """The best arm of each method.

    Attributes:
      dataset: these arms, on the seeds that are to be shown.
      chosen: how many arms there were to choose from, at most.
      shared: whether they are shown on the seeds on which they were chosen.
    """

    dataset: xarray.Dataset
    chosen: int
    shared: bool


def best(
    dataset: xarray.Dataset,
    metric: str,
    *,
    higher_is_better: bool = False,
    per: Sequence[str] = (),
) -> Best:
    """The best arm of each method, chosen on every other seed and left with the others.

    The best of several means over seeds is better than it will be with other seeds.
    So half of the seeds choose and the other half show, from four seeds on. Where no
    method has several arms there is nothing to choose, and all seeds stay.

    The best is that of which the smallest share of runs has diverged, and of these that
    with the best mean over the seeds that all arms of the method have, in the last bin
    in which they have one. What has no run is not chosen.

    Args:
      dataset: the results.
      metric: name of the metric that chooses; of subsets the mean counts.
      higher_is_better: whether it measures success, not error.
      per: swept names; there is one best arm for each of their values.

    Returns:
      The best arms.

    Raises:
      ValueError: if there is no such metric.

    Example:
      >>> found = results.empty(["bp", "bp"], {"rate": [0.1, 0.2]}, [0], [10.0],
      ...                       {"loss": (np.dtype("float32"), False)})
      >>> both = (np.array([0, 1]), np.array([0, 0]))
      >>> results.record(found, both, 0, {"loss": np.array([[2.0], [1.0]])})
      >>> best(found, "loss").dataset["arm"].values.tolist()
      ['bp rate=0.2']
    """
    results.counting(dataset, metric)
    groups: dict[tuple[str, ...], list[int]] = {}
    for index in range(dataset.sizes["arm"]):
        key = [str(dataset[name].values[index]) for name in ("method", *per)]
        groups.setdefault(tuple(key), []).append(index)  # as text, NaN equals NaN
    most = max(map(len, groups.values()))
    split = most > 1 and dataset.sizes["seed"] >= LEAST_TO_SPLIT
    choosing = dataset.isel(seed=slice(0, None, 2)) if split else dataset
    arms = [
        group[_best(choosing.isel(arm=group), metric, higher_is_better)]
        for group in groups.values()
    ]
    shown = dataset.isel(arm=arms)
    shown = shown.isel(seed=slice(1, None, 2)) if split else shown
    return Best(shown, most, most > 1 and not split)


def _best(dataset: xarray.Dataset, metric: str, higher_is_better: bool) -> int:
    values, lost = over_subsets(results.counting(dataset, metric)), _lost(dataset)
    known = values.notnull() | lost
    there = known.any("seed")
    common = there.all("arm") if there.all("arm").any() else there.any("arm")
    last = np.flatnonzero(common.values)[-1:]
    if not last.size:
        return 0
    values, lost, known = (x.isel(bin=int(last[0])) for x in (values, lost, known))
    shared = known.all("arm")
    if shared.any():
        values, lost, known = (
            x.isel(seed=shared.values) for x in (values, lost, known)
        )
    number, final = known.sum("seed").values, values.mean("seed").values
    share = lost.sum("seed").values / np.maximum(number, 1)
    order = np.nan_to_num(-final if higher_is_better else final, nan=np.inf)
    return int(np.lexsort((order, share, number == 0))[0])


def over_subsets(values: xarray.DataArray) -> xarray.DataArray:
    """The subset ``all`` if there is one, or else the mean of those with a value.

    Args:
      values: values of a metric, with or without subsets.

    Returns:
      The values without subsets.
    """
    if "subset" not in values.dims:
        return values
    if "all" in values["subset"]:
        return values.sel(subset="all", drop=True)
    return values.mean("subset")


def merged(dataset: xarray.Dataset, every: int) -> int:
    """Bins that become one where ``every`` are wanted: at most half of all."""
    return min(every, max(1, dataset.sizes["bin"] // 2))


def coarse(dataset: xarray.Dataset, metric: str, every: int) -> xarray.Dataset:
    """Averages a metric over bins.

    Args:
      dataset: the results.
      metric: the metric; the others are left out.
      every: bins in a row that become one, at the place of the last, but at most half
        of all; what is left over at the beginning is dropped.

    Returns:
      The results with fewer bins, each the mean of those in which a run has a value.
    """
    every = merged(dataset, every)
    if every == 1 or metric not in dataset:
        return dataset
    last = {"bin": "max", "step": "max"}
    parts = dataset[[metric]].coarsen(
        bin=every, boundary="trim", side="right", coord_func=last
    )
    return dataset.drop_dims("bin").merge(parts.mean())


def swept(dataset: xarray.Dataset) -> list[str]:
    """Names of the numbers of which the arms have several values."""
    along = [str(name) for name in dataset.coords if dataset[name].dims == ("arm",)]
    numbers = [name for name in along if name not in ("arm", "method")]
    return [name for name in numbers if np.unique(dataset[name].dropna("arm")).size > 1]
