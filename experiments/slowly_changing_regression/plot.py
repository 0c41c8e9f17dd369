"""Draws the figures of a study of slowly-changing regression.

python -m experiments.slowly_changing_regression.plot WORKDIR
"""

import pathlib
import sys

from experiments import command_line
from loplax import plots, results

LABELS = {
    "bp": "backprop",
    "cbp": "continual backprop",
    "linear": "linear model",
    "l2": "L2",
    "shrink_and_perturb": "shrink and perturb",
    "l2_init": "L2 init",
    "redo": "ReDo",
}
DIAGNOSTICS = {
    "dead": "dead units (fraction)",
    "dormant": "dormant units (fraction)",
    "weight_magnitude": "mean |weight|",
    "effective_rank": "effective rank, hidden layer",
    "stable_rank": r"$\|F\|_F^2 / \sigma_1^2$, hidden layer",
    "gap": "squared error minus a fresh network's",
}


def draw(workdir: str) -> list[str]:
    """Draws error and diagnostics over time, and the sweep if there is one.

    Args:
      workdir: directory of the study, finished or running.

    Returns:
      The files written.

    Raises:
      FileNotFoundError: if there are no results.
      OSError: if a figure cannot be written.
    """
    dataset = results.load(workdir)
    dataset["gap"] = dataset["loss_last"] - dataset["loss_fresh"]
    folder, written = pathlib.Path(workdir), []
    swept = plots.swept(dataset)

    figure, (axes,) = plots.panels(1)
    figure.set_size_inches(6.4, 4.2)
    plots.curves(axes, dataset, "loss", labels=LABELS)
    axes.set_ylabel("squared error, online")
    axes.set_ylim(bottom=0)
    seeds = dataset.sizes["seed"]
    shown = "".join(f", {name} {float(dataset[name][0]):g}" for name in swept)
    axes.set_title(
        f"Slowly-changing regression{shown}\nmean of {seeds} seeds, 95% interval",
        fontsize=10,
    )
    axes.legend(frameon=False)
    written.append(folder / "figure.png")
    figure.savefig(written[-1], dpi=160)

    present = {name: title for name, title in DIAGNOSTICS.items() if name in dataset}
    figure, many = plots.panels(len(present))
    for axes, (name, title) in zip(many, present.items(), strict=True):
        plots.curves(axes, dataset, name, labels=LABELS)
        axes.set_title(title, fontsize=10)
    plots.legend(figure, many)
    written.append(folder / "diagnostics.png")
    figure.savefig(written[-1], dpi=130)

    if swept:
        figure, many = plots.panels(len(swept))
        for axes, name in zip(many, swept, strict=True):
            plots.settings(axes, dataset, "loss", name, labels=LABELS)
            axes.set_ylabel("squared error, last bin")
        many[0].legend(frameon=False, fontsize=8)
        written.append(folder / "sweep.png")
        figure.savefig(written[-1], dpi=130)
    return [str(path) for path in written]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with command_line.clear_errors():
        print(*draw(sys.argv[1]), sep="\n")
