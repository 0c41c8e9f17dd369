"""What is drawn over the steps of a study, and what is left out."""

import matplotlib
import numpy as np
import pytest

from loplax.studies import (
    comparisons,
    intervals,
    looks,
    panels,
    plots,
    results,
    statistics,
)
from tests.studies.drawing import METHODS, STEPS, look, study


def drawn(dataset, metric, **options):
    _, (axes,) = panels.panels(1)
    plots.curves(axes, dataset, metric, look(dataset), **options)
    return axes


def test_curves_are_means_over_seeds():
    dataset = study()
    axes = drawn(dataset, "loss")
    assert [line.get_label() for line in axes.lines] == METHODS
    for i, line in enumerate(axes.lines):
        np.testing.assert_array_equal(line.get_xdata(), STEPS)
        mean = dataset["loss"].isel(arm=i).mean("seed")
        np.testing.assert_allclose(line.get_ydata(), mean, rtol=1e-5)
    assert axes.get_xlim() == (0, 40)


def test_bands_are_the_intervals():
    dataset = study()
    axes = drawn(dataset, "loss")
    assert len(axes.collections) == 3
    for i, band in enumerate(axes.collections):
        vertices = band.get_paths()[0].vertices
        for bin_, step in enumerate(STEPS):
            heights = vertices[vertices[:, 0] == step][:, 1]
            values = dataset["loss"].values[i, :, bin_].astype(float)
            expected = intervals.mean(values)[1:]
            ends = (heights.min(), heights.max())
            np.testing.assert_allclose(ends, expected, rtol=1e-5)
    assert not drawn(dataset, "loss", band=False).collections


@pytest.mark.parametrize(("seeds", "points"), [(1, 0), (2, 2), (4, 4), (5, 0)])
def test_few_seeds_are_shown_one_by_one(seeds, points):
    """And fewer than three have no interval."""
    dataset = study(["bp"], seeds=seeds)
    axes = drawn(dataset, "loss")
    assert len(axes.collections) == (seeds >= 3)
    assert len(axes.lines) == 1 + bool(points)
    if points:
        shown = np.reshape(axes.lines[1].get_ydata(), (4, points))
        np.testing.assert_allclose(shown.T, dataset["loss"][0], rtol=1e-6)


def test_one_wide_interval_does_not_flatten_the_rest():
    dataset = study(["bp"])
    before = drawn(dataset, "loss").get_ylim()
    dataset["loss"][0, 0, 2] = 5.0
    low, high = drawn(dataset, "loss").get_ylim()
    widest = statistics.summary(dataset, "loss", [2])["high"].item()
    assert low < 1 and before[1] < high < widest


def test_a_method_without_the_metric_is_left_out_and_keeps_its_colour():
    dataset = study(["linear", "bp", "cbp"])
    every, without = drawn(dataset, "loss"), drawn(dataset, "dead")
    assert [line.get_label() for line in without.lines] == ["bp", "cbp"]
    for a, b in zip(every.lines[1:], without.lines, strict=True):
        assert a.get_color() == b.get_color()


def test_arms_without_a_look_are_grey_and_nameless():
    dataset = study()
    _, (axes,) = panels.panels(1)
    own = {"cbp": look(dataset)["cbp"]}
    plots.curves(axes, dataset, "loss", own)
    assert axes.get_legend_handles_labels()[1] == ["cbp"]
    assert len(axes.lines) == 3 and len(axes.collections) == 1


def test_looks_are_all_different_and_the_callers():
    arms = {f"method {i}": f"method {i}" for i in range(25)}
    found = looks.assign(arms)
    assert len({(each.colour, each.style) for each in found.values()}) == 25
    same = looks.assign(arms, colours=dict.fromkeys(arms, "red"))
    assert len({each.style for each in list(same.values())[: len(looks.STYLES)]}) == 7
    swept = {"bp": "bp", "cbp rate=1": "cbp", "cbp rate=2": "cbp"}
    named = looks.assign(swept, {"cbp": "continual"}, {"cbp": "#123456", "bp": "k"})
    assert [each.label for each in named.values()] == [
        "bp",
        "continual rate=1",
        "continual rate=2",
    ]
    assert [each.colour for each in named.values()] == ["k", "#123456", "#123456"]
    assert named["cbp rate=1"].style != named["cbp rate=2"].style
    (own,) = looks.assign({"cbp rate=1": "cbp"}, {"cbp rate=1": "slow"}).values()
    assert own.label == "slow"


def test_curves_of_a_running_study_end_where_it_is():
    for bins in (1, 2):
        axes = drawn(study(bins=bins), "loss")
        for line in axes.lines:
            np.testing.assert_array_equal(line.get_xdata(), STEPS[:bins])
            assert (line.get_marker() == "o") == (bins == 1)  # one point is no line
        assert axes.get_xlim() == (0, 40)


def test_a_diverged_run_is_drawn_until_it_diverges():
    dataset = study()
    cell = (np.array([0]), np.array([4]))
    results.record(dataset, cell, 0, {"loss": np.array([[100, np.nan, 1, 1]])})
    values = dataset["loss"].isel(arm=0)
    mean = [values[:, 0].mean(), *values[:4, 1:].mean("seed")]
    np.testing.assert_allclose(drawn(dataset, "loss").lines[0].get_ydata(), mean, 1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_what_has_no_value_yet_hides_nothing(first, every):
    """Two runs of the first method have values from ``first`` on, the others always."""
    dataset = study()
    dataset["dead"][0, :2, :first] = np.nan
    dataset["dead"][1, :, :first] = np.nan
    dataset["dead"][1, :, 3] = np.nan
    coarse = statistics.coarse(dataset, "dead", every)
    axes = drawn(dataset, "dead", every=every)
    for line, method in zip(axes.lines, coarse["dead"], strict=False):
        mean = method.mean("seed")
        there = mean.notnull().values
        np.testing.assert_array_equal(line.get_xdata(), mean["step"][there])
        np.testing.assert_allclose(line.get_ydata(), mean[there], rtol=1e-5)
    assert len(axes.lines) == (1 if first == 3 else 2)
    axes.figure.draw_without_rendering()
    _, (axes, beside) = panels.panels(2)
    order = comparisons.comparison(axes, coarse, "dead", look(dataset))
    comparisons.against(beside, coarse, "dead", look(dataset), order)
    axes.figure.draw_without_rendering()


def test_unknown_metrics_are_refused():
    _, (axes,) = panels.panels(1)
    dataset = study(["bp", "bp"], {"rate": [1.0, 2.0]})
    with pytest.raises(ValueError, match="'losss'"):
        plots.curves(axes, dataset, "losss", look(dataset))
    with pytest.raises(ValueError, match="'losss'"):
        comparisons.settings(axes, dataset, "losss", "rate", looks.assign({"bp": "bp"}))


def test_task_changes_are_ticks():
    """Where the task differs from the one before; none where they are too many."""
    dataset = study()
    assert plots.changes(dataset).tolist() == [20.0, 30.0]
    assert plots.changes(dataset.drop_vars("task")).size == 0
    _, (axes,) = panels.panels(1)
    plots.tick(axes, plots.changes(dataset))
    (marks,) = axes.lines
    assert marks.get_xdata().tolist() == [20.0, 30.0]
    many = dataset.isel(bin=[0] * (plots.MOST_CHANGES + 2)).copy(deep=True)
    many["task"][:] = np.arange(many.sizes["bin"])
    many["bin"] = np.zeros(many.sizes["bin"])
    assert plots.changes(many).size == 0
    assert plots.changes(many.isel(bin=slice(1, None))).size == plots.MOST_CHANGES
    two = dataset.assign(task=2 * dataset["task"])  # begin in one bin
    assert plots.changes(two).size == 0


def test_each_subset_is_a_line():
    dataset = study(["bp"], subsets=["old", "new", "all"])
    _, (axes,) = panels.panels(1)
    plots.subsets(axes, dataset, "test_loss")
    assert [line.get_label() for line in axes.lines] == ["old", "new", "all"]
    assert len({line.get_color() for line in axes.lines}) == 3
    means = dataset["test_loss"].isel(arm=0).mean("seed")
    for i, line in enumerate(axes.lines):
        np.testing.assert_allclose(line.get_ydata(), means[:, i], rtol=1e-5)


def test_figures_are_written_without_a_display(tmp_path):
    axes = drawn(study(), "loss")
    axes.figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in vars(plots)
    assert matplotlib.figure.Figure is type(axes.figure)
