"""The table of a study: one row an arm, and what it is compared with."""

import numpy as np
import pytest

from experiments.figures import figures, table
from loplax.studies import results, statistics

SHOWN = figures.Figure("loss", "squared error", "Regression")


def study(seeds=3, bins=4, level=1.0, subsets=(), there=None):
    """Results of two methods, the second in two settings; a seed moves all alike."""
    kinds = {"loss": (np.dtype("float32"), bool(subsets))}
    steps = 20.0 * np.arange(1, bins + 1)
    arms, rates = ["bp", "cbp", "cbp"], {"rate": [np.nan, 0.1, 0.01]}
    dataset = results.empty(arms, rates, range(seeds), steps, kinds, subsets)
    rng = np.random.default_rng(0)
    common = rng.uniform(size=(seeds, 1))
    for arm in range(3):
        values = level * (common + 0.01 * rng.uniform(size=(seeds, bins)) + arm)
        values = np.stack([values] * len(subsets), -1) if subsets else values
        where = (np.full(seeds, arm), np.arange(seeds))
        results.record(dataset, where, 0, {"loss": values[:, :there]})
    return dataset


def test_a_table_has_first_and_last_bins_differences_and_shares():
    dataset = study()
    frame = table.frame(dataset, SHOWN)
    assert list(frame.columns) == [
        "arm",
        "first 20 examples",
        "last 20",
        "minus bp",
        "better",
        "diverged",
    ]
    assert frame["arm"].tolist() == ["bp", "cbp rate=0.1", "cbp rate=0.01"]
    found = statistics.summary(dataset, "loss", [0, -1])
    for column, i in (("first 20 examples", 0), ("last 20", 1)):
        for text, row in zip(frame[column], found.isel(bin=i)["mean"], strict=True):
            assert text.startswith(f"{row.item():.3f} [")
    against = statistics.differences(dataset, "loss").isel(bin=0)
    assert frame["minus bp"][0] == frame["better"][0] == "-"
    low = against["low"][0].item()
    assert frame["minus bp"][1] == f"{against['mean'][0].item():+.3f} [{low:+.3f}, " + (
        f"{against['high'][0].item():+.3f}]"
    )
    assert frame["better"][1] == "0.00 [0.00, 0.71]"


def test_better_is_what_the_problem_calls_so():
    shown = SHOWN._replace(higher_is_better=True)
    assert table.frame(study(), shown)["better"][1] == "1.00 [0.29, 1.00]"
    assert "with which it is higher" in table.text(study(), shown)
    assert "with which it is lower" in table.text(study(), SHOWN)


def test_any_arm_can_be_compared_with():
    frame = table.frame(study(), SHOWN, "cbp rate=0.1")
    assert frame["minus cbp rate=0.1"][0].startswith("-0.999 [")
    assert frame["minus cbp rate=0.1"][1] == "-"
    with pytest.raises(ValueError, match="no arm 'sgd'"):
        table.frame(study(), SHOWN, "sgd")


@pytest.mark.parametrize(
    ("seeds", "cell", "said"),
    [
        (1, "-", "1 seed"),
        (2, "-", "mean of 2 seeds, too few for an interval"),
        (3, "[", "mean of 3 seeds [95% interval]"),
        (10, "[", "interquartile mean: of the middle half of the seeds"),
    ],
)
def test_a_table_says_what_it_shows(seeds, cell, said):
    """No interval of one or two seeds, the interquartile mean of ten or more."""
    dataset = study(seeds)
    frame, text = table.frame(dataset, SHOWN), table.text(dataset, SHOWN)
    assert said in text.splitlines()[-1]
    assert ("[" in frame["last 20"][0]) == (cell == "[")
    assert ("interquartile mean" in frame) == (seeds >= 10)


@pytest.mark.filterwarnings("error")
def test_what_has_no_value_yet():
    """One line an arm, also where a run diverges in between."""
    dataset = study(there=2)
    late = np.array([[np.nan, np.inf]])
    results.record(dataset, (np.array([0]), np.array([0])), 0, {"loss": late})
    frame, text = table.frame(dataset, SHOWN), table.text(dataset, SHOWN)
    assert frame["last 20"].tolist() == ["-"] * 3
    assert frame["diverged"].tolist() == [1, 0, 0]
    assert "nan" not in text
    assert "unfinished: 50% of the bins are there" in text
    assert "1 of 9 runs diverged" in text


def test_a_plugin_alone_is_named_once():
    kinds = {"loss": (np.dtype("float32"), False)}
    rates = {"cbp.decay_rate": [0.1, 0.2]}
    dataset = results.empty(["cbp", "cbp"], rates, [0], [20.0], kinds)
    frame = table.frame(dataset, SHOWN, "cbp cbp.decay_rate=0.2")
    assert frame["arm"].tolist() == ["cbp decay_rate=0.1", "cbp decay_rate=0.2"]
    assert "minus cbp decay_rate=0.2" in frame


def test_a_table_of_one_bin_and_one_arm():
    dataset = study(bins=1).isel(arm=[0])
    assert list(table.frame(dataset, SHOWN)) == ["arm", "first 20 examples", "diverged"]


def test_a_table_of_several_bins_at_a_time():
    dataset = study()
    frame = table.frame(dataset, SHOWN._replace(every=2, steps="steps"))
    assert list(frame)[1:3] == ["first 40 steps", "last 40"]
    for column, bins in (("first 40 steps", slice(0, 2)), ("last 40", slice(2, 4))):
        mean = dataset["loss"][0, :, bins].mean().item()
        assert frame[column][0].startswith(f"{mean:.3f} [")


def test_subsets_are_one_value():
    plain, parts = study(), study(subsets=["old", "new"])
    assert table.text(plain, SHOWN) == table.text(parts, SHOWN)


@pytest.mark.parametrize(
    ("level", "form"),
    [(1e-5, "0.0000"), (1.0, "."), (1e4, ""), (1e8, "e+0")],
)
def test_digits_follow_the_values(level, form):
    """Means that differ by a hundredth look different, and none is long."""
    for text in table.frame(study(level=level), SHOWN)["last 20"]:
        mean = text.split()[0]
        assert form in mean and len(mean) < 12
    shown = table.frame(study(level=level), SHOWN)["last 20"]
    assert len(set(shown)) == 3


def test_a_table_for_notebooks():
    text = table.html(study(), SHOWN)
    assert text.startswith("<table") and "cbp rate=0.01" in text
    assert table.caption(study(), SHOWN) in text


def test_unknown_metrics_are_refused():
    with pytest.raises(ValueError, match="no metric 'lost'"):
        table.frame(study(), SHOWN._replace(metric="lost"))
