"""What figures show of the methods beside each other, from the results of a study."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.axes
import numpy as np
import xarray
from matplotlib import ticker

from loplax.studies import intervals, plots, results, statistics
from loplax.studies.looks import Look

MOST_VALUES = 7  # of a number, above which they are not ticks themselves


def comparison(
    axes: matplotlib.axes.Axes,
    dataset: xarray.Dataset,
    metric: str,
    looks: Mapping[str, Look],
) -> list[str]:
    """Draws a metric of every arm in the first bin (hollow) and the last (full).

    Means over the seeds with their 95% intervals, in the order of the last. The first
    and the last bin are those in which any run has a value.

    Args:
      axes: where to draw.
      dataset: the results.
      metric: the metric, without subsets; arms that do not have it are left out.
      looks: how to draw the arms, see `looks.assign`.

    Returns:
      The arms from below, as drawn.

    Raises:
      ValueError: if there is no such metric.
    """
    bins = ends(dataset, metric)
    found = statistics.summary(dataset, metric, bins)
    found = found.sortby(found["mean"].isel(bin=-1))
    found = found.isel(arm=found["mean"].isel(bin=-1).notnull().values)
    names = found["arm"].values.tolist()
    values = results.counting(dataset, metric).isel(bin=list(bins)).sel(arm=names)
    for place, name in enumerate(names):
        colour = looks[name].colour
        for i, (face, shift) in enumerate((("white", 0.17), (colour, -0.12))):
            seeds = values.isel(arm=place, bin=i).values
            _bar(axes, found.isel(arm=place, bin=i), place + shift, colour, face, seeds)
    axes.set_yticks(range(len(names)), [looks[name].label for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    plots.plain(axes, "x")
    return names


def against(
    axes: matplotlib.axes.Axes,
    dataset: xarray.Dataset,
    metric: str,
    looks: Mapping[str, Look],
    order: Sequence[str],
    *,
    higher_is_better: bool = False,
) -> None:
    """Draws the paired differences to the first arm in the last bin.

    To the right stands the share of seeds with which an arm is better.

    Args:
      axes: where to draw.
      dataset: the results.
      metric: the metric, without subsets.
      looks: how to draw the arms, see `looks.assign`.
      order: the arms from below.
      higher_is_better: whether the metric measures success, not error.
    """
    last = ends(dataset, metric)[-1:]
    found = statistics.differences(
        dataset, metric, last, higher_is_better=higher_is_better
    ).isel(bin=0)
    values = results.counting(dataset, metric).isel(bin=last[0])
    values = values - values[0]
    for place, name in enumerate(order):
        if name in found["arm"]:
            cell, colour = found.sel(arm=name), looks[name].colour
            _bar(axes, cell, place, colour, colour, values.sel(arm=name).values)
            if cell["improvement"].notnull():
                text, x = (
                    f"{cell['improvement'].item():.0%}",
                    axes.get_yaxis_transform(),
                )
                axes.text(1.02, place, text, transform=x, fontsize=8, va="center")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6))  # signed numbers are long
    axes.axvline(0, color="#444444", lw=0.8, zorder=0)
    axes.set_yticks(range(len(order)), [""] * len(order))
    axes.set_ylim(-0.6, len(order) - 0.4)
    plots.plain(axes, "x")


def bars(
    axes: matplotlib.axes.Axes,
    values: xarray.DataArray,
    looks: Mapping[str, Look],
    *,
    names: bool = True,
) -> None:
    """Draws one number of every arm: mean over the seeds with its 95% interval.

    Args:
      axes: where to draw.
      values: ``[arm, seed]``; arms without a value stay empty.
      looks: how to draw the arms, from below, see `looks.assign`.
      names: whether to write their names.
    """
    for place, (arm, look) in enumerate(looks.items()):
        seeds = values.sel(arm=arm).values
        parts = zip(("mean", "low", "high"), intervals.mean(seeds), strict=True)
        cell = xarray.Dataset(dict(parts))
        _bar(axes, cell, place, look.colour, look.colour, seeds)
    shown = [look.label for look in looks.values()] if names else [""] * len(looks)
    axes.set_yticks(range(len(looks)), shown)
    axes.set_ylim(-0.6, len(looks) - 0.4)
    plots.plain(axes, "x")


def _bar(axes, cell: xarray.Dataset, place: float, colour, face, seeds) -> None:
    mean, low, high = (cell[name].item() for name in ("mean", "low", "high"))
    errors = np.nan_to_num([[mean - low], [high - mean]])
    look = {"color": colour, "markerfacecolor": face, "ms": 5, "lw": 1.2}
    axes.errorbar(mean, place, xerr=errors, fmt="o", **look)
    if 1 < seeds.size < intervals.POINTS:
        axes.plot(seeds, np.full(seeds.size, place), ".", color=colour, ms=2.5)


def settings(
    axes: matplotlib.axes.Axes,
    dataset: xarray.Dataset,
    metric: str,
    name: str,
    looks: Mapping[str, Look],
) -> None:
    """Draws a metric in its last bin over the values of one swept number.

    A method that does not use it is a dashed line.

    Args:
      axes: where to draw.
      dataset: the results, of one arm for each method and value.
      metric: the metric, without subsets; methods that do not have it are left out.
      name: the swept number.
      looks: how to draw the methods, see `looks.assign`.

    Raises:
      ValueError: if there is no such metric.
    """
    last = ends(dataset, metric)[-1:]
    found = statistics.summary(dataset, metric, last).isel(bin=0).sortby(name)
    values = results.counting(dataset, metric).isel(bin=last[0])
    for method, (label, colour, style) in looks.items():
        line = found.isel(arm=np.flatnonzero(found["method"] == method))
        line = line.isel(arm=line["mean"].notnull().values)
        mean, low, high = (line[n].values for n in ("mean", "low", "high"))
        if np.isfinite(line[name]).any():
            errors = np.nan_to_num([mean - low, high - mean])
            look: dict[str, Any] = {"color": colour, "ls": style, "label": label}
            look |= {"marker": "o", "ms": 4, "lw": 1.4, "elinewidth": 0.9, "capsize": 2}
            axes.errorbar(line[name], mean, errors, **look)
            plots.points(axes, line[name], values.sel(arm=line["arm"]).values, colour)
        elif mean.size:
            axes.axhline(mean[0], color=colour, ls="--", lw=1.2, label=label)
            axes.axhspan(low[0], high[0], color=colour, alpha=0.12, lw=0)
    places = np.unique(dataset[name].dropna("arm"))
    if places.min() > 0:
        axes.set_xscale("log")
        if places.size <= MOST_VALUES:
            axes.set_xticks(places, [f"{place:g}" for place in places])
            axes.minorticks_off()
    axes.set_xlabel(name, fontsize=9)
    plots.plain(axes)


def ends(dataset: xarray.Dataset, metric: str) -> tuple[int, int]:
    """The first and the last bin in which any run has a value of a metric.

    Args:
      dataset: the results.
      metric: the metric, without subsets.

    Returns:
      The indices of the bins; those of all bins if no run has a value.

    Raises:
      ValueError: if there is no such metric.
    """
    there = results.counting(dataset, metric).notnull().any(["arm", "seed"])
    bins = np.flatnonzero(there.values)
    return (int(bins[0]), int(bins[-1])) if bins.size else (0, -1)
