"""Results seen otherwise."""

import numpy as np
import pytest
import xarray

from loplax.studies import results, views

NAN = np.nan


def made(arms, subsets, **metrics):
    """Results of two seeds and bins; each metric ``[arms, bins, subsets]``."""
    per_subset = (np.dtype("float32"), True)
    kinds = {name: per_subset for name in metrics if name != "task"}
    kinds |= {"task": (np.dtype("float32"), False)}
    found = results.empty(arms, {}, [0, 1], [10.0, 20.0], kinds, subsets)
    found["bins_done"][:] = found["bins_sound"][:] = 2
    for name, values in metrics.items():
        dims = ("arm", "bin", "subset")[: np.ndim(values)]
        found[name][:] = xarray.DataArray(values, dims=dims)
    return found


def test_what_is_tested_beside_becomes_an_arm():
    """Of those arms only that have it, and with all its measures."""
    nothing = np.full((2, 2), NAN)
    plain = np.arange(8.0).reshape(2, 2, 2)
    found = made(
        ["bp", "er+ema"],
        ["0", "1"],
        test_loss=plain,
        test_accuracy=plain + 1,
        ema_loss=np.stack([nothing, plain[1] + 2]),
        ema_accuracy=np.stack([nothing, plain[1] + 3]),
        ema_accuracy_start=np.stack([nothing, plain[1] + 4]),
        test_accuracy_start=plain,
        task=np.zeros((2, 2)),
    ).drop_vars(["ema_accuracy_start", "test_accuracy_start"])
    seen = views.evaluated(found)
    assert seen["arm"].values.tolist() == ["bp", "er+ema", "er+ema (ema)"]
    assert seen["method"].values.tolist() == ["bp", "er+ema", "er+ema (ema)"]
    for name, shift in (("test_loss", 2), ("test_accuracy", 3)):
        values = seen[name].sel(arm="er+ema (ema)", seed=1).values
        np.testing.assert_array_equal(values, plain[1] + shift)
        xarray.testing.assert_equal(seen[name][:2], found[name])
    assert not [name for name in seen if str(name).startswith("ema")]
    assert views.evaluated(seen).equals(seen)


def test_nothing_beside_changes_nothing():
    found = made(["bp"], ["0", "1"], test_accuracy=np.ones((1, 2, 2)))
    assert views.evaluated(found).equals(found)


def test_tasks_are_first_old_new_and_all():
    values = np.array([[[0.9, 0.1], [0.5, 0.7]]])
    found = made(["bp"], ["0", "1"], test_accuracy=values, task=np.array([[0.0, 1.0]]))
    seen = views.named(found).isel(arm=0, seed=0)
    expected = {"first": [0.9, 0.5], "old": [NAN, 0.5], "new": [0.9, 0.7]}
    for name, value in {**expected, "all": [0.9, 0.6]}.items():
        np.testing.assert_allclose(seen[name].values, value, rtol=1e-6)


def test_subsets_with_these_names_are_themselves():
    names = ["base", "old", "new", "all"]
    values = np.arange(8.0).reshape(1, 2, 4)
    seen = views.named(made(["bp"], names, test_accuracy=values)).isel(arm=0, seed=1)
    for i, name in enumerate(["first", *names[1:]]):
        np.testing.assert_array_equal(seen[name].values, values[0, :, i])
    few = made(["bp"], names[1:], test_accuracy=values[..., 1:])
    assert "first" not in views.named(few)


def test_other_subsets_are_refused():
    found = made(["bp"], ["a", "b"], test_accuracy=np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="must be tasks, or have old, new and all"):
        views.named(found)
