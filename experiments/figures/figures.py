"""The figures of a study, from its results: curves, diagnostics, comparison, sweep."""

import functools
import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import xarray

from experiments.figures import words
from experiments.launch import command_line
from experiments.methods import composing
from loplax import metrics
from loplax.studies import comparisons, looks, panels, plots, results, statistics

GROUP = 8  # arms in one panel of the main figure, at most


class Figure(NamedTuple):
    """What the figures and the table of a problem show.

    Attributes:
      metric: name of the metric.
      axis: its name in the figure.
      title: name of the problem.
      higher_is_better: whether it measures success, not error.
      every: bins averaged into a point of the curves.
      view: ``(dataset, configuration) -> dataset``, what to show of the results, which
        have one arm of each method.
      arms: ``dataset -> dataset``, with what else is to be shown as arms.
      along: what the step of that dataset counts, if not ``steps``.
      steps: what the results' steps are.
      about: ``configuration -> text``: the data set or environment, and what changes.
      more: further figures by name, ``(dataset, looks, lines) -> figure`` each, of the
        results as ``view`` gives them; see ``loplax.studies.looks``;
        None where there is nothing to show.
      columns: ``dataset -> {column: array [arm, seed]}``, what else the table shows,
        and the figure of what was swept.
    """

    metric: str
    axis: str
    title: str
    higher_is_better: bool = False
    every: int = 1
    view: Callable[[xarray.Dataset, dict], xarray.Dataset] | None = None
    arms: Callable[[xarray.Dataset], xarray.Dataset] = lambda dataset: dataset
    along: str = ""
    steps: str = "examples"
    about: Callable[[dict], str] | None = None
    more: Mapping[str, Callable] = {}
    columns: Callable[[xarray.Dataset], Mapping[str, xarray.DataArray]] | None = None


def draw(
    dataset: xarray.Dataset, shown: Figure, only: str = ""
) -> dict[str, matplotlib.figure.Figure]:
    """Draws the metric and the diagnostics over time, and what was compared and swept.

    Where numbers were swept, each method is shown in its best setting, see
    `statistics.best`.

    Args:
      dataset: the results, finished or running; their attribute ``config`` is the
        problem's configuration as JSON, ``preset`` its preset, where that is known.
      shown: what the main figure shows.
      only: name of the one figure to draw, if not all are wanted.

    Returns:
      The figures by name: ``figure``, ``diagnostics``; ``comparison`` of several
      methods; ``sweep`` where numbers were swept; ``subsets`` where a metric has them.

    Raises:
      ValueError: if there is no such metric.
    """
    dataset = shown.arms(dataset)
    better = {"higher_is_better": shown.higher_is_better}
    coarse = statistics.coarse(_flat(dataset), shown.metric, shown.every)
    best = statistics.best(coarse, shown.metric, **better)
    lines = words.head(dataset, best, shown.title, shown.about)
    whole = dataset.sel(arm=best.dataset["arm"], seed=best.dataset["seed"])
    if shown.view:
        whole = shown.view(whole, json.loads(dataset.attrs["config"]))
    flat = _flat(whole)
    kind = shown.metric.removeprefix("test_")
    if f"{kind}_fresh" in flat:
        gap = flat[f"{kind}_first"] - flat[f"{kind}_fresh"]
        flat["gap"] = -gap if shown.higher_is_better else gap
    own = appearance(looks.arms(flat))
    found = {"figure": lambda: _main(flat, shown, own, lines)}
    titles = words.diagnostics(flat, shown.metric)
    if titles:
        found["diagnostics"] = lambda: _many(flat, shown, own, lines, titles)
    if len(own) > 1:
        found["comparison"] = lambda: _comparison(flat, shown, own, lines)
    if statistics.swept(dataset):
        methods = appearance({name: name for name in looks.arms(flat).values()})
        columns = shown.columns(dataset) if shown.columns else {}
        found["sweep"] = lambda: _sweep(coarse, shown, methods, lines[:1], columns)
    if any("subset" in whole[name].dims for name in whole):
        found["subsets"] = lambda: _subsets(whole, shown, own, lines)
    for name, make in shown.more.items():
        found[name] = functools.partial(make, whole, own, lines)
    drawn = {name: make() for name, make in found.items() if only in ("", name)}
    return {name: figure for name, figure in drawn.items() if figure}


def appearance(arms: Mapping[str, str]) -> dict[str, looks.Look]:
    """How arms look, by name, from the method of each."""
    # Behind a method's name there may be a directory, a choice, or what is tested.
    bare = {arm: arm.partition(" ")[0] for arm in arms}
    shown = {arm: words.arm(arm).removeprefix(m) for arm, m in bare.items()}
    labels = {arm: composing.label(m) + shown[arm] for arm, m in bare.items()}
    colours = {arm: composing.colour(m) for arm, m in bare.items()}
    return looks.assign(arms, labels, colours)


def save(
    figures: Mapping[str, matplotlib.figure.Figure], directory: str | pathlib.Path
) -> list[str]:
    """Writes figures as PNG.

    Args:
      figures: for the name of each the figure.
      directory: where; it is made if it does not exist.

    Returns:
      The files written.

    Raises:
      OSError: if a figure cannot be written.
    """
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    paths = [str(pathlib.Path(directory) / f"{name}.png") for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        # Half the time of the default compression, and little more bytes.
        figure.savefig(path, dpi=150, pil_kwargs={"compress_level": 3})
    return paths


def _flat(dataset: xarray.Dataset) -> xarray.Dataset:
    """The results with one value in place of those of several subsets."""
    per_subset = [name for name in dataset if "subset" in dataset[name].dims]
    means = {name: statistics.over_subsets(dataset[name]) for name in per_subset}
    return dataset.drop_dims("subset", errors="ignore").assign(means)


def _along(axes, shown: Figure, changes: np.ndarray) -> None:
    marks = ", ticks above the axis: a new task" if changes.size else ""
    axes.set_xlabel((shown.along or shown.steps) + marks, fontsize=8)
    plots.tick(axes, changes)


def _main(dataset, shown: Figure, own, lines):
    number = -(-len(own) // GROUP)
    groups = [[str(arm) for arm in part] for part in np.array_split([*own], number)]
    right = panels.beside([look.label for look in own.values()])
    figure, many = panels.panels(
        number,
        columns=2,
        size=(5.2, 3.2),
        margins=panels.Margins(right=right, top=0.15),
        lines=lines,
        sharey=True,
    )
    changes = plots.changes(dataset)
    for axes, group in zip(many, groups, strict=True):
        part = {arm: own[arm] for arm in group}
        plots.curves(axes, dataset, shown.metric, part, every=shown.every)
        _along(axes, shown, changes)
        axes.set_ylabel(shown.axis, fontsize=9)
        panels.legend_beside(axes)
    if not shown.higher_is_better:
        many[0].set_ylim(bottom=0)
    return figure


def _many(dataset, shown: Figure, own, lines, titles):
    labels = [look.label for look in own.values()]
    band = len(own) <= GROUP
    size = (3.2, 2.2) if band else (4.8, 3.6)
    lines = lines if band else [*lines, "means alone, as the methods are many"]
    figure, many = panels.panels(len(titles), size=size, lines=lines, legend=labels)
    changes = plots.changes(dataset)
    for axes, (name, title) in zip(many, titles.items(), strict=True):
        plots.curves(axes, dataset, name, own, band=band)
        _along(axes, shown, changes)
        axes.set_title(title, fontsize=9)
    panels.legend_below(figure, many)
    return figure


def _comparison(dataset, shown: Figure, own, lines):
    coarse = statistics.coarse(dataset, shown.metric, shown.every)
    own = {
        arm: look._replace(label=panels.wrapped(look.label))
        for arm, look in own.items()
    }
    labels = [look.label for look in own.values()]
    row = 0.12 + 0.14 * max(label.count("\n") + 1 for label in labels)
    figure, (axes, beside) = panels.panels(
        2,
        size=(3.6, 0.3 + row * len(own)),
        margins=panels.Margins(left=0.2, right=0.4),
        names=panels.beside(labels) - 0.4,
        lines=lines,
    )
    order = comparisons.comparison(axes, coarse, shown.metric, own)
    axes.set_title(f"{shown.axis}: first (hollow), last", fontsize=9)
    better = {"higher_is_better": shown.higher_is_better}
    comparisons.against(beside, coarse, shown.metric, own, order, **better)
    first = next(iter(own.values())).label.replace("\n", " ")
    beside.set_title(f"minus {first}; %: seeds with which it is better", fontsize=9)
    return figure


def _sweep(dataset, shown: Figure, own, lines, columns):
    """A row for each swept number: the metric, and what else the table shows."""
    names = {shown.metric: f"{shown.axis}, last", **{name: name for name in columns}}
    dataset = dataset.assign(
        {name: each.expand_dims(bin=dataset["bin"]) for name, each in columns.items()}
    )
    swept = statistics.swept(dataset)
    labels = [look.label for look in own.values()]
    said = [*lines, words.of_sweep(dataset), *words.missing(dataset)]
    cells = [(number, name) for number in swept for name in names]
    figure, many = panels.panels(
        len(cells), columns=len(names) if columns else 3, lines=said, legend=labels
    )
    better = {"higher_is_better": shown.higher_is_better}
    for axes, (number, name) in zip(many, cells, strict=True):
        best = statistics.best(dataset, shown.metric, per=[number], **better).dataset
        comparisons.settings(axes, best, name, number, own)
        axes.set_ylabel(names[name], fontsize=8)
    panels.legend_below(figure, many)
    return figure


def _subsets(dataset, shown: Figure, own, lines):
    parted = [str(name) for name in dataset if "subset" in dataset[name].dims]
    names = [name for name in parted if not name.endswith(metrics.continual.AT_START)]
    labels = [words.subset(name) for name in dataset["subset"].values.tolist()]
    dataset = dataset.assign_coords(subset=labels)
    cells = [(name, arm) for name in names for arm in own]
    alike = {"sharey": len(names) == 1}
    figure, many = panels.panels(len(cells), lines=lines, legend=labels, **alike)
    changes = plots.changes(dataset)
    for axes, (name, arm) in zip(many, cells, strict=True):
        plots.subsets(axes, dataset.sel(arm=[arm]), name)
        _along(axes, shown, changes)
        axes.set_title(f"{own[arm].label}: {words.metric(name)}", fontsize=9)
    panels.legend_below(figure, many)
    return figure


def main(shown: Figure, usage: str) -> None:
    """The program of an experiment's ``plot.py``.

    Args:
      shown: what the main figure shows.
      usage: what to say if the arguments are not one directory.
    """
    if len(sys.argv) != 2:
        sys.exit(usage)
    with command_line.clear_errors():
        print(*save(draw(results.load(sys.argv[1]), shown), sys.argv[1]), sep="\n")
