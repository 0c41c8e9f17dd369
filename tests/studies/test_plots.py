"""What figures are made of: what is drawn from which results, and what is left out."""

import matplotlib
import numpy as np
import pytest

from loplax.studies import intervals, looks, panels, plots, results, statistics

METHODS = ["bp", "cbp", "linear"]
STEPS = [10.0, 20.0, 30.0, 40.0]


def study(methods=METHODS, swept=None, bins=4, seeds=5, subsets=()):
    """Results of some arms, each worse than the last; ``linear`` has no ``dead``."""
    kinds = {name: (np.dtype("float32"), False) for name in ("loss", "dead", "task")}
    kinds["test_loss"] = (np.dtype("float32"), bool(subsets))
    dataset = results.empty(methods, swept or {}, range(seeds), STEPS, kinds, subsets)
    rng = np.random.default_rng(0)
    for arm, method in enumerate(methods):
        level = rng.uniform(size=(seeds, bins)) + 10 * arm
        task = np.broadcast_to([0.0, 0, 1, 2][:bins], level.shape)
        values = {"loss": level, "dead": level / 100, "task": task}
        per_subset = [level + 1000 * i for i in range(len(subsets))] or [level]
        values["test_loss"] = np.stack(per_subset, -1) if subsets else level
        if method == "linear":
            del values["dead"]
        where = (np.full(seeds, arm), np.arange(seeds))
        results.record(dataset, where, 0, values)
    return dataset


def look(dataset, **options):
    return looks.assign(looks.arms(dataset), **options)


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
    order = plots.comparison(axes, coarse, "dead", look(dataset))
    plots.against(beside, coarse, "dead", look(dataset), order)
    axes.figure.draw_without_rendering()


def test_unknown_metrics_are_refused():
    _, (axes,) = panels.panels(1)
    dataset = study(["bp", "bp"], {"rate": [1.0, 2.0]})
    with pytest.raises(ValueError, match="'losss'"):
        plots.curves(axes, dataset, "losss", look(dataset))
    with pytest.raises(ValueError, match="'losss'"):
        plots.settings(axes, dataset, "losss", "rate", looks.assign({"bp": "bp"}))


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


@pytest.mark.filterwarnings("error")
def test_methods_are_compared_from_the_first_bin_with_a_value_to_the_last():
    dataset = study()
    dataset["loss"][:, :, 0] = np.nan
    dataset["loss"][0, :4, 1] = np.nan
    assert plots.ends(dataset, "loss") == (1, 3)
    assert plots.ends(study(bins=2), "loss") == (0, 1)
    assert plots.ends(study(bins=0), "loss") == (0, -1)
    _, (axes,) = panels.panels(1)
    plots.comparison(axes, dataset, "loss", look(dataset))
    mean = dataset["loss"].isel(bin=1).mean("seed")
    shown = [bars.lines[0].get_xdata()[0] for bars in axes.containers[::2]]
    np.testing.assert_allclose(shown, mean, rtol=1e-6)


def test_methods_are_compared_in_the_order_of_their_last_bins():
    """First bins hollow, last ones full, by name and in the colour of the method."""
    dataset = study()
    dataset["loss"][0] += 100
    own = look(dataset, labels={"bp": "backprop"})
    _, (axes, beside) = panels.panels(2)
    order = plots.comparison(axes, dataset, "loss", own)
    assert order == ["cbp", "linear", "bp"]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["cbp", "linear", "backprop"]
    for i, bars in enumerate(axes.containers):
        arm, place = order[i // 2], (0, -1)[i % 2]
        mean = dataset["loss"].sel(arm=arm).isel(bin=place).mean("seed")
        (shown,) = bars.lines[0].get_xdata()
        assert shown == pytest.approx(mean.item(), rel=1e-6)
        assert bars.lines[0].get_color() == own[arm].colour
    plots.against(beside, dataset, "loss", own, order)
    apart = dataset["loss"].isel(bin=-1).mean("seed")
    shown = [bars.lines[0].get_xdata()[0] for bars in beside.containers]
    expected = [(apart.sel(arm=arm) - apart[0]).item() for arm in order[:2]]
    np.testing.assert_allclose(shown, expected, rtol=1e-5)
    assert [text.get_text() for text in beside.texts] == ["100%", "100%"]


def test_settings_are_drawn_over_their_values():
    """Each method with its own; one that does not use the number is a level line."""
    swept = {"rate": [np.nan, 0.1, 0.01, 0.1, 0.01]}
    dataset = study(["bp", "cbp", "cbp", "l2", "l2"], swept)
    own = looks.assign({name: name for name in ("bp", "cbp", "l2")})
    _, (axes,) = panels.panels(1)
    plots.settings(axes, dataset, "loss", "rate", own)
    last = dataset["loss"].isel(bin=-1).mean("seed").values
    for container, arms in zip(axes.containers, ([2, 1], [4, 3]), strict=True):
        line = container.lines[0]
        np.testing.assert_array_equal(line.get_xdata(), [0.01, 0.1])
        np.testing.assert_allclose(line.get_ydata(), last[arms], rtol=1e-5)
    level = next(line for line in axes.lines if line.get_label() == "bp")
    np.testing.assert_allclose(level.get_ydata(), last[0], rtol=1e-5)
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "rate")
    ticks = [text.get_text() for text in axes.get_xticklabels(which="both")]
    assert ticks == ["0.01", "0.1"]


def test_settings_leave_out_methods_without_the_metric():
    dataset = study(["bp", "bp", "linear", "linear"], {"rate": [0.0, 1, 0, 1]})
    _, (axes,) = panels.panels(1)
    own = looks.assign({"bp": "bp", "linear": "linear"})
    plots.settings(axes, dataset, "dead", "rate", own)
    assert [container.get_label() for container in axes.containers] == ["bp"]
    assert axes.get_xscale() == "linear"  # a rate of 0 has no logarithm


def test_each_subset_is_a_line():
    dataset = study(["bp"], subsets=["old", "new", "all"])
    _, (axes,) = panels.panels(1)
    plots.subsets(axes, dataset, "test_loss")
    assert [line.get_label() for line in axes.lines] == ["old", "new", "all"]
    assert len({line.get_color() for line in axes.lines}) == 3
    means = dataset["test_loss"].isel(arm=0).mean("seed")
    for i, line in enumerate(axes.lines):
        np.testing.assert_allclose(line.get_ydata(), means[:, i], rtol=1e-5)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7])
def test_panels_have_room_for_what_is_around_them(number):
    """No label, title or legend leaves the figure or lies upon another."""
    names = [f"a method of number {i}" for i in range(9)]
    lines = ["A study of many words " * 5, "what else there is to say"]
    figure, axes = panels.panels(number, lines=lines, legend=names)
    assert len(axes) == len(figure.axes) == number
    for each in axes:
        each.plot(np.zeros([2, 9]), label=names)
        each.set(title="a title", xlabel="examples", ylabel="accuracy")
    panels.legend_below(figure, axes)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    parts = [*figure.texts, legend]
    boxes = [part.get_window_extent() for part in parts]
    boxes += [each.get_tightbbox() for each in axes]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_legends_beside_axes_lie_in_the_figure_in_the_order_of_the_lines():
    labels = ["low", "continual backprop cbp.replacement_rate=0.001 learning_rate=1"]
    margins = panels.Margins(right=panels.beside(labels))
    figure, (axes,) = panels.panels(1, margins=margins)
    for height, label in enumerate(labels):
        axes.plot([1, 2], [5, height], label=label)
    panels.legend_beside(axes)
    figure.draw_without_rendering()
    legend = axes.get_legend()
    texts = [" ".join(text.get_text().split()) for text in legend.get_texts()]
    assert texts == labels[::-1]
    box = legend.get_window_extent()
    assert axes.bbox.x1 <= box.x0 and box.x1 <= figure.bbox.x1


def test_figures_are_written_without_a_display(tmp_path):
    axes = drawn(study(), "loss")
    axes.figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in vars(plots)
    assert matplotlib.figure.Figure is type(axes.figure)
