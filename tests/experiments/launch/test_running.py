"""A study from a call: what runs, what is changed, and what is refused."""

import shutil

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

import experiments
from experiments import __main__ as directories
from experiments.launch import problems, running
from experiments.methods.plugin import Plugin
from experiments.methods.table import PLUGINS
from loplax.studies import merging, results

pytestmark = pytest.mark.usefixtures("quick_compile")
NAME = "slowly_changing_regression"
# In both an arm for each rate; the other number is that of one method.
RATES = {"learning_rate": [0.01, 0.001]}
SWEEP = RATES | {"l2_init.strength": np.array([0.0, 0.1])}


def run(methods="linear", told=(), **changes):
    """A study of a second, in memory if nothing else is said."""
    sizes = {"seeds": 2, "examples": 80, "bin": 20, "unroll": 1}
    sizes |= {"stream.period": 10, "progress": False, "observe": ()}
    return experiments.run(
        NAME, "smoke", methods=methods, on_segment=told, **(sizes | changes)
    )


# What runs.


def test_results_are_those_of_the_sweep(finished):
    """Each method with its own numbers, in every setting that it uses."""
    found = results.load(finished[0])
    assert dict(found["loss"].sizes) == {"arm": 4, "seed": 2, "bin": 4}
    assert list(found["method"].values) == ["bp", "bp", "linear", "linear"]
    assert list(found["learning_rate"].values) == [0.01, 0.001] * 2
    assert list(found["step"].values) == [20, 40, 60, 80]
    assert not found["diverged"].any()
    assert np.isfinite(found["loss"]).all()
    linear = found["arm"].str.startswith("linear")
    assert np.isnan(found["dead"].sel(arm=linear)).all()
    losses = found["loss"].values.reshape(8, 4)
    assert np.unique(losses, axis=0).shape == losses.shape


@pytest.fixture(scope="module")
def swept(tmp_path_factory, quick_compile):
    """A folder with a study of two methods and two swept numbers, and its results."""
    folder = tmp_path_factory.mktemp("swept") / "study"
    return folder, run("linear,l2_init", sweep=SWEEP, workdir=folder)


def test_a_number_gives_arms_to_the_methods_that_use_it(swept):
    found = swept[1].dataset
    assert list(found["method"].values) == ["linear"] * 2 + ["l2_init"] * 4
    strength = found["l2_init.strength"].values
    np.testing.assert_array_equal(strength, [np.nan] * 2 + [0, 0, 0.1, 0.1])
    assert len(set(found["arm"].values)) == 6


def test_order_changes_no_numbers(swept):
    """That of methods, of swept numbers and of their values."""
    sweep = {name: SWEEP[name][::-1] for name in reversed(SWEEP)}
    found = run(["l2_init", "linear"], sweep=sweep).dataset
    expected = swept[1].dataset
    assert list(found["arm"].values) != list(expected["arm"].values)
    xarray.testing.assert_identical(found.sel(arm=expected["arm"]), expected)


def test_a_finished_study_is_not_computed_again(swept, files):
    folder, expected = swept
    before, told = files(folder), []
    found = run("linear,l2_init", told.append, sweep=SWEEP, workdir=folder)
    assert not told and files(folder) == before
    xarray.testing.assert_identical(found.dataset, expected.dataset)


def test_a_study_grows(swept, tmp_path):
    """Only what is new is computed: a seed with two rates, and three with another."""
    folder = shutil.copytree(swept[0], tmp_path / "study")
    told, rates = [], {"learning_rate": [0.1, 0.001, 0.01]}
    found = run(told=[told.append], sweep=rates, seeds=3, workdir=folder).dataset
    runs = {each.unit: (each.method, each.runs) for each in told}
    assert [name for name, _ in runs.values()] == ["linear"] * len(runs)
    assert sum(number for _, number in runs.values()) == 2 + 3
    expected = swept[1].dataset["loss"][:2]
    both = found["loss"].sel(arm=expected["arm"], seed=[0, 1])
    np.testing.assert_array_equal(both, expected)


def test_a_step_of_the_run_follows_its_length(small):
    """Half of it, unless it is set; one that the run does not reach is refused."""
    name, address = "plasticity_injection", "plasticity_injection.injection_step"

    def step(**new):
        config = small(**new)
        study = problems.part(NAME, "study").make(config)
        return study.method(config, name).hparams[address]

    assert [step(examples=number) for number in (40, 80, 200)] == [20, 40, 100]
    assert step(plasticity_injection__injection_step=79) == 79
    for value in (80, 1_000):
        with pytest.raises(ValueError, match=f"{address} is {value}.* 1 to 79"):
            step(plasticity_injection__injection_step=value)
        with pytest.raises(ValueError, match=f"{address} is {value}.* 1 to 79"):
            step(sweep__plasticity_injection__injection_step=(value,))


@pytest.mark.parametrize("bins", [(6, 10), (4, 7), (5, 10)])
def test_a_longer_run_goes_on_whatever_the_lengths(tmp_path, bins):
    """Where segments of the longer one would not end where the shorter one does."""
    lengths, told = [{"examples": 20 * number, "seeds": 1} for number in bins], []
    run(**lengths[0], workdir=tmp_path, keep_states=True)
    found = run(told=[told.append], **lengths[1], workdir=tmp_path).dataset
    assert min(each.step for each in told) > 20 * bins[0]
    expected = run(**lengths[1]).dataset
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)


def test_hooks_are_told_the_means():
    told = []
    found = run(told=[told.append]).dataset
    assert [each.method for each in told] == ["linear"] * 4
    assert [each.step for each in told] == [20, 40, 60, 80]
    losses = [each.metrics["loss"] for each in told]
    np.testing.assert_allclose(losses, found["loss"][0].mean("seed"), rtol=1e-5)


def test_overwriting_starts_another_study(finished, small, launched, tmp_path):
    copy = shutil.copytree(finished[0], tmp_path / "study")
    config = small(methods=("linear",), seeds=1, stream__flip="one")
    with pytest.raises(ValueError, match="holds another study.*flip"):
        launched(copy, NAME, config)
    found = launched(copy, NAME, config, overwrite=True)
    assert dict(found["loss"].sizes) == {"arm": 1, "seed": 1, "bin": 4}
    assert not found["diverged"].any() and np.isfinite(found["loss"]).all()


def test_how_a_study_runs_is_no_part_of_what_it_computes(small):
    study = problems.part(NAME, "study").make(small())
    fixed = lambda **new: running.fixed(small(**new), study)
    how = {"runs_per_block": 2, "unroll": 3, "checkpoint_seconds": 1.0}
    assert fixed(platform="cpu", keep_states=True, **how) == fixed()
    of_runs = {"seeds": 7, "methods": ("bp,cbp",), "examples": 40, "optimizer": "adam"}
    assert fixed(cbp__decay_rate=0.5, learning_rate=1.0, **of_runs) == fixed()
    assert fixed(sweep__learning_rate=(0.5,), stream__beta=0.6) == fixed()
    assert fixed(observe=("weights,features",)) == fixed()
    for other in ({"stream__flip": "one"}, {"seed": 1}, {"hidden": (3,)}):
        assert fixed(**other) != fixed()


# What is changed.


def changed(**changes):
    config = problems.part(NAME, "config").get_config("smoke")
    running.change(config, changes)
    return config


def test_settings_are_changed_by_address_and_nested():
    found = changed(stream={"period": 500, "beta": 0.5}, **{"cbp.decay_rate": 0.25})
    assert (found.stream.period, found.stream.beta) == (500, 0.5)
    assert (found.cbp.decay_rate, found.stream.inputs) == (0.25, 20)


@pytest.mark.parametrize("of", [np.float32, np.float64, jnp.float32, np.asarray])
def test_numbers_of_numpy_and_jax_are_numbers(of):
    assert changed(learning_rate=of(0.5)).learning_rate == 0.5
    assert changed(hidden=np.array([4, 3])).hidden == (4, 3)
    assert changed(seeds=np.int64(7)).seeds == 7


def test_presets_and_methods_have_defaults(monkeypatch):
    asked = []
    keep = lambda *given, **how: asked.append((given, how))
    monkeypatch.setattr(running, "launch", keep)
    for methods in ((), [], "cbp,bp", ("cbp", "bp"), ["cbp,bp"]):
        experiments.run(NAME, methods=methods, sweep={"learning_rate": 0.5})
    usual = problems.part(NAME, "config").get_config("paper")
    for (problem, config, workdir), how in asked:
        assert (problem, workdir, how["preset"]) == (NAME, None, "paper")
        assert config.seeds == 100 and config.sweep.learning_rate == (0.5,)
    methods = [given[1].methods for given, _ in asked]
    assert methods == [usual.methods] * 2 + [("cbp", "bp")] * 3


UNKNOWN = [
    ({"lerning_rate": 1.0}, "setting 'lerning_rate'; did you mean 'learning_rate'"),
    ({"stream": {"perod": 1}}, "'stream.perod'; did you mean 'stream.period'"),
    ({"cbp.decay": 1.0}, "'cbp.decay'; did you mean 'cbp.decay_rate'"),
    ({"cbp": 3}, "setting 'cbp'; cbp has budget, decay_rate, "),
    ({"sweep": {"cbp.rate": [1]}}, "'sweep.cbp.rate'; cbp has budget, "),
    ({"sweep": {"l2.strength": [1]}}, "'sweep.l2.strength'; l2 has weight_decay$"),
    ({"sweep": {"layer_norm.x": [1]}}, "'sweep.layer_norm.x'; layer_norm has none$"),
    ({"sweep": {"sedes": [1, 2]}}, "'sweep.sedes'$"),
    ({"sweep": {"seeds": [1, 2]}}, "seeds is a setting that is not swept: run the"),
    ({"sweep": {"activation": ["relu"]}}, "activation is a setting that is not swept"),
    ({"cbp.replacement_rate": True}, "rate' must be such as 0.0001, got True"),
    ({"sweep": {"cbp.replacement_rate": [True]}}, "takes finite numbers only, got Tr"),
    ({"methods": ""}, "methods must be one of .*, got ''"),
    ({"sweep": {"cbp.replacment_rate": [1]}}, "mean 'sweep.cbp.replacement_rate'"),
    ({"sweep": {"learning_rate": ["fast"]}}, "learning_rate.*'fast'"),
    ({"seeds": 2.5}, "'seeds' must be such as 3, got 2.5"),
    ({"bin": "20"}, "'bin' must be such as 2000, got '20'"),
    ({"hidden": 4}, r"'hidden' must be such as \(5,\), got 4"),
    ({"seeds": True}, "seeds"),
    ({"learning_rate": None}, "learning_rate"),
    ({"methods": "bp,cpb"}, "methods.*'cpb'; did you mean 'cbp'"),
    ({"methods": "bp+cpb"}, "methods.*'cpb'; did you mean 'cbp'"),
    ({"methods": "cbp+redo"}, "cbp and redo both claim replacement"),
    ({"methods": "ema"}, "ema is tested, and this problem tests nothing"),
]


@pytest.mark.parametrize(("changes", "match"), UNKNOWN, ids=lambda x: str(x)[:50])
def test_mistypes_are_answered_with_the_nearest_name(changes, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        run(workdir=tmp_path / "study", **changes)
    assert not (tmp_path / "study").exists()


def test_unknown_problems_and_presets_are_refused():
    with pytest.raises(ValueError, match=f"problem.*did you mean '{NAME}'"):
        experiments.run("slowly_changing_regresion")
    with pytest.raises(ValueError, match="preset.*'smok'; did you mean 'smoke'"):
        experiments.run(NAME, "smok")
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        _ = experiments.rum


RATE_OF_CBP = (-1.0, 2.0, float("nan"), float("inf"))
BAD = [
    ({"methods": ("bp", "cpb")}, "did you mean 'cbp'"),
    ({"methods": ()}, "methods"),
    ({"methods": ("bp", "bp")}, "differ"),
    ({"methods": (3,)}, "methods.*'3'"),
    ({"optimizer": "sdg"}, "optimizer.*did you mean 'sgd'"),
    ({"observe": ("wieghts",)}, "observe.*'wieghts'"),
    ({"learning_rate": -0.1}, "learning_rate.*-0.1"),
    ({"learning_rate": float("nan")}, "learning_rate.*nan"),
    ({"learning_rate": float("inf")}, "learning_rate.*inf"),
    ({"sweep__learning_rate": (0.1, float("nan"))}, "learning_rate.*nan"),
    ({"sweep__learning_rate": (0.1, -1)}, "learning_rate.*-1"),
    ({"sweep__learning_rate": (0.1, 0.1)}, "learning_rate.*repeated"),
    ({"sweep__learning_rate": ("fast",)}, "fast"),
    ({"sweep__cbp__replacement_rate": (0.1,)}, "cbp.replacement_rate"),  # of none here
    ({"sweep__stream__beta": (0.5, float("inf"))}, "beta.*inf"),
    (
        {
            "methods": ("plasticity_injection",),
            "sweep__plasticity_injection__injection_step": (1.5,),
        },
        "step.*1.5",
    ),
    (
        {
            "methods": ("input_normalization",),
            "sweep__input_normalization__decay_rate": (2,),
        },
        "decay_rate.*2",
    ),
    (
        {"methods": ("hare_tortoise",), "hare_tortoise__decay_rate": 2.0},
        "decay_rate.*2",
    ),
    ({"methods": ("redo",), "redo__period": 0}, "period"),
    ({"methods": ("l2",), "l2__weight_decay": -1.0}, "weight_decay"),
    ({"optimizer": "adam", "adam__b1": 1.0}, "b1"),
    ({"optimizer": "adam", "sweep__adam__b2": (1.5,)}, "b2"),
    ({"optimizer": "momentum", "momentum__momentum": 1.0}, "momentum"),
    ({"methods": ("cbp",), "cbp__utility": "contribition"}, "mean 'contribution'"),
    ({"methods": ("cbp",), "cbp__budget": "al"}, "budget.*'all'"),
    ({"methods": ("cbp",), "cbp__maturity_threshold": -1}, "maturity_threshold.*-1"),
    *(
        ({"methods": ("cbp",), f"{of}cbp__replacement_rate": rate}, "replacement_rate")
        for bad in RATE_OF_CBP
        for of, rate in (("", bad), ("sweep__", (bad,)))
    ),
    ({"methods": ("l2",), "sweep__cbp__decay_rate": (0.9,)}, "add one with cbp"),
    ({"seeds": 0}, "seeds.*0"),
    ({"seed": -1}, "seed.*-1"),
    ({"seed": 2**70}, "seed"),
    ({"unroll": -1}, "unroll"),
    ({"runs_per_block": -1}, "runs_per_block"),
    ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds"),
    ({"platform": "gpx"}, "platform.*'gpx'"),
]


@pytest.mark.parametrize(("changes", "match"), BAD, ids=lambda x: str(x)[:50])
def test_bad_input_is_refused_before_anything_is_written(
    changes, match, small, tmp_path
):
    config = small(**changes)
    with pytest.raises(ValueError, match=match):
        running.launch(NAME, config, tmp_path / "study", preset="smoke", progress=False)
    assert not (tmp_path / "study").exists()


def test_a_users_plugin_is_known_by_its_code(tmp_path, monkeypatch):
    """Old results are not taken for those of what it has become."""

    def plugin(size):
        scaled = lambda inner, setting, rate: optax.chain(inner, optax.scale(size))
        mine = Plugin("mine", "#123456", {"rate": 1.0}, wrap=scaled)
        monkeypatch.setitem(PLUGINS, "mine", mine)

    plugin(0.5)
    first = run("mine", workdir=tmp_path).dataset
    plugin(0.5)
    xarray.testing.assert_identical(run("mine", workdir=tmp_path).dataset, first)
    plugin(0.1)
    with pytest.raises(ValueError, match="another method 'mine': code of mine"):
        run("mine", workdir=tmp_path)
    again = run("mine", workdir=tmp_path, overwrite=True).dataset
    assert np.any(again["loss"] != first["loss"])


def test_shards_are_computed_and_put_together(swept, tmp_path):
    """By seeds, settings and methods; the command then computes nothing."""
    how = {"sweep": SWEEP, "workdir": tmp_path, "runs_per_block": 4}
    parts = [run("linear,l2_init", shard=f"{i}/2", **how) for i in (1, 2)]
    assert sum(int((part.dataset["bins_asked"] > 0).sum()) for part in parts) == 12
    assert parts[0].workdir == tmp_path / "shards" / "1-of-2"
    assert "unfinished" not in parts[0].table()
    assert ", 8 of 12 runs, 100% done: " in directories._line(parts[0].workdir)
    with pytest.raises(ValueError, match="put them together first"):
        run("linear,l2_init", **how)
    merging.merge(tmp_path, [part.workdir for part in parts])
    told = []
    found = run("linear,l2_init", told=[told.append], **how)
    assert not told
    xarray.testing.assert_allclose(found.dataset, swept[1].dataset, rtol=1e-5)
    for bad in ("0/2", "3/2", "a/b"):
        with pytest.raises(ValueError, match="must be one of 1/n to n/n"):
            run(shard=bad, workdir=tmp_path / "new")
    assert not (tmp_path / "new").exists()
