"""What runs say together: who counts, who is compared with whom, and what is best."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loplax.studies import intervals, results, statistics


def study(values, methods=("bp", "cbp"), swept=None):
    """Results of ``values [arms, seeds, bins]``; arms may be shorter than others."""
    bins = max(np.shape(arm)[1] for arm in values)
    seeds = range(len(values[0]))
    steps = 10.0 * np.arange(1, bins + 1)
    kinds = {"loss": (np.dtype("float32"), False)}
    dataset = results.empty(methods, swept or {}, seeds, steps, kinds)
    for i, arm in enumerate(values):
        where = (np.full(len(arm), i), np.arange(len(arm)))
        results.record(dataset, where, 0, {"loss": np.asarray(arm)})
    return dataset


def test_the_summary_of_every_cell_is_that_of_its_runs():
    values = np.random.default_rng(0).normal(size=(2, 12, 4)).astype(np.float32)
    values[0, 3, 2] = np.nan  # diverges
    found = statistics.summary(study(values), "loss", [0, -1], confidence=0.9)
    assert found["bin"].values.tolist() == [0, 3]
    for arm, cell in ((0, 0), (0, 1), (1, 0), (1, 1)):
        runs = np.delete(values[arm], [3] if (arm, cell) == (0, 1) else [], axis=0)
        expected = intervals.mean(runs[:, 3 * cell].astype(float), 0.9)
        names = ("mean", "low", "high")
        here = [found[name][arm, cell] for name in names]
        np.testing.assert_allclose(here, expected)
        expected = intervals.interquartile_mean(runs[:, 3 * cell].astype(float), 0.9)
        here = [found[name][arm, cell] for name in ("iqm", "iqm_low", "iqm_high")]
        np.testing.assert_allclose(here, expected)
    assert found["runs"].values.tolist() == [[12, 11], [12, 12]]
    assert found["diverged"].values.tolist() == [[0, 1], [0, 0]]


def test_the_summary_keeps_subsets():
    kinds = {"test_loss": (np.dtype("float32"), True)}
    dataset = results.empty(["bp"], {}, range(3), [1.0, 2.0], kinds, ["old", "new"])
    values = np.random.default_rng(0).uniform(size=(3, 2, 2))
    where = (np.zeros(3, int), np.arange(3))
    results.record(dataset, where, 0, {"test_loss": values})
    found = statistics.summary(dataset, "test_loss", [0, 1])
    assert found["mean"].dims == ("arm", "bin", "subset")
    np.testing.assert_allclose(found["mean"][0], values.mean(0), rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_the_summary_counts_what_has_a_value():
    """Not yet, in some seeds or in all; never; and before a run diverges."""
    nothing = np.nan
    kinds = {name: (np.dtype("float32"), False) for name in ("loss", "return")}
    dataset = results.empty(["bp"], {}, range(3), [1.0, 2, 3, 4], kinds)
    where = (np.zeros(3, int), np.arange(3))
    loss = np.array([[1.0, 1, 1, 1], [1, 1, 1, nothing], [1, 1, 1, 1]])
    found = np.array(
        [[nothing, nothing, 2, 4], [nothing, 0, 4, 9], [nothing] * 3 + [6]]
    )
    results.record(dataset, where, 0, {"loss": loss, "return": found})
    table = statistics.summary(dataset, "return", range(4)).isel(arm=0)
    np.testing.assert_array_equal(table["mean"], [nothing, 0, 3, 5])
    assert table["runs"].values.tolist() == [0, 1, 2, 2]
    assert table["diverged"].values.tolist() == [0, 0, 0, 1]
    assert statistics.summary(dataset, "loss", [2])["runs"].values[0, 0] == 3
    assert "loss" not in table.to_dataframe()  # and it can be a table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "lost"}, "no metric 'lost'; the metrics are loss"),
        ({"metric": "bins_done"}, "no metric"),
        ({"metric": "loss", "bins": [4]}, "there are 4 bins"),
        ({"metric": "loss", "confidence": 95}, "confidence is 95"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    dataset = study(np.zeros([2, 3, 4]))
    for function in (statistics.summary, statistics.differences):
        with pytest.raises(ValueError, match=message):
            function(dataset, **arguments)


def test_a_baseline_is_one_of_the_arms():
    with pytest.raises(ValueError, match="no arm 'sgd'; the arms are bp, cbp"):
        statistics.differences(study(np.zeros([2, 3, 1])), "loss", baseline="sgd")


def test_differences_are_paired_by_seed():
    """What the seeds have in common falls out: the interval is that of the pairs."""
    rng = np.random.default_rng(0)
    common, apart = 100 * rng.normal(size=(8, 1)), rng.normal(size=(8, 1)) + 3
    dataset = study([common, common + apart])
    found = statistics.differences(dataset, "loss").isel(bin=0, arm=0)
    expected = intervals.mean(apart[:, 0])
    here = [found[name] for name in ("mean", "low", "high")]
    np.testing.assert_allclose(here, expected, rtol=1e-4)
    assert found["arm"] == "cbp" and found.attrs["baseline"] == "bp"
    summed = statistics.summary(dataset, "loss").isel(arm=1, bin=0)
    assert found["high"] - found["low"] < (summed["high"] - summed["low"]) / 10


numbers = st.integers(-3, 3).map(float)
pairs = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=9)


@settings(max_examples=15)
@given(pairs, st.booleans())
def test_improvement_is_the_share_of_better_pairs(pairs, higher):
    """Ties are halves; the other way round, it is the rest."""
    first, second = np.transpose(pairs)
    dataset = study([first[:, None], second[:, None]])
    ahead = statistics.differences(dataset, "loss", higher_is_better=higher)
    sign = 1 if higher else -1
    shares = [0.5 * (1 + np.sign(sign * (b - a))) for a, b in pairs]
    assert ahead["improvement"].item() == pytest.approx(np.mean(shares))
    back = statistics.differences(
        dataset, "loss", baseline="cbp", higher_is_better=higher
    )
    assert back["mean"].item() == pytest.approx(-ahead["mean"].item())
    for one, other in (("", ""), ("_low", "_high"), ("_high", "_low")):
        total = ahead[f"improvement{one}"].item() + back[f"improvement{other}"].item()
        assert total == pytest.approx(1)


@pytest.mark.parametrize("higher", [True, False])
def test_a_run_that_diverged_is_worse_than_one_that_did_not(higher):
    """Seeds: the arm diverged, the baseline, both, neither; and one not there yet."""
    lost = np.nan
    values = np.array([[1.0, lost, lost, 1, 1], [lost, 1, lost, 1, 1]])[..., None]
    dataset = study(values)
    results.forget(dataset, (np.array([1]), np.array([4])), 0)
    found = statistics.differences(dataset, "loss", higher_is_better=higher)
    assert found["improvement"].item() == (0 + 1 + 0.5 + 0.5) / 4
    assert found["runs"].item() == 1 and found["mean"].item() == 0


RATES = {"rate": [np.nan, 0.1, 0.2, 0.3]}
ARMS = ["bp", "cbp", "cbp", "cbp"]


def test_the_best_arm_is_chosen_on_other_seeds_than_it_is_shown_on():
    """On those it is shown on, another would have been best."""
    chosen, shown = [5.0, 2, 1, 3], [5.0, 1, 9, 3]
    values = np.array([chosen, shown] * 2).T[..., None]
    found = statistics.best(study(values, ARMS, RATES), "loss")
    assert found.dataset["arm"].values.tolist() == ["bp", "cbp rate=0.2"]
    assert found.dataset["seed"].values.tolist() == [1, 3]
    assert (found.chosen, found.shared) == (3, False)
    higher = statistics.best(study(values, ARMS, RATES), "loss", higher_is_better=True)
    assert higher.dataset["arm"].values.tolist() == ["bp", "cbp rate=0.3"]


def test_choice_is_without_bias():
    """All settings are the same: the best of many, shown anew, is as good as any."""
    values = np.random.default_rng(0).normal(size=(40, 60, 1))
    rates = {"rate": list(np.arange(1.0, 41))}
    dataset = study(values, ["bp"] * 40, rates)
    shown = statistics.best(dataset, "loss").dataset["loss"].mean().item()
    chosen = dataset["loss"].mean(["seed", "bin"]).min().item()
    error = 1 / np.sqrt(30)
    assert chosen < -2 / np.sqrt(60) and abs(shown) < 2 * error


def test_few_seeds_choose_and_show():
    values = np.array([[5.0] * 3, [2] * 3, [1] * 3, [3] * 3])[..., None]
    found = statistics.best(study(values, ARMS, RATES), "loss")
    assert found.dataset.sizes["seed"] == 3 and found.shared
    alone = statistics.best(study(values[:2]), "loss")
    assert (alone.chosen, alone.shared) == (1, False)


def test_there_is_a_best_for_each_value_of_a_swept_number():
    rates = {"rate": [1.0, 1, 2, 2], "decay": [0.0, 1, 0, 1]}
    values = np.array([[4.0], [3], [1], [2]])[..., None]
    dataset = study(values, ["bp"] * 4, rates)
    found = statistics.best(dataset, "loss", per=["rate"]).dataset
    assert found["decay"].values.tolist() == [1, 0]
    assert statistics.swept(dataset) == ["rate", "decay"]
    assert statistics.swept(found.isel(arm=[0])) == []


def test_a_setting_that_diverges_is_not_best():
    """Nor is it found best because the others are ahead of it when all are compared."""
    late = np.array([[[1.0, 1], [1, np.nan]], [[2.0, 2], [2, 2]]])
    every = np.array([[[1.0, np.nan], [1, np.nan]], [[2.0, 2], [2, 2]]])
    for values in (late, every):
        found = statistics.best(study(values, ["bp"] * 2, {"rate": [1.0, 2]}), "loss")
        assert found.dataset["rate"].item() == 2


def test_a_setting_without_a_run_is_not_best():
    """Though none of it has diverged; nor is one with fewer runs for that reason."""
    of = lambda values: statistics.best(
        study(values, ["bp"] * 2, {"rate": [1.0, 2]}), "loss"
    )
    nothing, diverged = np.zeros([2, 0]), np.array([[1.0], [np.nan]])
    for values in ([nothing, diverged], [nothing, np.ones([2, 1])]):
        assert of(values).dataset["rate"].item() == 2
    few = study([np.full([6, 1], 5.0), np.ones([6, 1])], ["bp"] * 2, {"rate": [1.0, 2]})
    results.forget(few, (np.zeros(5, int), np.arange(1, 6)), 0)
    results.forget(few, (np.ones(1, int), np.array([5])), 0)
    results.record(few, (np.array([1]), np.array([5])), 0, {"loss": [[np.nan]]})
    assert statistics.best(few, "loss").dataset["rate"].item() == 2


def test_nothing_is_won_where_nothing_was_measured():
    """A subset that has not begun, in which both runs of a seed diverged before."""
    kinds = {name: (np.dtype("float32"), name == "acc") for name in ("loss", "acc")}
    dataset = results.empty(["bp", "cbp"], {}, [0, 1], [1.0], kinds, ["old", "new"])
    where = (np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    loss = np.array([[np.nan], [1], [np.nan], [1]])
    acc = np.array([[[0.5, np.nan]]] * 4)
    results.record(dataset, where, 0, {"loss": loss, "acc": acc})
    found = statistics.differences(dataset, "acc", higher_is_better=True)
    assert found["improvement"].values.ravel()[0] == 0.5
    assert np.isnan(found["improvement"].values.ravel()[1])


def test_settings_of_a_running_study_are_compared_where_all_are():
    """The first is further, and was better where both are."""
    values = [[[1.0, 9.0]], [[2.0]]]
    found = statistics.best(study(values, ["bp"] * 2, {"rate": [1.0, 2]}), "loss")
    assert found.dataset["rate"].item() == 1
    nothing = study(
        [np.zeros([1, 0]), np.zeros([1, 1])], ["bp"] * 2, {"rate": [1.0, 2]}
    )
    assert statistics.best(nothing, "loss").dataset["rate"].item() == 2


def test_subsets_are_one_where_one_is_wanted():
    kinds = {"loss": (np.dtype("float32"), True)}
    for names, expected in ((["a", "b"], 3.0), (["a", "all"], 4.0)):
        dataset = results.empty(["bp"], {}, [0], [1.0, 2.0], kinds, names)
        where = (np.array([0]), np.array([0]))
        values = np.array([[[2.0, 4.0], [2.0, 4.0]]])
        results.record(dataset, where, 0, {"loss": values})
        found = statistics.over_subsets(dataset["loss"])
        assert found.values.ravel().tolist() == [expected] * 2
        assert statistics.over_subsets(found) is found
    assert statistics.best(dataset, "loss").dataset.sizes["arm"] == 1


def test_coarse_bins_are_means_at_the_place_of_the_last():
    values = np.random.default_rng(0).uniform(size=(2, 3, 5))
    dataset = study(values)
    coarse = statistics.coarse(dataset, "loss", 2)
    np.testing.assert_array_equal(coarse["step"], [30.0, 50.0])
    expected = values[..., 1:].reshape(2, 3, 2, 2).mean(-1)
    np.testing.assert_allclose(coarse["loss"], expected, rtol=1e-6)
    assert statistics.coarse(dataset, "loss", 1) is dataset
    halves = statistics.coarse(dataset, "loss", 100)  # a first and a last at least
    np.testing.assert_array_equal(halves["step"], [30.0, 50.0])
