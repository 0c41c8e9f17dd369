"""Draws what the latent weights of a finished study are, and what their signs cost.

python -m experiments.metaplasticity.run --workdir=WORKDIR --config.keep_states=True
python -m experiments.metaplasticity.latents WORKDIR

Writes into the directory of the study:

  latents.png    histograms of the latent weights of every layer, over all seeds;
  switching.png  increase of the loss on examples of the last task per switched sign,
                 against the size of the weights whose signs are switched.
"""

import argparse
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
import pandas
import xarray
from scipy import stats

from experiments.figures import figures, words
from experiments.launch import command_line, devices, kept
from experiments.studies import learning, sessions
from loplax import checks, metrics, supervised
from loplax.studies import panels, plots
from loplax.units import paths

BINS = 15  # sizes of weights
CENTRES = (np.arange(BINS) + 0.5) / BINS


class Options(NamedTuple):
    """How the cost of a switch is measured.

    Attributes:
      examples: of the last task, about so many, in whole batches; 0 for all.
      switched: how many signs are switched at once, in parts of a layer.
      runs: how often they are drawn.
      seed: with which they are drawn.
    """

    examples: int = 1000
    switched: float = 0.01
    runs: int = 20
    seed: int = 0


def weights(arm: kept.Kept) -> dict[str, np.ndarray]:
    """The weights of every layer of the runs of an arm, ``[runs, ...]`` by path."""
    leaves = paths.by_path(arm.state.params).leaves
    return {path: np.asarray(x) for path, x in leaves.items() if x.ndim > 2}


def costs(arm: kept.Kept, options: Options) -> dict[str, metrics.SwitchingCost]:
    """What switching signs costs in every layer, each ``[runs, bins]`` by path.

    Args:
      arm: the runs.
      options: how it is measured.

    Returns:
      The costs, see `loplax.metrics.switching_cost`.
    """
    build = learning.problem(arm.study, arm.config, arm.method)

    def many(data, states, keys, path, switched):
        def one(run):
            state, key = run
            problem = build(state.hparams, state.key_tx, data)
            return metrics.switching_cost(
                _loss(problem, state, options.examples),
                state.params,
                path,
                key,
                switched=switched,
                bins=BINS,
                runs=options.runs,
            )

        return jax.lax.map(one, (states, keys))

    many = jax.jit(many, static_argnames=("path", "switched"))
    key, found = jax.random.key(options.seed), {}
    for i, (path, layer) in enumerate(weights(arm).items()):
        keys = jax.random.split(jax.random.fold_in(key, i), arm.seeds.size)
        switched = max(1, round(options.switched * layer[0].size))
        found[path] = many(arm.study.data, arm.state, keys, path, switched)
    return found


def _loss(problem: supervised.Problem, state, examples: int):
    """``params -> loss`` on the first examples of the present task."""
    held_out = problem.stream.session
    batch = jax.eval_shape(held_out.batch, state.stream, 0)[2].size
    batches = min(-(-examples // batch) or held_out.batches, held_out.batches)
    some = held_out._replace(batches=batches)

    def loss(params):
        now = state._replace(params=params)
        return supervised.evaluate(problem, now, some)["loss"]

    return loss


def histograms(latents: Mapping[str, Mapping[str, np.ndarray]], own, lines):
    """Draws the distribution of the latent weights of every layer.

    Args:
      latents: for the name of every arm what `weights` gives.
      own: how the arms look.
      lines: what the figure says first.

    Returns:
      The figure.
    """
    layers = list(next(iter(latents.values())))
    labels = [look.label for look in own.values()]
    said = [*lines, "density of the latent weights, of all seeds together"]
    figure, many = panels.panels(len(layers), lines=said, legend=labels)
    for axes, path in zip(many, layers, strict=True):
        ends = [np.percentile(np.abs(each[path]), 99.9) for each in latents.values()]
        means, drawn = [], []
        for arm, (label, colour, style) in own.items():
            values = latents[arm][path].ravel()
            number = int(np.clip(np.sqrt(values.size), 12, 100))
            edges = np.linspace(-max(ends), max(ends), number + 1)
            density, _ = np.histogram(values, edges, density=True)
            look = {"color": colour, "ls": style, "lw": 1.2, "label": label}
            drawn.append(axes.stairs(density, edges, baseline=None, **look))
            means.append(f"{np.abs(values).mean():.3g}")
        axes.set_yscale("log")
        small = {"fontsize": 7, "title_fontsize": 7, "frameon": False}
        axes.legend(drawn, means, title="mean |w|", **small)
        axes.set_title(path, fontsize=9)
        axes.tick_params(labelsize=8)
    panels.legend_below(figure, many)
    return figure


def switching(found: Mapping[str, Mapping[str, metrics.SwitchingCost]], own, lines):
    """Draws what switching the signs of weights of some size costs.

    Args:
      found: for the name of every arm what `costs` gives.
      own: how the arms look.
      lines: what the figure says first.

    Returns:
      The figure.
    """
    layers = list(next(iter(found.values())))
    labels = [look.label for look in own.values()]
    said = [*lines, "increase of the loss per switched sign, on examples learned from"]
    figure, many = panels.panels(len(layers), lines=said, legend=labels)
    for axes, path in zip(many, layers, strict=True):
        values = np.stack([found[arm][path].mean for arm in own])
        coords = {"arm": list(own), "size": CENTRES}
        each = xarray.DataArray(values, coords, ("arm", "seed", "size"))
        each = each.where(each.notnull().all("seed"))  # a mean is of all seeds
        plots.over(axes, each, "size", own, every=1)
        axes.axhline(0, color="#444444", lw=0.8, zorder=0)
        axes.set_xlim(0, 1)
        axes.set_xlabel("|w| / largest", fontsize=8)
        axes.set_title(path, fontsize=9)
    panels.legend_below(figure, many)
    return figure


def table(
    latents: Mapping[str, Mapping[str, np.ndarray]],
    found: Mapping[str, Mapping[str, metrics.SwitchingCost]],
) -> pandas.DataFrame:
    """A row for every arm and layer, of means over the seeds.

    Args:
      latents: for the name of every arm what `weights` gives.
      found: for the name of every arm what `costs` gives.

    Returns:
      Mean and largest size of the weights; the cost of a switch among the smallest and
      among the largest of which all seeds have enough; and the rank correlation of
      cost and size over the bins.
    """
    names = ["arm", "weights", "mean |w|", "largest"]
    names += ["cost, smallest", "cost, largest", "rank correlation"]
    rows = []
    for arm, layers in latents.items():
        for path, values in layers.items():
            size, cost = np.abs(values), np.asarray(found[arm][path].mean)
            there = np.isfinite(cost).all(0)
            means = cost.mean(0)[there]
            ends = means[[0, -1]] if means.size else (np.nan, np.nan)
            alike = [_rank_correlation(each) for each in cost]
            rows.append(
                (words.arm(arm), path, size.mean(), size.max(), *ends, np.mean(alike)),
            )
    return pandas.DataFrame(rows, columns=names)


def _rank_correlation(cost: np.ndarray) -> float:
    """Of the costs of a run and their order by size; NaN with fewer than three."""
    there = cost[np.isfinite(cost)]
    if there.size < 3:
        return np.nan
    return float(stats.spearmanr(there, np.arange(there.size)).statistic)


def main(argv: list[str] | None = None) -> None:
    """The program.

    Args:
      argv: the arguments; those of the command line by default.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.metaplasticity.latents",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdir", help="directory of the study")
    parser.add_argument("--data_dir", help="folder of image data")
    parser.add_argument("--platform", default="auto", choices=devices.PLATFORMS)
    texts = {
        "examples": "examples of the last task, 0 for all",
        "switched": "signs switched at once, in parts of a layer",
        "runs": "how often they are drawn",
        "seed": "with which they are drawn",
    }
    for name, value in Options()._asdict().items():
        said = f"{texts[name]} (default: {value})"
        parser.add_argument(f"--{name}", type=type(value), default=value, help=said)
    given = vars(parser.parse_args(argv))
    with command_line.clear_errors():
        options = Options(*(given[name] for name in Options._fields))
        checks.whole("examples", options.examples, 0)
        checks.in_range("switched", options.switched, 0, 1)
        checks.whole("runs", options.runs, 1)
        devices.devices(given["platform"])
        arms = kept.load("metaplasticity", given["workdir"], given["data_dir"])
        latents = {each.arm: weights(each) for each in arms}
        found = {each.arm: costs(each, options) for each in arms}
        own = figures.appearance({each.arm: each.variant for each in arms})
        lines = [f"Metaplasticity: {sessions.about(arms[0].config)}"]
        seeds = words.of_seeds(arms[0].seeds.size)
        drawn = {
            "latents": histograms(latents, own, lines),
            "switching": switching(found, own, [*lines, seeds]),
        }
        print(table(latents, found).to_string(index=False, float_format="%.4g"))
        print("figures:", *figures.save(drawn, given["workdir"]))


if __name__ == "__main__":
    main()
