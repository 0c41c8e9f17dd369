"""Figures of a study, from its results alone."""

from collections.abc import Mapping, Sequence

import matplotlib.axes
import matplotlib.figure
import numpy as np
import xarray
from matplotlib import ticker

from loplax.studies import results, statistics

# Okabe & Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#D55E00", "#0072B2", "#999999", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def curves(
    axes: matplotlib.axes.Axes,
    dataset: xarray.Dataset,
    metric: str,
    *,
    labels: Mapping[str, str] | None = None,
    setting: int = 0,
    every: int = 1,
) -> None:
    """Draws a metric over the run: mean over seeds with its 95% bootstrap interval.

    A line goes on over bins in which no run has a value, to the next in which one has.

    Args:
      axes: where to draw.
      dataset: the results, from ``results.load``.
      metric: the metric; methods that do not have it are left out.
      labels: what to call the methods in the legend.
      setting: which setting of the sweep.
      every: bins averaged into one point, at the last one's place.

    Raises:
      ValueError: if there is no such metric.
    """
    shown = coarse(_select(dataset, setting), metric, every)
    found = statistics.summary(shown, metric, range(shown.sizes["bin"]))
    for i, method in enumerate(shown["method"].values):
        line = found.isel(arm=i)
        line = line.isel(bin=line["mean"].notnull().values)
        if not line.sizes["bin"]:
            continue
        colour, style = _look(i)
        look = {"color": colour, "label": (labels or {}).get(method, method)}
        if line.sizes["bin"] == 1:  # no line at all
            look["marker"] = "o"
        axes.plot(line["step"], line["mean"], style, lw=1.8, **look)
        axes.fill_between(
            line["step"], line["low"], line["high"], color=colour, alpha=0.25, lw=0
        )
    axes.set_xlabel("examples")
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.margins(x=0)
    axes.grid(alpha=0.25, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _select(dataset: xarray.Dataset, setting: int) -> xarray.Dataset:
    """One arm of each method: that of a setting, or its last if it has fewer."""
    methods = dataset["method"].values
    every = [np.flatnonzero(methods == name) for name in dict.fromkeys(methods)]
    return dataset.isel(arm=[arms[min(setting, len(arms) - 1)] for arms in every])


def coarse(dataset: xarray.Dataset, metric: str, every: int) -> xarray.Dataset:
    """Averages a metric over bins.

    Args:
      dataset: the results.
      metric: the metric; the others are left out.
      every: bins in a row that become one, at the place of the last; what is left over
        at the end is dropped.

    Returns:
      The results with fewer bins, each the mean of those in which a run has a value.
    """
    if every == 1 or metric not in dataset:
        return dataset
    bins = {"bin": min(every, dataset.sizes["bin"])}
    last = {"bin": "max", "step": "max"}
    means = dataset[[metric]].coarsen(bins, boundary="trim", coord_func=last).mean()
    return dataset.drop_dims("bin").merge(means)


def _look(index: int) -> tuple[str, str]:
    """Colour and line style of a method: colours first, then styles."""
    styles = ("-", "--", ":", "-.")
    return COLOURS[index % len(COLOURS)], styles[index // len(COLOURS) % len(styles)]


def comparison(
    axes: matplotlib.axes.Axes,
    dataset: xarray.Dataset,
    metric: str,
    *,
    labels: Mapping[str, str] | None = None,
    setting: int = 0,
) -> None:
    """Draws a metric of every method in the first bin (hollow) and the last (full).

    Means over the seeds with their 95% bootstrap intervals, in the order of the last.
    The first bin is the first in which any run has a value.

    Args:
      axes: where to draw.
      dataset: the results.
      metric: the metric; methods that do not have it are left out.
      labels: what to call the methods.
      setting: which setting of the sweep.

    Raises:
      ValueError: if there is no such metric.
    """
    shown = _select(dataset, setting)
    found = statistics.summary(shown, metric, (first(shown, metric), -1))
    found = found.sortby(found["mean"].isel(bin=-1))
    found = found.isel(arm=found["mean"].isel(bin=-1).notnull().values)
    places = np.arange(found.sizes["arm"])
    for i, (colour, face) in enumerate((("#999999", "white"), ("#0072B2", "#0072B2"))):
        line = found.isel(bin=i)
        mean = line["mean"].values
        errors = np.stack([mean - line["low"].values, line["high"].values - mean])
        axes.errorbar(
            mean,
            places,
            xerr=np.maximum(np.nan_to_num(errors), 0),
            fmt="o",
            color=colour,
            markerfacecolor=face,
        )
    names = [(labels or {}).get(name, name) for name in found["method"].values]
    axes.set_yticks(places, names)
    axes.grid(axis="x", alpha=0.25, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def first(dataset: xarray.Dataset, metric: str) -> int:
    """The first bin in which any run has a value of a metric; 0 if none has.

    Args:
      dataset: the results.
      metric: the metric.

    Returns:
      The index of the bin.

    Raises:
      ValueError: if there is no such metric.
    """
    there = results.counting(dataset, metric).notnull()
    return int(there.any(["arm", "seed"]).argmax("bin"))


def swept(dataset: xarray.Dataset) -> list[str]:
    """Names of the settings that a study swept."""
    along = [name for name in dataset.coords if dataset[name].dims == ("arm",)]
    return [str(name) for name in along if name not in ("arm", "method")]


def settings(
    axes: matplotlib.axes.Axes,
    dataset: xarray.Dataset,
    metric: str,
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    higher_is_better: bool = False,
) -> None:
    """Draws a metric at the end of the run over the values of one swept setting.

    For every method and value, the best of the other swept settings counts.

    Args:
      axes: where to draw.
      dataset: the results.
      metric: the metric; methods that do not have it are left out.
      name: the swept setting.
      labels: what to call the methods in the legend.
      higher_is_better: whether the best setting is that of the highest mean.

    Raises:
      ValueError: if there is no such metric.
    """
    found = statistics.summary(dataset, metric, [-1]).isel(bin=0)
    for i, method in enumerate(dict.fromkeys(dataset["method"].values)):
        line = found.isel(arm=(found["method"] == method).values)
        values = np.unique(line[name].dropna("arm"))
        if np.isnan(line["mean"]).all() or not values.size:
            continue
        best = []
        for value in values:
            at = line.isel(arm=(line[name] == value).values)
            mean = at["mean"].fillna(-np.inf if higher_is_better else np.inf)
            chosen = np.argmax if higher_is_better else np.argmin
            best.append(at.isel(arm=int(chosen(mean.values))))
        best = xarray.concat(best, "value", coords="minimal", compat="override")
        mean = best["mean"].values
        errors = np.stack([mean - best["low"].values, best["high"].values - mean])
        colour, _ = _look(i)
        label = (labels or {}).get(method, method)
        axes.errorbar(
            values, mean, np.maximum(errors, 0), color=colour, label=label, marker="o"
        )
    if (dataset[name].dropna("arm") > 0).all():
        axes.set_xscale("log")
    axes.set_xlabel(name)
    axes.grid(alpha=0.25, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: matplotlib.figure.Figure, axes: Sequence) -> None:
    """Puts one legend for all axes below them."""
    pairs = [zip(*each.get_legend_handles_labels(), strict=True) for each in axes]
    named = {label: handle for pair in pairs for handle, label in pair}
    figure.legend(
        named.values(), named, loc="outside lower center", ncols=4, frameon=False
    )


def panels(number: int, columns: int = 3) -> tuple[matplotlib.figure.Figure, Sequence]:
    """A figure of ``number`` equal axes in rows of ``columns``, without a display.

    Args:
      number: how many axes.
      columns: most axes in a row.

    Returns:
      ``(figure, axes)``.
    """
    columns = min(columns, number)
    rows = -(-number // columns)
    figure = matplotlib.figure.Figure(
        figsize=(4.2 * columns, 3.2 * rows), layout="constrained"
    )
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[number:]:
        unused.remove()
    return figure, axes[:number]
