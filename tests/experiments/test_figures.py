"""The figures of a study, from its results: which there are, and what they say."""

import json
import sys

import numpy as np
import pytest

from experiments.figures import figures, words
from experiments.methods import composing, table
from experiments.slowly_changing_regression import plot
from loplax.studies import plots, results, statistics

LAYERS = ("dead_10", "dead_1", "dead_2")
NAMES = ("loss", "dead", *LAYERS, "stable_rank", "loss_first", "loss_fresh")
SHOWN = figures.Figure(
    "loss",
    "squared error",
    "Regression",
    about=lambda config: f"on {config['dataset']}",
)


def study(methods=("bp", "cbp"), swept=None, seeds=5, bins=4, subsets=(), there=None):
    """Results of some arms."""
    kinds = {name: (np.dtype("float32"), False) for name in NAMES}
    if subsets:
        kinds["test_loss"] = (np.dtype("float32"), True)
    steps = 10.0 * np.arange(1, bins + 1)
    dataset = results.empty(methods, swept or {}, range(seeds), steps, kinds, subsets)
    rng = np.random.default_rng(0)
    for arm in range(len(methods)):
        values = {name: rng.uniform(size=(seeds, bins)) + arm for name in NAMES}
        if subsets:
            values["test_loss"] = rng.uniform(size=(seeds, bins, len(subsets)))
        values = {name: value[:, :there] for name, value in values.items()}
        results.record(dataset, (np.full(seeds, arm), np.arange(seeds)), 0, values)
    dataset.attrs |= {"config": json.dumps({"dataset": "digits"}), "preset": "smoke"}
    return dataset


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn as curves, by metric."""
    drawn, curves = {}, plots.curves

    def look(axes, dataset, metric, looks, **options):
        drawn[metric] = dataset[metric]
        return curves(axes, dataset, metric, looks, **options)

    monkeypatch.setattr(plots, "curves", look)
    return drawn


def said(figure):
    return " ".join(text.get_text() for text in figure.texts)


RATES = {"rate": [np.nan, 0.1, 0.2]}
ARMS = ["bp", "cbp", "cbp"]


def test_all_figures_are_written(drawn, tmp_path):
    """Of several methods and settings, and of subsets."""
    dataset = study(ARMS, RATES, subsets=["old", "new"])
    found = figures.draw(dataset, SHOWN)
    names = ["figure", "diagnostics", "comparison", "sweep", "subsets"]
    assert list(found) == names
    paths = figures.save(found, tmp_path)
    assert paths == [str(tmp_path / f"{name}.png") for name in names]
    for name in names:
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert drawn.keys() == {"loss", "dead", *LAYERS, "stable_rank", "gap", "test_loss"}
    gap = (dataset["loss_first"] - dataset["loss_fresh"]).sel(arm=drawn["gap"]["arm"])
    np.testing.assert_array_equal(drawn["gap"], gap.isel(seed=[1, 3]))


def test_no_panel_is_there_twice_or_empty():
    """Not the main metric, nor the only layer beside all layers, nor what never is."""
    dataset = study()
    titles = words.diagnostics(dataset, "loss")
    assert list(titles) == ["dead", "stable_rank", "dead_1", "dead_2", "dead_10"]
    assert "stable_rank" not in words.diagnostics(dataset, "stable_rank")
    dataset["stable_rank"][:] = np.nan
    one = dataset.drop_vars(["dead_2", "dead_10"])
    assert list(words.diagnostics(one, "loss")) == ["dead"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "Regression: on digits (preset smoke) mean of 5 seeds, 95% interval"),
        ({"seeds": 1}, "(preset smoke) 1 seed"),
        ({"seeds": 2}, "2 seeds, too few for an interval; points: single seeds"),
        (
            {"seeds": 4},
            "4 seeds, 95% interval (it may leave the axes); points: single seeds",
        ),
        ({"there": 3}, "95% interval unfinished: 75% of the bins are there"),
        (
            {"methods": ARMS, "swept": RATES, "seeds": 7},
            "3 seeds, 95% interval (it may leave the axes); points: single seeds "
            "each method in the best of its settings, chosen on 4 other seeds",
        ),
        (
            {"methods": ARMS, "swept": RATES, "seeds": 3},
            "in the best of its settings, chosen on the same seeds: the best of them "
            "looks better than it is",
        ),
    ],
)
def test_figures_say_what_they_show(options, expected):
    dataset = study(**options)
    best = statistics.best(dataset, "loss")
    lines = words.head(dataset, best, SHOWN.title, SHOWN.about)
    assert expected in " ".join(lines)


def test_diverged_runs_are_counted_above_every_figure():
    dataset = study()
    cell = (np.array([0]), np.array([4]))
    results.record(dataset, cell, 0, {"loss": np.array([[1, np.nan, 1, 1]])})
    for figure in figures.draw(dataset, SHOWN).values():
        assert "1 of 10 runs diverged" in said(figure)


def test_results_that_know_less_are_drawn_all_the_same():
    dataset = study(["bp"])
    dataset.attrs.clear()
    found = figures.draw(dataset, SHOWN)
    assert list(found) == ["figure", "diagnostics"]
    assert said(found["figure"]) == "Regression mean of 5 seeds, 95% interval"


@pytest.mark.parametrize(
    ("seeds", "where"),
    [(3, "the seeds that are shown"), (4, "2 of 4 seeds and shown on the others")],
)
def test_a_sweep_says_where_its_settings_were_chosen(seeds, where):
    swept = RATES | {"decay": [np.nan, 0.5, 0.5]}
    one = words.of_sweep(study(ARMS, swept, seeds))
    assert f"mean of {seeds} seeds" in one and "chosen" not in one
    swept = {"rate": [np.nan, 1, 1, 2], "decay": [np.nan, 1, 2, 1]}
    two = words.of_sweep(study([*ARMS, "cbp"], swept, seeds))
    assert f"chosen on {where}" in two


def test_many_methods_are_shown_in_groups():
    """Each in colour once, with the others in grey behind."""
    names = list(table.PLUGINS)[: figures.GROUP + 1]
    found = figures.draw(study(names, seeds=3, bins=2), SHOWN)
    labels = [ax.get_legend_handles_labels()[1] for ax in found["figure"].axes]
    assert [len(each) for each in labels] == [5, 4]
    assert sum(labels, []) == [composing.label(name) for name in names]
    assert all(len(ax.lines) >= len(names) for ax in found["figure"].axes)
    assert "means alone" in said(found["diagnostics"])
    assert not found["diagnostics"].axes[0].collections


def test_colours_and_labels_are_those_of_the_methods_in_every_figure():
    dataset = study(["l2", "cbp+layer_norm", "cbp+layer_norm"], RATES)
    known = {
        composing.label(name): composing.colour(name)
        for name in ("l2", "cbp+layer_norm")
    }
    for figure in figures.draw(dataset, SHOWN).values():
        for axes in figure.axes:
            for mark, text in zip(*axes.get_legend_handles_labels(), strict=True):
                colour = getattr(mark, "lines", [mark])[0].get_color()
                assert colour == known[" ".join(text.split()).partition(" rate=")[0]]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cbp cbp.decay_rate=1 learning_rate=2", "cbp decay_rate=1 learning_rate=2"),
        ("cbp (runs/cbp.1) cbp.decay_rate=1", "cbp (runs/cbp.1) decay_rate=1"),
        ("cbp adam.b1=1", "cbp adam.b1=1"),
        ("cbp+l2 cbp.decay_rate=1", "cbp+l2 cbp.decay_rate=1"),
        ("sgm er.capacity=5", "sgm er.capacity=5"),
        ("er er.capacity=5 (ema)", "er capacity=5 (ema)"),
    ],
)
def test_a_plugin_alone_is_named_once(name, shown):
    assert words.arm(name) == shown
    method = name.partition(" ")[0]
    for variant in (method, name):
        (look,) = figures.appearance({name: variant}).values()
        assert look.label == shown.replace(method, composing.label(method), 1)


def test_a_view_sees_the_best_arms_and_the_configuration():
    seen = []

    def view(dataset, config):
        seen.append((dataset["method"].values.tolist(), config))
        return dataset.isel(bin=[1, 3])

    shown = SHOWN._replace(view=view, along="classes")
    (axes,) = figures.draw(study(ARMS, RATES), shown)["figure"].axes
    assert seen == [(["bp", "cbp"], {"dataset": "digits"})]
    assert axes.lines[0].get_xdata().tolist() == [20.0, 40.0]
    assert axes.get_xlabel() == "classes"


def test_tasks_are_numbered_and_what_precedes_an_update_is_no_curve():
    dataset = study(["bp"], subsets=["0", "1"])
    dataset["test_loss_start"] = dataset["test_loss"]
    figure = figures.draw(dataset, SHOWN, only="subsets")["subsets"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["task 1", "task 2"]
    assert len([axes for axes in figure.axes if axes.lines]) == 1


def test_the_main_metric_may_have_subsets():
    dataset = study(subsets=["old", "new"])
    (axes,) = figures.draw(dataset, SHOWN._replace(metric="test_loss"))["figure"].axes
    mean = dataset["test_loss"].mean(["seed", "subset"])
    *curves, _ = axes.lines  # the last one marks the changes of task
    for line, expected in zip(curves, mean, strict=True):
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("there", [0, 1])
def test_what_has_no_value_yet_is_drawn_all_the_same(there, tmp_path):
    """Values in no bin at all, or only in the last."""
    dataset = study(ARMS, RATES)
    dataset["loss"] = dataset["loss"].where(dataset["bin"] >= 4 - there)
    dataset["dead"] = dataset["dead"].where(dataset["seed"] > 0)
    assert len(figures.save(figures.draw(dataset, SHOWN), tmp_path)) == 4


def test_the_environment_and_its_change_are_named():
    config = {"environment": "ant", "change": "friction", "period": 2_000_000}
    assert words.of_environment(config) == "ant, a new friction every 2,000,000 steps"
    assert words.of_environment(config | {"change": "none"}) == "ant, unchanging"


def test_without_results_the_program_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["plot", str(tmp_path)])
    with pytest.raises(SystemExit, match="error: no results"):
        figures.main(plot.FIGURE, plot.__doc__)


def test_the_program_needs_a_directory(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["plot"])
    with pytest.raises(SystemExit, match="plot WORKDIR"):
        figures.main(plot.FIGURE, plot.__doc__)


def test_unknown_metrics_are_refused():
    with pytest.raises(ValueError, match="no metric 'lost'"):
        figures.draw(study(), SHOWN._replace(metric="lost"))
    assert statistics.swept(study()) == []
