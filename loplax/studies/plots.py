"""What figures of a study are made of, from its results alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib.axes
import matplotlib.figure
import numpy as np
import xarray
from matplotlib import collections, markers, ticker

from loplax.studies import intervals, results, statistics
from loplax.studies.looks import Look

MOST_VALUES = 7  # of a number, above which they are not ticks themselves
MOST_CHANGES = 60  # of task, above which ticks would be a bar


def curves(
    axes: matplotlib.axes.Axes,
    dataset: xarray.Dataset,
    metric: str,
    looks: Mapping[str, Look],
    *,
    every: int = 1,
    band: bool = True,
) -> None:
    """Draws a metric over the run: mean over seeds with its 95% interval.

    Of fewer than five seeds each is shown as well, as points.
    A line goes on over bins in which no run has a value, to the next in which one has.

    Args:
      axes: where to draw.
      dataset: the results.
      metric: the metric, without subsets; arms that do not have it are left out.
      looks: how to draw the arms, see `looks.assign`; those without a look are grey.
      every: bins averaged into one point, at the last one's place.
      band: whether to draw the intervals, and the points of few seeds.

    Raises:
      ValueError: if there is no such metric.
    """
    shown = statistics.coarse(dataset, metric, every)
    found = statistics.summary(shown, metric, range(shown.sizes["bin"]))
    step = shown["step"].values
    values = results.counting(shown, metric).transpose("arm", "bin", "seed").values
    for i, arm in enumerate(dataset["arm"].values):
        mean, low, high = (found[n].values[i] for n in ("mean", "low", "high"))
        there = ~np.isnan(mean)
        if not there.any():
            continue
        if arm not in looks:
            axes.plot(step[there], mean[there], color="#cccccc", lw=0.7, zorder=0)
            continue
        label, colour, style = looks[arm]
        marker = "o" if there.sum() == 1 else ""  # one point is no line
        look: dict[str, Any] = {"color": colour, "ls": style, "marker": marker}
        look |= {"label": label, "lw": 1.6, "clip_on": not marker}
        axes.plot(step[there], mean[there], **look)
        if band:
            _spread(axes, step, low, high, values[i], colour)
    _over_steps(axes, shown)


def _spread(axes, step, low, high, values: np.ndarray, colour) -> None:
    """Draws the interval and, where they are few, the seeds, ``values [bins, seeds]``.

    What of an interval is far wider than the rest may leave the axes, and all of it
    where the seeds are few: else nothing but the intervals would be seen.
    """
    few = values.shape[1] < intervals.POINTS
    there = ~np.isnan(low)
    if there.any():
        x, low, high = step[there], low[there], high[there]
        outline = np.concatenate([[x, low], [x[::-1], high[::-1]]], axis=1).T
        look = {"color": colour, "alpha": 0.08 if few else 0.18, "lw": 0}
        band = collections.PolyCollection([outline], **look)
        axes.add_collection(band, autolim=False)
        ends = (np.percentile(low, 10), np.percentile(high, 90))
        axes.update_datalim([] if few else [(x[0], ends[0]), (x[-1], ends[1])])
        axes.autoscale_view()
    _points(axes, step, values, colour)


def _points(axes, x, values: np.ndarray, colour) -> None:
    if 1 < values.shape[1] < intervals.POINTS:
        x = np.broadcast_to(np.asarray(x)[:, None], values.shape).ravel()
        axes.plot(x, values.ravel(), ".", color=colour, ms=3, alpha=0.6)


def _over_steps(axes: matplotlib.axes.Axes, dataset: xarray.Dataset) -> None:
    axes.set_xlabel("examples")
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.set_xlim(0, float(dataset["step"][-1]))
    _plain(axes)


def _plain(axes: matplotlib.axes.Axes, grid: Literal["both", "x"] = "both") -> None:
    axes.grid(axis=grid, alpha=0.25, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def changes(dataset: xarray.Dataset) -> np.ndarray:
    """Steps at which one task ends and the next begins, from the metric ``task``.

    Args:
      dataset: the results.

    Returns:
      The steps; none without such a metric, or where they are too many to be told
      apart in a figure, or some are within one bin.
    """
    if "task" not in dataset:
        return np.zeros(0)
    task = results.counting(dataset, "task").max(["arm", "seed"]).values
    new = np.diff(task)
    found = dataset["step"].values[:-1][new > 0]
    told = found.size <= MOST_CHANGES and not np.any(new > 1)
    return found if told else found[:0]


def tick(axes: matplotlib.axes.Axes, steps: np.ndarray) -> None:
    """Marks steps on the x axis of ``axes``, inward, beside its ticks."""
    # One line: as minor ticks, they took as long as all the rest of the figures.
    look: dict[str, Any] = {"ls": "", "marker": markers.TICKUP, "ms": 5, "mew": 0.8}
    look |= {"color": "black", "clip_on": False, "scalex": False, "scaley": False}
    place = axes.get_xaxis_transform()
    axes.plot(steps, np.zeros_like(steps), transform=place, **look)


def subsets(axes: matplotlib.axes.Axes, dataset: xarray.Dataset, metric: str) -> None:
    """Draws a metric of one arm with a line for each subset, in the order of colours.

    Args:
      axes: where to draw.
      dataset: the results, of one arm.
      metric: the metric, with subsets.

    Raises:
      ValueError: if there is no such metric.
    """
    found = statistics.summary(dataset, metric, range(dataset.sizes["bin"]))
    found = found.isel(arm=0).transpose("subset", "bin", ...)
    step = dataset["step"].values
    counting = results.counting(dataset, metric).isel(arm=0)
    values = counting.transpose("subset", "bin", "seed").values
    scale = matplotlib.colormaps["viridis"]
    for i, name in enumerate(dataset["subset"].values):
        mean, low, high = (found[n].values[i] for n in ("mean", "low", "high"))
        there = ~np.isnan(mean)
        colour = scale(0.92 * i / max(dataset.sizes["subset"] - 1, 1))
        marker = "o" if there.sum() == 1 else ""
        look: dict[str, Any] = {"color": colour, "label": str(name), "marker": marker}
        axes.plot(step[there], mean[there], lw=1.4, clip_on=not marker, **look)
        _spread(axes, step, low, high, values[i], colour)
    _over_steps(axes, dataset)


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
    _plain(axes, "x")
    return names


def over(
    axes: matplotlib.axes.Axes,
    values: xarray.DataArray,
    dim: str,
    looks: Mapping[str, Look],
    *,
    every: int = 1,
) -> None:
    """Draws one number of every arm over sessions: mean over seeds with its interval.

    Args:
      axes: where to draw.
      values: ``[arm, seed, dim]``, with a coordinate along ``dim``.
      dim: name of the dimension.
      looks: how to draw the arms, see `looks.assign`.
      every: how many along the dimension are averaged into one point.
    """
    parts = values.coarsen({dim: every}, boundary="trim").mean()
    place = parts[dim].values
    for arm, look in looks.items():
        seeds = parts.sel(arm=arm).transpose(dim, "seed").values
        mean, low, high = intervals.mean(seeds)
        style: dict[str, Any] = {"color": look.colour, "ls": look.style}
        axes.plot(place, mean, lw=1.4, label=look.label, **style)
        _spread(axes, place, low, high, seeds, look.colour)
    axes.set_xlim(values[dim].values[0] - 0.5, values[dim].values[-1] + 0.5)
    _plain(axes)


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
    _plain(axes, "x")


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
    _plain(axes, "x")


def _bar(axes, cell: xarray.Dataset, place: float, colour, face, seeds) -> None:
    mean, low, high = (cell[name].item() for name in ("mean", "low", "high"))
    errors = np.nan_to_num([[mean - low], [high - mean]])
    look = {"color": colour, "markerfacecolor": face, "ms": 5, "lw": 1.2}
    axes.errorbar(mean, place, xerr=errors, fmt="o", **look)
    if 1 < seeds.size < intervals.POINTS:
        axes.plot(seeds, np.full(seeds.size, place), ".", color=colour, ms=2.5)


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
            _points(axes, line[name], values.sel(arm=line["arm"]).values, colour)
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
    _plain(axes)
