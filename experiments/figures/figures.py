"""The figures of a study, from its results: curves, diagnostics, comparison, sweep."""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import xarray

from experiments.launch import command_line
from experiments.methods import specs
from loplax.studies import plots, results

DIAGNOSTICS = {
    "relative": "accuracy minus that of a retrained network",
    "dead": "dead units (fraction)",
    "dormant": "dormant units (fraction)",
    "rarely_active": "units active on < 1% of examples",
    "saturated": "saturated activations, |h| > 0.9",
    "effective_rank": "effective rank, last hidden layer",
    "approximate_rank": "approximate rank, last hidden layer",
    "absolute_approximate_rank": "absolute approximate rank",
    "stable_rank": r"$\|F\|_F^2 / \sigma_1^2$, last hidden layer",
    "weight_magnitude": "mean |weight|",
    "distance_from_init": "distance from initialisation",
    "weight_change": "sum of |weight change|",
    "gradient_norm": "gradient norm",
    "gradient_sparsity": "gradient sparsity (fraction of 0)",
    "plasticity": "plasticity on the same example",
    "churn": "churn of one step",
    "hessian_rank": "Hessian rank (estimate)",
    "ntk_rank": "empirical NTK rank",
    "gap": "gap to a fresh network",
    "length": "episode length",
    "entropy": "entropy of the policy (nats)",
    "kl": "KL of an update (nats)",
    "clip_fraction": "clipped probability ratios (fraction)",
    "explained_variance": "variance explained by the value",
    "replacements": "units replaced per update",
}
MANY = 8  # methods, above which curves are told apart by colour no more


class Figure(NamedTuple):
    """What the main figure shows.

    Attributes:
      metric: name of the metric.
      axis: its name in the figure.
      title: name of the problem.
      higher_is_better: whether it measures success, not error.
      every: bins averaged into a point of the curves.
      view: ``(dataset, configuration) -> dataset``, what to show of the results.
      along: what the step of that dataset counts, if not ``steps``.
      steps: what the results' steps are.
    """

    metric: str
    axis: str
    title: str
    higher_is_better: bool = False
    every: int = 1
    view: Callable[[xarray.Dataset, dict], xarray.Dataset] | None = None
    along: str = ""
    steps: str = "examples"


def draw(workdir: str, shown: Figure) -> list[str]:
    """Draws the metric and the diagnostics over time, and the sweep if there is one.

    Args:
      workdir: directory of the study, finished or running.
      shown: what the main figure shows.

    Returns:
      The files written.

    Raises:
      FileNotFoundError: if there are no results.
      OSError: if a figure cannot be written.
    """
    dataset = results.load(workdir)
    if shown.view:
        dataset = shown.view(dataset, json.loads(dataset.attrs["config"]))
    kind = shown.metric.removeprefix("test_")
    if f"{kind}_fresh" in dataset:
        gap = dataset[f"{kind}_first"] - dataset[f"{kind}_fresh"]
        dataset["gap"] = -gap if shown.higher_is_better else gap
    written = {
        "figure.png": _main(dataset, shown),
        "diagnostics.png": _many(dataset, shown),
    }
    if len(set(dataset["method"].values)) > 1:
        written["comparison.png"] = _comparison(dataset, shown)
    if plots.swept(dataset):
        written["sweep.png"] = _sweep(dataset, shown)
    paths = [pathlib.Path(workdir) / name for name in written]
    for path, figure in zip(paths, written.values(), strict=True):
        figure.savefig(path, dpi=150)
    return [str(path) for path in paths]


def _main(dataset: xarray.Dataset, shown: Figure):
    figure, (axes,) = plots.panels(1)
    many = len(set(dataset["method"].values)) > MANY
    figure.set_size_inches(9.6 if many else 6.4, 4.8 if many else 4.2)
    plots.curves(axes, dataset, shown.metric, labels=specs.LABELS, every=shown.every)
    axes.set_xlabel(shown.along or shown.steps)
    axes.set_ylabel(shown.axis)
    if not shown.higher_is_better:
        axes.set_ylim(bottom=0)
    swept = "".join(f", {n} {float(dataset[n][0]):g}" for n in plots.swept(dataset))
    axes.set_title(
        f"{shown.title}{swept}\nmean of {dataset.sizes['seed']} seeds, 95% interval",
        fontsize=10,
    )
    place = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if many else {}
    if axes.lines:
        axes.legend(frameon=False, fontsize=8, **place)
    return figure


def _many(dataset: xarray.Dataset, shown: Figure):
    layers = {
        name: f"dead units, layer {name[5:]} (fraction)"
        for name in dataset
        if name.startswith("dead_")
    }
    titles = {n: title for n, title in (DIAGNOSTICS | layers).items() if n in dataset}
    figure, many = plots.panels(len(titles))
    for axes, (name, title) in zip(many, titles.items(), strict=True):
        plots.curves(axes, dataset, name, labels=specs.LABELS)
        axes.set_xlabel(shown.along or shown.steps)
        axes.set_title(title, fontsize=10)
    plots.legend(figure, many)
    return figure


def _comparison(dataset: xarray.Dataset, shown: Figure):
    figure, (axes,) = plots.panels(1)
    figure.set_size_inches(6.4, 1.2 + 0.26 * len(set(dataset["method"].values)))
    coarse = plots.coarse(dataset, shown.metric, shown.every)
    plots.comparison(axes, coarse, shown.metric, labels=specs.LABELS)
    axes.set_xlabel(f"{shown.axis}: at first (hollow) and at last")
    axes.set_title(shown.title, fontsize=10)
    return figure


def _sweep(dataset: xarray.Dataset, shown: Figure):
    swept = plots.swept(dataset)
    figure, many = plots.panels(len(swept))
    for axes, name in zip(many, swept, strict=True):
        plots.settings(
            axes,
            dataset,
            shown.metric,
            name,
            labels=specs.LABELS,
            higher_is_better=shown.higher_is_better,
        )
        axes.set_ylabel(f"{shown.axis}, last bin")
    if many[0].containers:
        many[0].legend(frameon=False, fontsize=8)
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
        print(*draw(sys.argv[1], shown), sep="\n")
