"""Draws the figures of a study of metaplasticity.

python -m experiments.metaplasticity.plot WORKDIR
"""

import numpy as np
import xarray

from experiments.figures import figures
from experiments.studies import sessions
from loplax.studies import continual, panels, plots

MANY = 12  # tasks, from which on they are not shown one by one


def _ends(dataset: xarray.Dataset):
    """Accuracy on every task after every task, and the report of a study."""
    report = continual.report(dataset)
    numbered = [name for name in map(str, report["subset"].values) if name.isdigit()]
    return report["accuracy"].sel(subset=numbered), report


def _tasks(dataset: xarray.Dataset, own, lines):
    """Accuracy on each task when it was learned, and after the last one."""
    ends, _ = _ends(dataset)
    number = ends.sizes["subset"]
    if not 1 < number <= MANY:
        return None
    when = ends.transpose("arm", "seed", "session", "subset").values
    place = np.arange(number)
    shown = {
        "when it was learned": when[..., place, place],
        "after the last task": when[..., -1, :],
    }
    coords = {"arm": ends["arm"], "seed": ends["seed"], "task": place + 1}
    labels = [look.label for look in own.values()]
    lines = [*lines, "accuracy on each task; intervals over the seeds"]
    figure, many = panels.panels(len(shown), columns=2, lines=lines, legend=labels)
    for axes, (title, values) in zip(many, shown.items(), strict=True):
        each = xarray.DataArray(values, coords, ("arm", "seed", "task"))
        plots.over(axes, each, "task", own, every=1)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("task, the oldest first", fontsize=8)
    panels.legend_below(figure, many)
    return figure


def columns(dataset: xarray.Dataset) -> dict[str, xarray.DataArray]:
    """How well each run learned, and how much of it is left, ``[arm, seed]``."""
    ends, report = _ends(dataset)
    found = {"accuracy at the end": report["average_accuracy"].isel(session=-1)}
    if ends.sizes["subset"] > 1:
        found["when learned"] = report["learning_accuracy"]
        found["oldest task"] = ends.isel(session=-1, subset=0, drop=True)
    return {name: each.reset_coords(drop=True) for name, each in found.items()}


FIGURE = figures.Figure(
    "test_accuracy",
    "accuracy on all tasks so far",
    "Metaplasticity",
    higher_is_better=True,
    about=sessions.about,
    columns=columns,
    more={"tasks": _tasks},
)

if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
