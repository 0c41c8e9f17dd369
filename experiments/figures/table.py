"""A study as a table: the first and the last bins of every arm, and differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas
import xarray

from experiments.figures import words
from loplax.studies import intervals, statistics

if TYPE_CHECKING:
    from experiments.figures import figures


def frame(
    dataset: xarray.Dataset, shown: figures.Figure, baseline: str | None = None
) -> pandas.DataFrame:
    """The main metric of every arm, one row an arm, as text.

    Args:
      dataset: the results.
      shown: the metric, and how many bins to average; where the metric has subsets,
        see `statistics.over_subsets`.
      baseline: the arm to compare with, as the results name it; the first if there is
        none.

    Returns:
      The columns ``arm``; the first and the last bins, mean and 95% interval; of the
      last also the interquartile mean, where there are ten seeds or more, the
      difference to the baseline and the share of seeds that are better, where there
      are several arms; the problem's own columns; ``diverged``, the number of runs
      that did. The mean alone
      stands where runs are too few for an interval, ``-`` where none has a value.

    Raises:
      ValueError: if there is no such metric or arm.
    """
    metric, every = shown.metric, shown.every
    dataset = shown.arms(dataset)
    columns = shown.columns(dataset) if shown.columns else {}
    if metric in dataset:
        dataset = dataset.assign({metric: statistics.over_subsets(dataset[metric])})
    size = int(dataset["step"][0]) * statistics.merged(dataset, every)
    dataset = statistics.coarse(dataset, metric, every)
    ends = sorted({0, dataset.sizes["bin"] - 1})
    names = [f"first {size:,} {shown.steps}", f"last {size:,}"][: len(ends)]
    found = statistics.summary(dataset, metric, ends)
    cells = {"arm": [words.arm(name) for name in dataset["arm"].values]}
    for i, name in enumerate(names):
        cells[name] = _column(found.isel(bin=i), ("mean", "low", "high"))
    last = found.isel(bin=-1)
    if dataset.sizes["seed"] >= intervals.MANY:
        cells["interquartile mean"] = _column(last, ("iqm", "iqm_low", "iqm_high"))
    if dataset.sizes["arm"] > 1:
        against = statistics.differences(
            dataset,
            metric,
            baseline=baseline,
            higher_is_better=shown.higher_is_better,
        )
        cells |= _against(against.isel(bin=0), dataset["arm"].values)
    for name, values in columns.items():
        ends = intervals.mean(values.transpose("arm", "seed").values)
        parts = ("mean", "low", "high")
        own = {part: xarray.DataArray(x) for part, x in zip(parts, ends, strict=True)}
        cells[name] = _column(own, parts)
    # In a bin it counts those by then: what is listed is how many did in the end.
    cells["diverged"] = dataset["diverged"].sum("seed").values
    return pandas.DataFrame(cells)


def _against(found: xarray.Dataset, arms: np.ndarray) -> dict[str, list[str]]:
    baseline = found.attrs["baseline"]
    found = found.reindex(arm=arms)
    names = ("mean", "low", "high")
    share = ("improvement", "improvement_low", "improvement_high")
    return {
        f"minus {words.arm(baseline)}": _column(found, names, sign="+"),
        "better": _column(found, share, decimals=2),
    }


def _column(
    found: xarray.Dataset, names: tuple[str, ...], sign="", decimals: int | None = None
) -> list[str]:
    """Each ``mean [low, high]``, with as many digits as tell the means apart."""
    rows = list(zip(*(found[name].values for name in names), strict=True))
    finite = np.abs([mean for mean, *_ in rows if np.isfinite(mean)])
    largest = max(finite, default=0) or 1.0
    if decimals is None:
        decimals = int(np.clip(3 - np.floor(np.log10(largest)), 0, 9))
    form = f"{sign}.{decimals}f" if largest < 1e6 else f"{sign}.3e"
    return [_cell(row, form) for row in rows]


def _cell(row: tuple[float, ...], form: str) -> str:
    mean, low, high = (format(value, form) for value in row)
    if np.isnan(row[0]):
        return "-"
    return mean if np.isnan(row[1]) else f"{mean} [{low}, {high}]"


def caption(dataset: xarray.Dataset, shown: figures.Figure) -> str:
    """What the columns of `frame` are."""
    better = "higher" if shown.higher_is_better else "lower"
    seeds = dataset.sizes["seed"]
    interval = seeds >= intervals.LEAST
    kind = " [95% interval]" if interval else ", too few for an interval"
    said = [f"mean of {seeds} seeds{kind}" if seeds > 1 else "1 seed"]
    if dataset.sizes["arm"] > 1:
        said.append("minus: difference within the seeds, last")
        said.append(f"better: share of the seeds with which it is {better}, last")
    if seeds >= intervals.MANY:
        said.append("interquartile mean: of the middle half of the seeds, last")
    return "; ".join([*said, *words.missing(dataset)])


def text(
    dataset: xarray.Dataset, shown: figures.Figure, baseline: str | None = None
) -> str:
    """The table for a terminal, with its caption; arguments as of `frame`."""
    rows = frame(dataset, shown, baseline).to_string(index=False)
    return f"{rows}\n{caption(dataset, shown)}"


def html(
    dataset: xarray.Dataset, shown: figures.Figure, baseline: str | None = None
) -> str:
    """The table for a notebook, with its caption; arguments as of `frame`."""
    rows = frame(dataset, shown, baseline).to_html(index=False, border=0)
    return f"{rows}<p>{caption(dataset, shown)}</p>"
