"""The figures: what is drawn from which results, and what is left out."""

import matplotlib
import numpy as np
import pytest

from loplax.studies import plots, results

METHODS = ["bp", "cbp", "linear"]
STEPS = [10.0, 20.0, 30.0, 40.0]


def study(settings=None, bins=4, seeds=5):
    """Results of three methods; the last has no ``dead``."""
    settings = settings or {}
    number = len(next(iter(settings.values()), [0]))
    types = {name: (np.dtype("float32"), False) for name in ("loss", "dead")}
    methods = [name for name in METHODS for _ in range(number)]
    swept = {name: 3 * list(values) for name, values in settings.items()}
    dataset = results.empty(methods, swept, range(seeds), STEPS, types)
    rng = np.random.default_rng(0)
    for method in range(3):
        for setting in range(number):
            cells = (np.full(seeds, method * number + setting), np.arange(seeds))
            level = rng.uniform(size=(seeds, bins)) + 10 * method + setting
            values = {"loss": level, "dead": level / 100}
            if method == 2:
                del values["dead"]
            results.record(dataset, cells, 0, values)
    return dataset


def drawn(dataset, metric, **options):
    _, (axes,) = plots.panels(1)
    plots.curves(axes, dataset, metric, **options)
    return axes


def test_curves_are_means_over_seeds():
    dataset = study()
    axes = drawn(dataset, "loss")
    assert [line.get_label() for line in axes.lines] == METHODS
    for i, line in enumerate(axes.lines):
        np.testing.assert_array_equal(line.get_xdata(), STEPS)
        mean = dataset["loss"].isel(arm=i).mean("seed")
        np.testing.assert_allclose(line.get_ydata(), mean, rtol=1e-5)
    assert len({line.get_color() for line in axes.lines}) == 3


def test_bands_lie_around_the_mean_and_within_the_runs():
    """An interval of the mean never leaves the range of what is averaged."""
    dataset = study()
    axes = drawn(dataset, "loss")
    assert len(axes.collections) == 3
    for i, (line, band) in enumerate(zip(axes.lines, axes.collections, strict=True)):
        values = dataset["loss"].isel(arm=i)
        vertices = band.get_paths()[0].vertices
        for x, y, step in zip(STEPS, line.get_ydata(), range(4), strict=True):
            heights = vertices[vertices[:, 0] == x][:, 1]
            assert values[:, step].min() <= heights.min() < y
            assert y < heights.max() <= values[:, step].max()


def test_a_method_without_the_metric_is_left_out_and_keeps_its_colour():
    dataset = study()
    every, without = drawn(dataset, "loss"), drawn(dataset, "dead")
    assert [line.get_label() for line in without.lines] == ["bp", "cbp"]
    for a, b in zip(every.lines, without.lines, strict=False):
        assert a.get_color() == b.get_color()


def test_labels_are_given_by_name():
    axes = drawn(study(), "loss", labels={"cbp": "continual backprop"})
    labels = [line.get_label() for line in axes.lines]
    assert labels == ["bp", "continual backprop", "linear"]


def test_curves_of_a_running_study_end_where_it_is():
    for bins in (1, 2):
        axes = drawn(study(bins=bins), "loss")
        for line in axes.lines:
            np.testing.assert_array_equal(line.get_xdata(), STEPS[:bins])
            assert (line.get_marker() == "o") == (bins == 1)  # one point is no line


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
    values = plots.coarse(dataset, "dead", every)["dead"]
    axes = drawn(dataset, "dead", every=every)
    for line, method in zip(axes.lines, values, strict=False):
        mean = method.mean("seed")
        there = mean.notnull().values
        np.testing.assert_array_equal(line.get_xdata(), mean["step"][there])
        np.testing.assert_allclose(line.get_ydata(), mean[there], rtol=1e-5)
    assert len(axes.lines) == (1 if first == 3 else 2)
    axes.figure.draw_without_rendering()
    _, (axes,) = plots.panels(1)
    plots.comparison(axes, plots.coarse(dataset, "dead", every), "dead")
    axes.figure.draw_without_rendering()


@pytest.mark.filterwarnings("error")
def test_methods_are_compared_from_the_first_bin_with_a_value_on():
    dataset = study()
    dataset["loss"][:, :, 0] = np.nan
    dataset["loss"][0, :4, 1] = np.nan
    assert plots.first(dataset, "loss") == 1
    assert plots.first(study(bins=0), "loss") == 0
    _, (axes,) = plots.panels(1)
    plots.comparison(axes, dataset, "loss")
    mean = dataset["loss"].isel(bin=1).mean("seed")
    np.testing.assert_allclose(axes.containers[0].lines[0].get_xdata(), mean, rtol=1e-6)


def test_curves_of_another_setting():
    dataset = study({"learning_rate": [0.1, 0.01]})
    mean = dataset["loss"].isel(arm=3).mean("seed")
    axes = drawn(dataset, "loss", setting=1)
    np.testing.assert_allclose(axes.lines[1].get_ydata(), mean, rtol=1e-5)


def test_unknown_metrics_are_refused():
    _, (axes,) = plots.panels(1)
    with pytest.raises(ValueError, match="'losss'"):
        plots.curves(axes, study(), "losss")
    with pytest.raises(ValueError, match="'losss'"):
        plots.settings(axes, study({"rate": [1.0, 2.0]}), "losss", "rate")


def test_swept_names_are_those_that_vary():
    assert plots.swept(study()) == []
    two = study({"learning_rate": [0.1, 0.01], "b1": [0.9, 0.9]})
    assert sorted(plots.swept(two)) == ["b1", "learning_rate"]


def test_settings_show_the_best_of_what_else_was_swept():
    """Setting 0 has the lowest loss; over ``rate``, ``decay`` is chosen per value."""
    dataset = study({"rate": [0.1, 0.1, 0.01, 0.01], "decay": [0.0, 1.0, 0.0, 1.0]})
    _, (axes,) = plots.panels(1)
    plots.settings(axes, dataset, "loss", "rate")
    last = dataset["loss"].isel(bin=-1).mean("seed")
    assert len(axes.containers) == 3
    for i, container in enumerate(axes.containers):
        line = container.lines[0]
        np.testing.assert_array_equal(line.get_xdata(), [0.01, 0.1])
        np.testing.assert_allclose(
            line.get_ydata(), last[[4 * i + 2, 4 * i]], rtol=1e-5
        )
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "rate"


def test_settings_leave_out_methods_without_the_metric():
    _, (axes,) = plots.panels(1)
    plots.settings(axes, study({"rate": [0.0, 1.0]}), "dead", "rate")
    assert [container.get_label() for container in axes.containers] == ["bp", "cbp"]
    assert axes.get_xscale() == "linear"  # a rate of 0 has no logarithm


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7])
def test_panels(number):
    figure, axes = plots.panels(number)
    assert len(axes) == len(figure.axes) == number


def test_figures_are_written_without_a_display(tmp_path):
    figure, (axes,) = plots.panels(1)
    plots.curves(axes, study(), "loss")
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in vars(plots)
    assert matplotlib.figure.Figure is type(figure)


def test_coarse_bins_are_means_at_the_place_of_the_last():
    dataset = study()
    coarse = plots.coarse(dataset, "loss", 2)
    np.testing.assert_array_equal(coarse["step"], [20.0, 40.0])
    pairs = dataset["loss"].values.reshape(3, 5, 2, 2)
    np.testing.assert_allclose(coarse["loss"], pairs.mean(-1), rtol=1e-6)
    assert plots.coarse(dataset, "loss", 1) is dataset


def test_methods_are_compared_in_the_order_of_their_last_bins():
    """Hollow first bins and full last ones, with names; the best is on top."""
    _, (axes,) = plots.panels(1)
    dataset = study()
    plots.comparison(axes, dataset, "loss", labels={"bp": "backprop"})
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "backprop",
        "cbp",
        "linear",
    ]
    for bars, place in zip(axes.containers, (0, -1), strict=True):
        mean = dataset["loss"].isel(bin=place).mean("seed")
        np.testing.assert_allclose(bars.lines[0].get_xdata(), mean, rtol=1e-6)
