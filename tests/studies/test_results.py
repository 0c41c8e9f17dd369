"""Results: labelled, and whole on disk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loplax.studies import results


def new(num_seeds=3, num_bins=4, metrics=("loss",), **settings):
    types = {name: (np.dtype("float32"), False) for name in metrics}
    steps = np.arange(1.0, num_bins + 1)
    methods = ["bp", "cbp"]
    if settings:
        methods = [name for name in methods for _ in next(iter(settings.values()))]
        settings = {name: [*values, *values] for name, values in settings.items()}
    return results.empty(methods, settings, range(num_seeds), steps, types)


def fill(dataset, values, arm=0, first_bin=0, metric="loss"):
    """Records ``values [seeds, bins]`` of an arm."""
    seeds = np.arange(len(values))
    where = (np.full_like(seeds, arm), seeds)
    results.record(dataset, where, first_bin, {metric: np.asarray(values)})


def test_without_results_it_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results in"):
        results.load(tmp_path)
    (tmp_path / "results").write_text("no folder")
    with pytest.raises(FileNotFoundError, match="no results in"):
        results.load(tmp_path)


def test_forgetting_blanks_the_later_bins():
    dataset = new()
    values = np.ones([3, 4])
    values[1, 3] = np.inf
    fill(dataset, values)
    results.forget(dataset, (np.array([0, 0]), np.array([0, 1])), 2)
    assert dataset["bins_done"].values[0].tolist() == [2, 2, 4]
    assert dataset["loss"][0].notnull().sum("bin").values.tolist() == [2, 2, 4]
    results.forget(dataset, (np.array([0]), np.array([1])), 0)
    assert not dataset["diverged"].any()


@pytest.mark.parametrize("name", ["bin", "step", "diverged", "method", "arm", "subset"])
def test_taken_names_are_refused(name):
    with pytest.raises(ValueError, match=f"{name!r} is taken"):
        new(**{name: [1.0]})
    with pytest.raises(ValueError, match=f"{name!r} is taken"):
        new(metrics=[name])


numbers = st.sampled_from([1.0, 2.0, np.nan, np.inf, -np.inf])
rows = st.lists(numbers, min_size=24, max_size=24)


@given(rows, rows, rows, st.integers(1, 4), st.booleans())
def test_a_run_has_diverged_where_its_loss_is_not_finite(
    loss, change, other, size, aware
):
    """However it is recorded: segment by segment; and forgetting is not having seen."""
    names = ["loss", "weight_change", "other"]
    every = np.reshape([loss, change, other], (3, 6, 4)).astype(np.float32)
    given = dict(zip(names, every, strict=True))
    if not aware:
        del given["weight_change"]
    dataset = new(num_seeds=6, metrics=names)
    cells = (np.zeros(6, int), np.arange(6))

    def enter(start, stop):
        for first in range(start, stop, size):
            part = {
                name: x[:, first : first + size][:, : stop - first]
                for name, x in given.items()
            }
            results.record(dataset, cells, first, part)

    def expect(bins):
        signs = np.isfinite(
            [given[name][:, :bins] for name in names[:2] if name in given]
        )
        sound = [int(np.argmin([*row, False])) for row in signs.all(axis=0)]
        assert dataset["bins_sound"].values[0].tolist() == sound
        assert dataset["diverged"].values[0].tolist() == [n < bins for n in sound]
        seen = results.counting(dataset, "other").values[0]
        for values, row, n in zip(given["other"], seen, sound, strict=True):
            expected = np.where(np.isfinite(values[:n]), values[:n], np.nan)
            np.testing.assert_array_equal(row, [*expected, *[np.nan] * (4 - n)])

    enter(0, 4)
    expect(4)
    results.forget(dataset, cells, 2)
    expect(2)
    enter(2, 4)
    expect(4)


def test_metrics_may_have_a_value_for_each_subset():
    """Beside those that have one value; one that is not finite tells as any other."""
    kinds = {"loss": (np.float32, False), "weight_change": (np.float32, True)}
    dataset = results.empty(["bp"], {}, range(2), [1.0, 2.0], kinds, ["old", "new"])
    change = np.arange(8.0).reshape(2, 2, 2)
    change[1, 1, 0] = np.inf
    where = (np.zeros(2, int), np.arange(2))
    metrics = {"loss": np.ones([2, 2]), "weight_change": change}
    results.record(dataset, where, 0, metrics)
    found = dataset
    assert found["weight_change"].dims == ("arm", "seed", "bin", "subset")
    assert found["weight_change"].sel(arm="bp", seed=0, bin=1, subset="new") == 3
    assert found["bins_sound"].values.tolist() == [[2, 1]]
    counting = results.counting(found, "weight_change")
    assert counting.notnull().sum(["arm", "bin", "subset"]).values.tolist() == [4, 2]
    results.forget(found, where, 1)
    assert found["weight_change"].notnull().sum() == 4


def test_arms_are_named_by_what_they_are():
    """Whatever the order of the swept names; and no two may be the same."""
    names = {"b": [1e-4, np.nan, 1 / 3], "a.x": [2.0, np.nan, 1.0]}
    found = results.empty(["bp", "cbp", "bp"], names, [0], [1.0], {})
    expected = ["bp a.x=2 b=0.0001", "cbp", "bp a.x=1 b=0.3333333333333333"]
    assert found["arm"].values.tolist() == expected
    with pytest.raises(ValueError, match="two arms 'bp'"):
        results.empty(["bp", "bp"], {}, [0], [1.0], {})


def test_any_metric_tells_of_a_learner_without_a_loss():
    dataset = new(metrics=["place"])
    fill(dataset, [[1.0, 1.0], [1.0, np.inf], [np.nan, 1.0]], metric="place")
    assert dataset["bins_sound"].values[0].tolist() == [2, 1, 0]
