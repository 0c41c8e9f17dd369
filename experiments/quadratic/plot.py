"""Draws the figures of a study of the quadratic binary task.

python -m experiments.quadratic.plot WORKDIR
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from matplotlib import patches

from experiments.figures import figures
from experiments.quadratic import study
from experiments.quadratic.task import Task, loss
from loplax.studies import looks, panels, plots

GROUPS = 15  # of latent weights of about one size
# Two weights, as in figure 5a of Laborieux et al. 2021.
PLANE = Task(
    np.array([[2.4047, 0.2158], [0.2158, 0.7733]], np.float32),
    np.array([1.5, 0.5], np.float32),
)
PLANE_START, PLANE_RATE, PLANE_STEPS = (0.01, 0.02), 0.35, 500


def apart(dataset: xarray.Dataset) -> xarray.Dataset:
    """Every reach of the optima as a method of its own, since none is the best.

    Args:
      dataset: the results.

    Returns:
      The same, and what there is of each weight along ``weight``.
    """
    dataset = dataset.rename(subset="weight")
    if "reach" not in dataset.coords:
        return dataset
    methods, names = [], []
    arms = (dataset[name].values for name in ("arm", "method", "reach"))
    for arm, method, reach in zip(*arms, strict=True):
        methods.append(f"{method} reach={reach:g}")
        names.append(methods[-1] + arm.removeprefix(method).replace(f" {reach=:g}", ""))
    coords = {"arm": ("arm", names), "method": ("arm", methods)}
    return dataset.drop_vars("reach").assign_coords(coords)


def columns(dataset: xarray.Dataset) -> dict[str, xarray.DataArray]:
    """What a run says of the theory, ``[arm, seed]``.

    Args:
      dataset: the results as `apart` gives them.

    Returns:
      The rank correlation; the share of the weights whose signs never switched; the
      mean size of these at the end over that in the middle of the run, and the same of
      the greatest of all weights; and the share whose switch would lower the loss.
    """
    size, half = np.abs(dataset["latent"]), dataset.sizes["bin"] // 2 - 1
    sure, increase = never(dataset), dataset["increase"].isel(bin=-1)
    share = lambda those: those.where(increase.notnull()).mean("weight")
    growth = lambda size: size.isel(bin=-1) / size.isel(bin=half)
    found = {
        "rank correlation": dataset["rank_correlation"].isel(bin=-1),
        "never switched": share(sure),
        "their growth": growth(size.where(sure).mean("weight")),
        "greatest growth": growth(size.max("weight")),
        "better switched": share(increase < 0),
    }
    return {name: each.reset_coords(drop=True) for name, each in found.items()}


def never(dataset: xarray.Dataset) -> xarray.DataArray:
    """Whether the sign of a weight never switched, ``[arm, seed, weight]``."""
    return dataset["switches"].sum("bin") == 0


def _importance(dataset: xarray.Dataset, own, lines):
    """What switching the sign of a weight costs, against the weight's size."""
    size, increase = (
        dataset[name].isel(bin=-1).transpose("arm", "seed", "weight").values
        for name in ("latent", "increase")
    )
    size = np.abs(size) / np.abs(size).max(-1, keepdims=True)
    group = np.minimum((size * GROUPS).astype(int), GROUPS - 1)
    inside = [group == i for i in range(GROUPS)]
    with np.errstate(invalid="ignore"):  # of a group without weights
        means = [(increase * each).sum(-1) / each.sum(-1) for each in inside]
    centres = (np.arange(GROUPS) + 0.5) / GROUPS
    coords = {"arm": dataset["arm"], "seed": dataset["seed"], "size": centres}
    values = xarray.DataArray(np.stack(means, -1), coords, ("arm", "seed", "size"))
    labels = [look.label for look in own.values()]
    lines = [*lines, f"increase of the loss by switching one sign: {GROUPS} sizes"]
    figure, (axes,) = panels.panels(1, size=(4.8, 3), lines=lines, legend=labels)
    plots.over(axes, values, "size", own, every=1)
    axes.axhline(0, color="#444444", lw=0.8, zorder=0)
    axes.set_xlim(0, 1)
    axes.set_xlabel("|latent weight| / largest", fontsize=8)
    axes.set_ylabel("increase of the loss", fontsize=9)
    panels.legend_below(figure, [axes])
    return figure


def plane() -> np.ndarray:
    """The path of two latent weights, ``[1 + updates, 2]``."""
    tx = optax.sgd(PLANE_RATE)
    params = {"latent": jnp.array(PLANE_START)[:, None]}
    state = study.State(PLANE, params, tx.init(params), {}, jax.random.key(0))

    def step(state, _):
        after = study.update(tx, state)
        return after, after.params["latent"][:, 0]

    _, path = jax.lax.scan(step, state, None, length=PLANE_STEPS)
    return np.concatenate([[PLANE_START], path])


def _plane(dataset: xarray.Dataset, own, lines):
    """Two latent weights: one runs away, the other goes on to switch its sign."""
    del dataset, own
    path = plane()
    signs = np.sign(path)
    said = [
        f"{lines[0].partition(':')[0]}: two weights, {PLANE_STEPS} updates",
        "the box holds all means of signs; the cross is the mean over the run",
    ]
    figure, (left, right) = panels.panels(2, size=(4.2, 3), lines=said)
    x, y = np.meshgrid(np.linspace(-1.6, 3.4, 120), np.linspace(-1.6, 2, 120))
    grid = np.stack([x.ravel(), y.ravel()], -1)
    losses = jax.vmap(loss, (None, 0))(PLANE, grid).reshape(x.shape)
    left.contour(x, y, np.sqrt(losses), 14, cmap="viridis", linewidths=0.7)
    left.add_patch(patches.Rectangle((-1, -1), 2, 2, fill=False, ls="--", lw=1))
    inside = path[path[:, 0] < x.max() + 1]
    left.plot(*inside.T, ".-", color=looks.COLOURS[0], lw=0.8, ms=3, label="latents")
    left.plot(*signs[-1], "s", color=looks.COLOURS[1], label="signs at the end")
    left.plot(*signs[1:].mean(0), "x", color="black", label="mean of the signs")
    left.plot(*PLANE.optimum, "*", color=looks.COLOURS[3], ms=9, label="optimum")
    left.set_xlim(x.min(), x.max())
    left.set_ylim(y.min(), y.max())
    left.legend(fontsize=7, loc="lower right")
    for i, name in enumerate(("first weight", "second weight")):
        right.plot(path[:, i], color=looks.COLOURS[i], lw=1, label=name)
    right.set_yscale("symlog", linthresh=1)
    right.set_xlabel("updates", fontsize=8)
    right.set_title("latent weights", fontsize=9)
    right.legend(fontsize=7, loc="center right")
    for axes in (left, right):
        axes.tick_params(labelsize=8)
    return figure


def _about(config: dict) -> str:
    low, high = config["curvature"]
    return f"{config['dimensions']} weights, curvature {low:g} to {high:g}"


FIGURE = figures.Figure(
    "correlation",
    "correlation of |latent| and cost of a switch",
    "Quadratic binary task",
    higher_is_better=True,
    arms=apart,
    steps="updates",
    about=_about,
    columns=columns,
    more={"importance": _importance, "plane": _plane},
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
