"""What figures and tables say: names of the metrics, and what a study is."""

import json
from collections.abc import Callable

import numpy as np
import xarray

from loplax.studies import intervals, statistics

DIAGNOSTICS = {
    "test_loss": "held-out loss",
    "test_accuracy": "held-out accuracy",
    "ema_loss": "held-out loss of the mean of weights",
    "ema_accuracy": "held-out accuracy of the mean of weights",
    "relative": "accuracy minus that of a retrained network",
    "dead": "dead units (fraction)",
    "dormant": "dormant units (fraction)",
    "rarely_active": "units active on < 1% of examples",
    "saturated": "saturated activations, |h| > 0.9",
    "effective_rank": "effective rank, last hidden layer",
    "approximate_rank": "approximate rank, last hidden layer",
    "absolute_approximate_rank": "absolute approximate rank",
    "stable_rank": "stable rank, last hidden layer",
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


def metric(name: str) -> str:
    """What figures call a metric."""
    if name.startswith("dead_"):
        return f"dead units, layer {name[5:]} (fraction)"
    return DIAGNOSTICS.get(name, name)


def arm(name: str) -> str:
    """What tables and legends call an arm: ``redo redo.period=3`` is ``redo period=3``.

    A method that is one plugin does not repeat its name in its own addresses; all
    others stay whole, as do those of a method of several plugins.
    """
    method = name.partition(" ")[0]
    return name.replace(f" {method}.", " ")


def subset(name: str) -> str:
    """What figures call a part of the tests: tasks are numbered from 1."""
    return f"task {int(name) + 1}" if name.isdigit() else name


def diagnostics(dataset: xarray.Dataset, main: str) -> dict[str, str]:
    """The metrics to draw beside the main one, and what to call them.

    Args:
      dataset: the results.
      main: the main metric.

    Returns:
      For the name of each its title. A metric without any value is left out, and so
      is the only layer, which has the values of all layers.
    """
    layers = sorted(
        (str(name) for name in dataset if name.startswith("dead_")),
        key=lambda name: (len(name), name),  # layer 2 comes before layer 10
    )
    if len(layers) == 1 and "dead" in dataset:
        layers = []
    names = [n for n in (*DIAGNOSTICS, *layers) if n in dataset and n != main]
    return {name: metric(name) for name in names if dataset[name].notnull().any()}


def head(
    dataset: xarray.Dataset,
    best: statistics.Best,
    title: str,
    about: Callable[[dict], str] | None,
) -> list[str]:
    """What a study is, and what is shown of it: the lines above a figure.

    Args:
      dataset: the results.
      best: the arms that are shown.
      title: name of the problem.
      about: ``configuration -> text``: the data or environment, and what changes.

    Returns:
      The lines: problem, data, what changes, preset; seeds and intervals; the
      selection, and what is missing, if that is so.
    """
    if about and "config" in dataset.attrs:
        title += f": {about(json.loads(dataset.attrs['config']))}"
    preset = dataset.attrs.get("preset")
    title += f" (preset {preset})" if preset else ""
    seeds = best.dataset.sizes["seed"]
    lines = [title, of_seeds(seeds)]
    if best.chosen > 1:
        where = (
            "the same seeds: the best of them looks better than it is"
            if best.shared
            else f"{dataset.sizes['seed'] - seeds} other seeds"
        )
        lines.append(f"each method in the best of its settings, chosen on {where}")
    return [*lines, *missing(dataset)]


def of_environment(config: dict) -> str:
    """The environment of a configuration, and what changes in it."""
    name, change = config["environment"], config["change"]
    if change == "none":
        return f"{name}, unchanging"
    return f"{name}, a new {change} every {config['period']:,} steps"


def of_seeds(number: int) -> str:
    """How many seeds there are, and what is shown of them."""
    if number == 1:
        return "1 seed"
    if number < intervals.LEAST:
        return f"mean of {number} seeds, too few for an interval; points: single seeds"
    if number < intervals.POINTS:
        interval = "95% interval (it may leave the axes)"
        return f"mean of {number} seeds, {interval}; points: single seeds"
    return f"mean of {number} seeds, 95% interval"


def of_sweep(dataset: xarray.Dataset) -> str:
    """What a panel over one swept number shows of the others."""
    seeds = dataset.sizes["seed"]
    several = max(np.unique(dataset["method"], return_counts=True)[1])
    if len(statistics.swept(dataset)) == 1 or several == 1:
        return f"{of_seeds(seeds)}; dashed: a method that does not use it"
    split = seeds >= statistics.LEAST_TO_SPLIT
    half = f"{-(-seeds // 2)} of {seeds} seeds and shown on the others"
    where = half if split else "the seeds that are shown"
    return f"the best of the other settings, chosen on {where}"


def done(dataset: xarray.Dataset) -> float:
    """The share of the bins that were asked for that is there."""
    asked = dataset["bins_asked"]
    there = np.minimum(dataset["bins_done"], asked)
    return float(there.sum() / asked.sum()) if asked.any() else 1.0


def missing(dataset: xarray.Dataset) -> list[str]:
    """That a study is unfinished, or runs of it diverged, if that is so."""
    share = done(dataset)
    lost, runs = int(dataset["diverged"].sum()), dataset["diverged"].size
    lines = (
        [f"unfinished: {np.floor(100 * share):.0f}% of the bins are there"]
        if share < 1
        else []
    )
    if lost:
        lines.append(f"{lost} of {runs} runs diverged, and count until then")
    return lines
