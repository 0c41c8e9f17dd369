"""Draws the figures of a study of metaplasticity.

python -m experiments.metaplasticity.plot WORKDIR
"""

import json

import numpy as np
import xarray

from experiments.figures import figures
from experiments.studies import sessions
from loplax.studies import continual, panels, plots

MANY = 12  # tasks, from which on they are not shown one by one
EVERY = 5  # tasks averaged into a point, of many
LATE = 10  # of many tasks, the last so many count
# What is shown of many tasks, by what is tested apart.
KINDS = {
    "recent": {"new": "new task", "old": "task before"},
    "last_five": {"new": "new task", "before": "task before", "all": "last five tasks"},
}
EARLIER = {"new": "new task", "old": "earlier tasks"}


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


def _over_tasks(dataset: xarray.Dataset, own, lines):
    """How well each of many tasks was learned, and what was left of those before."""
    shown = _kinds(dataset)
    report = continual.report(dataset)
    if report.sizes["session"] <= MANY:
        return None
    labels = [look.label for look in own.values()]
    lines = [
        *lines,
        f"accuracy after each task, means of {EVERY}; intervals over the seeds",
    ]
    figure, many = panels.panels(len(shown), lines=lines, legend=labels)
    for axes, (name, title) in zip(many, shown.items(), strict=True):
        values = report["accuracy"].sel(subset=name)
        values = values.assign_coords(session=report["session"] + 1)
        plots.over(axes, values, "session", own, every=EVERY)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("task", fontsize=8)
    panels.legend_below(figure, many)
    return figure


def _kinds(dataset: xarray.Dataset) -> dict[str, str]:
    """The subsets of many tasks that are shown, with their titles."""
    return KINDS.get(json.loads(dataset.attrs["config"])["subsets"], EARLIER)


def columns(dataset: xarray.Dataset) -> dict[str, xarray.DataArray]:
    """How well each run learned, and how much of it is left, ``[arm, seed]``."""
    ends, report = _ends(dataset)
    late = report["accuracy"].isel(session=slice(-LATE, None)).mean("session")
    found = {title: late.sel(subset=name) for name, title in _kinds(dataset).items()}
    if ends.sizes["subset"] > 1:
        found = {
            "when learned": report["learning_accuracy"],
            "oldest task": ends.isel(session=-1, subset=0),
        }
    return {name: each.reset_coords(drop=True) for name, each in found.items()}


FIGURE = figures.Figure(
    "test_accuracy",
    "accuracy on tested tasks",
    "Metaplasticity",
    higher_is_better=True,
    about=sessions.about,
    columns=columns,
    more={"tasks": _tasks, "over_tasks": _over_tasks},
)

if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
