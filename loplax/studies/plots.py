"""What figures show over the steps or the sessions of a study, from its results."""

from collections.abc import Mapping
from typing import Any, Literal

import matplotlib.axes
import matplotlib.figure
import numpy as np
import xarray
from matplotlib import collections, markers, ticker

from loplax.studies import intervals, results, statistics
from loplax.studies.looks import Look

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
    points(axes, step, values, colour)


def points(axes: matplotlib.axes.Axes, x, values: np.ndarray, colour) -> None:
    """Draws the seeds, ``values [x, seeds]``, one by one where they are few."""
    if 1 < values.shape[1] < intervals.POINTS:
        x = np.broadcast_to(np.asarray(x)[:, None], values.shape).ravel()
        axes.plot(x, values.ravel(), ".", color=colour, ms=3, alpha=0.6)


def _over_steps(axes: matplotlib.axes.Axes, dataset: xarray.Dataset) -> None:
    axes.set_xlabel("examples")
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.set_xlim(0, float(dataset["step"][-1]))
    plain(axes)


def plain(axes: matplotlib.axes.Axes, grid: Literal["both", "x"] = "both") -> None:
    """Makes axes look as all of them do, with a grid along one axis or both."""
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
    plain(axes)
