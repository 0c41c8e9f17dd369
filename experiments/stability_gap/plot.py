"""Draws the figures of a study of the stability gap.

python -m experiments.stability_gap.plot WORKDIR
"""

import json

import numpy as np
import xarray
from matplotlib import ticker

from experiments.figures import figures
from experiments.studies import sessions
from loplax import metrics
from loplax.studies import comparisons, continual, panels, plots, results, views

SUBSETS = {
    "first": "the first session",
    "old": "all earlier sessions",
    "new": "the present session",
    "all": "all so far",
}
OBSERVED = {"dead": "dead units", "effective_rank": "effective rank"}
MANY = 10  # sessions, from which on there is something to be seen over them
CLOSE = 100  # updates after a switch that are shown larger
GAPS = {
    "old": "stability gap",
    "new": "plasticity gap",
    "all": "knowledge gap",
}


def _updates(dataset: xarray.Dataset) -> xarray.Dataset:
    """The results with updates as steps."""
    batch = json.loads(dataset.attrs["config"])["batch"]
    return dataset.assign_coords(step=dataset["step"] / batch)


def _report(dataset: xarray.Dataset) -> tuple[xarray.Dataset, str | None]:
    """The report of a study, times in updates, and the joint arm, if there is one."""
    names = map(str, dataset["arm"].values)
    is_joint = lambda name: "joint" in name.partition(" ")[0].split("+")
    joint = next(filter(is_joint, names), None)
    return continual.report(_updates(dataset), joint=joint), joint


def _curves(dataset: xarray.Dataset, own, lines):
    """Accuracy of each kind of subset update by update, and close to the switches."""
    found = views.named(_updates(dataset))
    changes = plots.changes(found)
    kinds = [name for name in SUBSETS if name in found]
    switches = dict.fromkeys([*changes[:1], *changes[-1:]])
    labels = [look.label for look in own.values()]
    if len(own) > figures.GROUP:
        lines = [*lines, "means alone, as the methods are many"]
    figure, many = panels.panels(
        len(kinds) + len(switches),
        columns=2,
        size=(4.8, 2.6),
        lines=[
            *lines,
            "accuracy on test examples; ticks above the axis: a new session",
        ],
        legend=labels,
    )
    band = len(own) <= figures.GROUP
    for axes, name in zip(many, kinds, strict=False):
        plots.curves(axes, found, name, own, band=band)
        axes.set_title(f"of {SUBSETS[name]}", fontsize=9)
        _over_updates(axes, changes)
    for axes, switch in zip(many[len(kinds) :], switches, strict=True):
        close = (found["step"] > switch - CLOSE / 5) & (found["step"] <= switch + CLOSE)
        part = found.isel(bin=close.values)
        plots.curves(axes, part, kinds[0], own, band=band)
        axes.set_title(
            f"of {SUBSETS[kinds[0]]}, {CLOSE} updates after {switch:.0f}", fontsize=9
        )
        _over_updates(axes, changes)
        axes.set_xlim(switch - CLOSE / 5, switch + CLOSE)
    panels.legend_below(figure, many)
    return figure


def _over_updates(axes, changes) -> None:
    axes.set_xlabel("updates", fontsize=8)
    plots.tick(axes, changes)


def _gaps(dataset: xarray.Dataset, own, lines):
    """What a switch costs: the three gaps, how deep, how long."""
    report, joint = _report(dataset)
    shown = _measures(report, joint)
    reference = "joint training" if joint else "the value before the session"
    lines = [*lines, f"gaps to {reference}, lower is better; intervals over the seeds"]
    own = {
        arm: look._replace(label=panels.wrapped(look.label))
        for arm, look in own.items()
    }
    height = max(look.label.count("\n") + 1 for look in own.values())
    figure, many = panels.panels(
        len(shown) + 1,
        columns=3,
        size=(2.6, 0.5 + (0.1 + 0.14 * height) * len(own)),
        margins=panels.Margins(left=0.3),
        names=panels.beside([look.label for look in own.values()]) - 0.3,
        lines=lines,
    )
    for i, (axes, (name, values)) in enumerate(zip(many, shown.items(), strict=False)):
        comparisons.bars(axes, values, own, names=i % 3 == 0)
        axes.set_title(name, fontsize=9)
    _recovered(many[-1], report, own)
    return figure


def _recovered(axes, report: xarray.Dataset, own) -> None:
    """The share of switches after which old accuracy is back by so many updates."""
    times = report["recovery_time_before"].sel(subset="old")
    for arm, look in own.items():
        values = times.sel(arm=arm).values
        values = np.sort(values[~np.isnan(values)])
        share = np.arange(1, values.size + 1) / max(values.size, 1)
        there = np.isfinite(values)
        x = np.concatenate([[0], values[there]])
        y = np.concatenate([[0], share[there]])
        axes.step(x, y, where="post", color=look.colour, ls=look.style, lw=1.4)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1))
    axes.set_title("switches recovered, by updates", fontsize=9)
    axes.grid(alpha=0.25, lw=0.5)
    axes.tick_params(labelsize=8)


def _switches(dataset: xarray.Dataset, own, lines):
    """How the drop at a switch, and what the network can, change over many switches."""
    report, _ = _report(dataset)
    if report.sizes["session"] < MANY:
        return None
    task = results.counting(dataset, "task").transpose("arm", "seed", "bin").values

    def at_ends(name) -> xarray.DataArray:
        values = results.counting(dataset, name).transpose("arm", "seed", "bin").values
        ends = metrics.accuracy_matrix(values[..., None], task, report.sizes["session"])
        return report["average_accuracy"].copy(data=ends[..., 0])

    shown = {
        "drop on old": report["drop_depth"].sel(subset="old"),
        "accuracy on new at the end": report["accuracy"].sel(subset="new"),
        **{title: at_ends(name) for name, title in OBSERVED.items() if name in dataset},
    }
    labels = [look.label for look in own.values()]
    figure, many = panels.panels(len(shown), columns=2, lines=lines, legend=labels)
    for axes, (title, values) in zip(many, shown.items(), strict=True):
        plots.over(axes, values, "session", own, every=MANY // 2)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("session", fontsize=8)
    panels.legend_below(figure, many)
    return figure


def measures(dataset: xarray.Dataset) -> dict[str, xarray.DataArray]:
    """What a switch costs each run, ``[arm, seed]``, by name."""
    return _measures(*_report(dataset))


def _measures(report: xarray.Dataset, joint: str | None) -> dict:
    gaps = report["gap_joint" if joint else "gap_before"]
    kinds = GAPS if joint else ("old",)  # what is new was not known before
    found = {GAPS[name]: gaps.sel(subset=name) for name in kinds}
    drops = report["drop_depth"].sel(subset="old")
    found["drop on old"] = drops.mean("session")
    found["accuracy at the end"] = report["average_accuracy"].isel(session=-1)
    return {
        name: values.drop_vars("subset", errors="ignore")
        for name, values in found.items()
    }


def _about(config: dict) -> str:
    scaled = "; SGM's protocol, scaled" if config["pretrain"]["steps"] else ""
    return sessions.about(config) + scaled


FIGURE = figures.Figure(
    "test_accuracy",
    "accuracy on all seen sessions",
    "Stability gap",
    higher_is_better=True,
    about=_about,
    arms=views.evaluated,
    columns=measures,
    more={"gap": _curves, "cost": _gaps, "switches": _switches},
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
