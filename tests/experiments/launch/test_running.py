"""What the programs of all experiments share: the sweep of a configuration."""

import shutil

import jax
import numpy as np
import pytest

from experiments.launch import launching
from loplax.studies import results

pytestmark = pytest.mark.usefixtures("quick_compile")
NAME = "slowly_changing_regression"


def test_results_are_those_of_the_sweep(finished):
    """Each method with its own numbers, in every setting that it uses."""
    found = results.load(finished[0])
    sizes = {"method": 2, "setting": 2, "seed": 2, "bin": 4}
    assert dict(found["loss"].sizes) == sizes
    assert list(found["learning_rate"].values) == [0.01, 0.001]
    assert list(found["step"].values) == [20, 40, 60, 80]
    assert not found["diverged"].any()
    assert np.isfinite(found["loss"]).all()
    assert np.isnan(found["dead"].sel({"method": "linear"})).all()
    losses = found["loss"].values.reshape(8, 4)
    assert np.unique(losses, axis=0).shape == losses.shape


def test_overwriting_starts_another_study(finished, small, launched, tmp_path):
    copy = shutil.copytree(finished[0], tmp_path / "study")
    config = small(methods=("linear",), seeds=1, optimizer="adam", stream__flip="one")
    found = launched(copy, NAME, config, overwrite=True)
    assert dict(found["loss"].sizes) == {"method": 1, "setting": 1, "seed": 1, "bin": 4}
    assert not found["diverged"].any() and np.isfinite(found["loss"]).all()


def test_how_a_study_runs_is_no_part_of_what_it_computes(small):
    how = {"max_runs": 5, "runs_per_block": 2, "unroll": 3, "checkpoint_seconds": 1.0}
    fields = launching.scientific(small(platform="cpu", **how))
    assert fields == launching.scientific(small())
    one_word = small(methods=("bp,linear",), observe=("weights,features",))
    assert fields == launching.scientific(one_word)
    assert fields != launching.scientific(small(stream__beta=0.6))


def test_table_has_first_and_last_bin(finished):
    dataset = results.load(finished[0])
    lines = launching.table(dataset, "loss").splitlines()
    assert "first 20 examples" in lines[0] and "last 20" in lines[0]
    assert "learning_rate" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["bp", "bp", "linear", "linear"]
    means = dataset["loss"].mean("seed").stack(row=["method", "setting"])
    for line, (first, last) in zip(lines[1:], means[[0, -1]].values.T, strict=True):
        assert f"{first:.3f} [" in line and f"{last:.3f} [" in line


@pytest.mark.filterwarnings("error")
def test_table_of_what_has_no_value_yet(finished):
    """One line a method and setting, also where a run diverges in between."""
    dataset = results.load(finished[0])
    dataset["late"] = dataset["loss"].where(dataset["bin"] > 0)
    dataset["bins_sound"].values[0, 0, 0], dataset["diverged"].values[0, 0, 0] = 2, True
    lines = launching.table(dataset, "late").splitlines()
    assert len(lines) == 5
    assert all(" - " in line for line in lines[1:])
    assert "nan" not in "".join(lines)
    assert lines[1].split()[2] == "1" and lines[2].split()[2] == "0"


def test_table_of_one_bin(finished):
    dataset = results.load(finished[0]).isel(bin=[0], setting=[0])
    lines = launching.table(dataset.drop_vars("learning_rate"), "loss").splitlines()
    assert len(lines) == 3
    assert "first 20 examples" in lines[0] and "last" not in lines[0]


def test_table_of_several_bins_at_a_time(finished):
    dataset = results.load(finished[0])
    lines = launching.table(dataset, "loss", every=2).splitlines()
    assert "first 40 examples" in lines[0] and "last 40" in lines[0]
    for bins in (slice(0, 2), slice(2, 4)):
        mean = dataset["loss"][0, 0, :, bins].mean().item()
        assert f"{mean:.3f} [" in lines[1]


def test_unknown_platforms_are_refused():
    with pytest.raises(ValueError, match="platform.*'gpx'"):
        launching.devices("gpx")


def test_the_compiler_takes_its_options():
    options = launching.compiler_options(jax.devices("cpu")[0])
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1.0) == 2.0


RATES = (-1.0, 2.0, float("nan"), float("inf"))
BAD = [
    ({"methods": ("bp", "cpb")}, "did you mean 'cbp'"),
    ({"methods": ()}, "methods"),
    ({"methods": ("bp", "bp")}, "differ"),
    ({"methods": (3,)}, "methods.*'3'"),
    ({"optimizer": "sdg"}, "optimizer.*did you mean 'sgd'"),
    ({"optimizer": "upgd"}, "optimizer.*'upgd'"),
    ({"observe": ("wieghts",)}, "observe.*'wieghts'"),
    ({"learning_rate": -0.1}, "learning_rate.*-0.1"),
    ({"learning_rate": float("nan")}, "learning_rate.*nan"),
    ({"learning_rate": float("inf")}, "learning_rate.*inf"),
    ({"sweep__learning_rate": (0.1, float("nan"))}, "learning_rate.*nan"),
    ({"sweep__learning_rate": (0.1, -1)}, "learning_rate.*-1"),
    ({"sweep__learning_rate": (0.1, 0.1)}, "learning_rate.*repeated"),
    ({"sweep__learning_rate": ("fast",)}, "fast"),
    ({"sweep__replacement_rate": (0.1,)}, "replacement_rate"),  # of no method here
    ({"methods": ("plasticity_injection",), "sweep__injection_step": ("a",)}, "'a'"),
    (
        {"methods": ("plasticity_injection",), "sweep__injection_step": (1.5,)},
        "step.*1.5",
    ),
    ({"methods": ("input_normalization",), "sweep__decay_rate": (2,)}, "decay_rate.*2"),
    (
        {"methods": ("hare_tortoise",), "hare_tortoise__decay_rate": 2.0},
        "decay_rate.*2",
    ),
    ({"methods": ("redo",), "redo__period": 0}, "period"),
    ({"methods": ("l2",), "l2__weight_decay": -1.0}, "weight_decay"),
    ({"optimizer": "adam", "adam__b1": 1.0}, "b1"),
    ({"optimizer": "adam", "sweep__b2": (1.5,)}, "b2"),
    ({"optimizer": "momentum", "momentum__momentum": 1.0}, "momentum"),
    ({"methods": ("cbp",), "cbp__utility": "contribition"}, "mean 'contribution'"),
    ({"methods": ("cbp",), "cbp__budget": "al"}, "budget.*'all'"),
    ({"methods": ("cbp",), "cbp__maturity_threshold": -1}, "maturity_threshold.*-1"),
    ({"methods": ("cbp",), "cbp__decay_rate": 1.0}, "decay_rate"),
    *(
        ({"methods": ("cbp",), "cbp__replacement_rate": rate}, "replacement_rate")
        for rate in RATES
    ),
    *(
        ({"methods": ("cbp",), "sweep__replacement_rate": (rate,)}, "replacement_rate")
        for rate in RATES
    ),
    ({"methods": ("cbp",), "sweep__replacement_rate": ("a",)}, "'a'"),
    ({"seeds": 0}, "seeds.*0"),
    ({"seed": -1}, "seed.*-1"),
    ({"seed": 2**70}, "seed"),
    ({"unroll": -1}, "unroll"),
    ({"runs_per_block": -1}, "runs_per_block"),
    ({"max_runs": -1}, "max_runs"),
    ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds"),
]


@pytest.mark.parametrize(("changes", "match"), BAD, ids=lambda x: str(x)[:50])
def test_bad_input_is_refused_before_anything_is_written(
    changes, match, small, launched, tmp_path
):
    with pytest.raises(ValueError, match=match):
        launched(tmp_path / "study", NAME, small(**changes))
    assert not (tmp_path / "study").exists()
