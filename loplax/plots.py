"""Figures of a study, from its results alone."""

from collections.abc import Mapping, Sequence

import matplotlib.axes
import matplotlib.figure
import numpy as np
import xarray
from matplotlib import ticker

from loplax import results

# Okabe & Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#D55E00", "#0072B2", "#999999", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def curves(
    axes: matplotlib.axes.Axes,
    dataset: xarray.Dataset,
    metric: str,
    *,
    labels: Mapping[str, str] | None = None,
    setting: int = 0,
) -> None:
    """Draws a metric over the run: mean over seeds with its 95% bootstrap interval.

    Args:
      axes: where to draw.
      dataset: the results, from ``results.load``.
      metric: the metric; methods that do not have it are left out.
      labels: what to call the methods in the legend.
      setting: which setting of the sweep.

    Raises:
      ValueError: if there is no such metric.
    """
    bins = range(dataset.sizes["bin"])
    found = results.summary(dataset.isel(setting=[setting]), metric, bins)
    for i, method in enumerate(dataset["method"].values):
        line = found.isel(method=i, setting=0)
        if np.isnan(line["mean"]).all():
            continue
        colour = COLOURS[i % len(COLOURS)]
        label = (labels or {}).get(method, method)
        axes.plot(dataset["step"], line["mean"], color=colour, label=label, lw=1.8)
        axes.fill_between(
            dataset["step"], line["low"], line["high"], color=colour, alpha=0.25, lw=0
        )
    axes.set_xlabel("examples")
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.margins(x=0)
    axes.grid(alpha=0.25, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def swept(dataset: xarray.Dataset) -> list[str]:
    """Names of the settings that a study swept."""
    along = [name for name in dataset.coords if dataset[name].dims == ("setting",)]
    return [str(name) for name in along if name != "setting"]


def settings(
    axes: matplotlib.axes.Axes,
    dataset: xarray.Dataset,
    metric: str,
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Draws a metric at the end of the run over the values of one swept setting.

    For every method and value, the best of the other swept settings counts (lowest
    mean).

    Args:
      axes: where to draw.
      dataset: the results.
      metric: the metric, lower is better; methods that do not have it are left out.
      name: the swept setting.
      labels: what to call the methods in the legend.

    Raises:
      ValueError: if there is no such metric.
    """
    found = results.summary(dataset, metric, [-1]).isel(bin=0)
    values = np.unique(dataset[name])
    for i, method in enumerate(dataset["method"].values):
        line = found.isel(method=i)
        if np.isnan(line["mean"]).all():
            continue
        best = []
        for value in values:
            at = line.isel(setting=np.flatnonzero(dataset[name] == value))
            mean = at["mean"].fillna(np.inf)
            best.append(at.isel(setting=int(np.argmin(mean.values))))
        best = xarray.concat(best, "value", coords="minimal", compat="override")
        mean = best["mean"].values
        errors = np.stack([mean - best["low"].values, best["high"].values - mean])
        colour = COLOURS[i % len(COLOURS)]
        label = (labels or {}).get(method, method)
        axes.errorbar(
            values, mean, np.maximum(errors, 0), color=colour, label=label, marker="o"
        )
    if np.all(values > 0):
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
