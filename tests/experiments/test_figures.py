"""The figures of a study, from its results."""

import shutil
import sys

import numpy as np
import pytest

from experiments.figures import figures
from experiments.slowly_changing_regression import plot
from loplax.studies import plots, results


def assert_png(path):
    with open(path, "rb") as file:
        assert file.read(4) == b"\x89PNG"


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn as curves, by metric."""
    drawn, curves = {}, plots.curves

    def look(axes, dataset, metric, **options):
        drawn[metric] = dataset[metric]
        return curves(axes, dataset, metric, **options)

    monkeypatch.setattr(plots, "curves", look)
    return drawn


def test_all_figures_are_written(finished, drawn, tmp_path):
    """Of several methods and settings: curves, diagnostics, comparison, sweep."""
    workdir = shutil.copytree(finished[0], tmp_path / "study")
    paths = figures.draw(str(workdir), plot.FIGURE)
    names = ("figure", "diagnostics", "comparison", "sweep")
    assert paths == [str(workdir / f"{name}.png") for name in names]
    for path in paths:
        assert_png(path)
    assert {"loss", "dead", "dead_1", "stable_rank", "gap"} < drawn.keys()
    found = results.load(workdir)
    gap = found["loss_first"] - found["loss_fresh"]
    np.testing.assert_array_equal(drawn["gap"], gap)


def test_a_running_study_of_one_method_is_drawn(finished, drawn, tmp_path):
    """There is nothing to compare, and most of it is still missing."""
    found = results.load(finished[0]).drop_encoding().isel(method=[0], setting=[0])
    found["test_loss"] = found["loss"]
    results.forget(found, (0, np.array([0, 0]), np.array([0, 1])), 1)
    results.write(found.drop_vars("learning_rate"), tmp_path)
    shown = figures.Figure("test_loss", "", "", higher_is_better=True)
    paths = figures.draw(str(tmp_path), shown)
    assert paths == [str(tmp_path / f"{n}.png") for n in ("figure", "diagnostics")]
    gap = found["loss_fresh"] - found["loss_first"]  # positive is worse, as always
    np.testing.assert_array_equal(drawn["gap"], gap)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("there", [0, 1])
def test_what_has_no_value_yet_is_drawn_all_the_same(finished, there, tmp_path):
    """Values in no bin at all, or only in the last."""
    found = results.load(finished[0]).drop_encoding()
    bins = found.sizes["bin"]
    found["loss"] = found["loss"].where(found["bin"] >= bins - there)
    found["dead"] = found["dead"].where(found["seed"] > 0)
    results.write(found, tmp_path)
    for path in figures.draw(str(tmp_path), plot.FIGURE):
        assert_png(path)


def test_without_results_the_program_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["plot", str(tmp_path)])
    with pytest.raises(SystemExit, match="error: no results"):
        figures.main(plot.FIGURE, plot.__doc__)


def test_the_program_needs_a_directory(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["plot"])
    with pytest.raises(SystemExit, match="plot WORKDIR"):
        figures.main(plot.FIGURE, plot.__doc__)
