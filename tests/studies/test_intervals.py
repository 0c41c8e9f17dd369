"""Intervals cover as often as their docstrings say, and are those of the books."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loplax.studies import intervals

SAMPLES = 20_000


def sample(kind, runs):
    """Samples, and the mean of what they are drawn from."""
    drawn = np.random.default_rng(runs).normal(size=(SAMPLES, runs))
    return (drawn, 0.0) if kind == "normal" else (np.exp(drawn), np.exp(0.5))


def coverage(low, high, truth):
    return np.mean((low <= truth) & (truth <= high))


def students(values):
    error = values.std(-1, ddof=1) / np.sqrt(values.shape[-1])
    t = stats.t.ppf(0.975, values.shape[-1] - 1)
    return values.mean(-1) - t * error, values.mean(-1) + t * error


# The docstring's table, less three standard errors of 20,000 samples.
LEAST = {
    "normal": {3: 0.95, 5: 0.95, 10: 0.95, 30: 0.95},
    "lognormal": {3: 0.88, 5: 0.89, 10: 0.91, 30: 0.93},
}


@pytest.mark.parametrize("runs", [3, 5, 10, 30])
@pytest.mark.parametrize("kind", ["normal", "lognormal"])
def test_intervals_of_the_mean_cover(kind, runs):
    """No less than the docstring says; and of normal runs not much more than 95%."""
    values, truth = sample(kind, runs)
    _, low, high = intervals.mean(values)
    assert LEAST[kind][runs] < coverage(low, high, truth) < 0.975


@pytest.mark.parametrize("runs", [3, 5, 10, 30])
def test_students_interval_would_not_cover(runs):
    """What the stretch is for: the test above can tell the difference."""
    values, truth = sample("lognormal", runs)
    assert coverage(*students(values), truth) < LEAST["lognormal"][runs] - 0.03


def test_percentile_bootstrap_would_not_cover():
    values, truth = sample("normal", 5)
    rng = np.random.default_rng(0)
    picked = rng.integers(5, size=(500, 400, 5))
    means = values[:500][np.arange(500)[:, None, None], picked].mean(-1)
    assert coverage(*np.quantile(means, [0.025, 0.975], axis=-1), truth) < 0.9


def test_intervals_without_skew_are_students():
    values = np.array([[-1.0, 0, 1, np.nan, np.nan], [1, 2, 3, 4, 5]])
    _, low, high = intervals.mean(values, 0.9)
    for i, n in ((0, 3), (1, 5)):
        row = values[i, :n]
        expected = stats.t.interval(0.9, n - 1, row.mean(), stats.sem(row))
        np.testing.assert_allclose((low[i], high[i]), expected)


runs = st.lists(st.integers(-50, 50).map(float), min_size=3, max_size=12)


@given(runs, st.integers(-9, 9), st.sampled_from([0.01, 2.0, 1e6]))
def test_intervals_follow_their_values(values, shift, scale):
    """Moved, scaled, mirrored, in another order, beside a run without a value."""
    values = np.array(values)
    mean, low, high = intervals.mean(values)
    assert low <= mean <= high
    low_t, high_t = students(values)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert low <= low_t + slack and high >= high_t - slack  # never narrower
    moved = intervals.mean(np.append((values * scale + shift)[::-1], np.nan))
    expected = np.array([mean, low, high]) * scale + shift
    np.testing.assert_allclose(moved, expected, rtol=1e-6, atol=1e-6 * scale)
    mirrored = intervals.mean(-values)
    np.testing.assert_allclose(mirrored, [-mean, -high, -low], rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_too_few_runs_have_no_interval():
    values = np.array([[np.nan] * 3, [2, np.nan, np.nan], [1, np.nan, 5], [4, 4, 4]])
    mean, low, high = intervals.mean(values)
    np.testing.assert_array_equal(mean, [np.nan, 2, 3, 4])
    np.testing.assert_array_equal(low, [np.nan] * 3 + [4])
    np.testing.assert_array_equal(high, [np.nan] * 3 + [4])
    assert np.isnan(intervals.mean(np.zeros([2, 0]))).all()


@pytest.mark.filterwarnings("error")
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=25), st.integers(0, 3))
def test_the_interquartile_mean_is_that_of_scipy(values, missing):
    runs = np.append(np.array(values, float), [np.nan] * missing)
    mean, low, high = intervals.interquartile_mean(runs)
    if len(values) < 10:
        assert np.isnan([mean, low, high]).all()
    else:
        assert mean == pytest.approx(stats.trim_mean(values, 0.25))
        assert low <= mean <= high


@pytest.mark.parametrize("runs", [10, 11, 30])
def test_intervals_of_the_interquartile_mean_cover(runs):
    middle = stats.norm.ppf(np.linspace(0.25, 0.75, 20_001))
    for kind, truth in (("normal", 0.0), ("lognormal", np.exp(middle).mean())):
        values, _ = sample(kind, runs)
        _, low, high = intervals.interquartile_mean(values)
        assert 0.92 < coverage(low, high, truth) < 0.96


@pytest.mark.parametrize("trials", [3, 5, 10, 30])
def test_intervals_of_a_probability_cover_whatever_it_is(trials):
    counts = np.arange(trials + 1)
    share, low, high = intervals.proportion(counts, np.full(trials + 1, trials))
    np.testing.assert_allclose(share, counts / trials)
    for k in counts:
        expected = stats.binomtest(int(k), trials).proportion_ci(method="exact")
        np.testing.assert_allclose((low[k], high[k]), expected, atol=1e-12)
    for truth in np.linspace(0, 1, 101):
        inside = (low <= truth) & (truth <= high)
        assert stats.binom.pmf(counts, trials, truth)[inside].sum() >= 0.95


def test_halves_count_against_both_ends():
    _, low, high = intervals.proportion(np.array([2.5, 2, 3]), np.full(3, 5))
    assert (low[0], high[0]) == (low[1], high[2])


@pytest.mark.filterwarnings("error")
def test_few_trials_have_no_interval():
    found = intervals.proportion(np.array([0, 1, 1]), np.array([0, 1, 2]))
    np.testing.assert_array_equal(found[0], [np.nan, 1, 0.5])
    assert np.isnan(found[1]).all() and np.isnan(found[2]).all()


@pytest.mark.parametrize("confidence", [95, 0, 1, -0.5, np.nan])
def test_confidence_is_checked(confidence):
    with pytest.raises(ValueError, match=f"confidence is {confidence}"):
        intervals.mean(np.zeros(3), confidence)
