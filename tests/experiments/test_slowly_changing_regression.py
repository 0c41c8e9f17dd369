"""The study as a whole: every method is built and learns; bad input is refused."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import launch, methods
from experiments.slowly_changing_regression import config as configs
from experiments.slowly_changing_regression import run as program
from experiments.slowly_changing_regression import study
from loplax import nets, results, train

QUICK = {
    "methods": ("bp",),
    "seeds": 2,
    "examples": 40,
    "bin": 20,
    "stream__period": 10,
}
LINEAR = 0.88  # published squared error of a linear model, at any time
presets = pytest.mark.parametrize("preset", ["paper", "laptop", "smoke"])


def changed(config, **changes):
    """The configuration with other values; ``a__b`` stands for ``a.b``."""
    for name, value in changes.items():
        *path, last = name.split("__")
        inner = functools.reduce(getattr, path, config)
        with inner.ignore_type():
            inner[last] = value
    return config


def quick(**changes):
    """A study of a second; settings as in `changed`."""
    return changed(configs.get_config("smoke"), **(QUICK | changes))


def launched(workdir, config, overwrite=False):
    options = {"method": study.method, "segments": study.segments(config)}
    devices = jax.devices()[:1]
    return launch.run(workdir, config, devices, overwrite=overwrite, **options)


@presets
def test_presets_are_locked_and_new_at_each_call(preset):
    config = configs.get_config(preset)
    with pytest.raises((AttributeError, KeyError)):
        config.lerning_rate = 0.1
    with pytest.raises((AttributeError, KeyError)):
        config.sweep.lerning_rate = (0.1,)
    config.seeds = 7
    assert configs.get_config(preset).seeds != 7


def test_default_is_the_published_setting():
    config = configs.get_config()
    assert (config.examples, config.bin, config.seeds) == (1_000_000, 20_000, 100)
    assert (config.learning_rate, config.hidden, config.activation) == (
        0.01,
        (5,),
        "relu",
    )
    stream = dict(inputs=20, slow=15, period=10_000, flip="all", units=100, beta=0.7)
    assert config.stream.to_dict() == stream
    assert config.cbp.maturity_threshold == 100
    assert config.cbp.decay_rate == 0.99
    assert config.cbp.utility == "adaptable_contribution"


@presets
def test_presets_build_and_are_not_changed_by_it(preset):
    """Every preset can be run: all methods are traced to the end of a segment."""
    config = configs.get_config(preset)
    before = config.to_json()
    for name in config.methods:
        method = study.method(config, name)
        state = jax.eval_shape(method.learner.init, jax.random.key(0), method.hparams)
        after, found = jax.eval_shape(method.learner.segment, state)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
        assert found["loss"].shape == (study.segments(config)[1],)
    assert config.to_json() == before


@pytest.mark.parametrize(
    ("activation", "flip"),
    [*((name, "all") for name in nets.ACTIVATIONS), ("relu", "one")],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", configs.METHODS)
def test_every_combination_learns_in_shape(name, optimizer, activation, flip):
    """One traced step keeps the types of the state, so that it can be looped over."""
    config = quick(optimizer=optimizer, activation=activation, stream__flip=flip)
    task = study.problem(config, name)
    used = methods.OPTIMIZERS[optimizer] + methods.SETTINGS[name]

    def step(key, hparams):
        state = train.init(task, key, hparams)
        stream, items = task.stream.draw(state.stream)
        state = state._replace(stream=stream)
        return state, train.learn(task, state, items)

    hparams = dict.fromkeys(used, jnp.float32(0.5))
    state, (params, opt, losses) = jax.eval_shape(step, jax.random.key(0), hparams)
    of = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert (of(params), of(opt)) == (of(state.params), of(state.opt))
    assert losses.shape == (10,)


@pytest.mark.usefixtures("quick_compile")
def test_methods_run(tmp_path):
    """With Adam, two layers and single flips: finite, each with its own numbers."""
    config = quick(
        methods=("bp", "linear", "shrink_and_perturb"),
        optimizer="adam",
        activation="tanh",
        hidden=(4, 3),
        stream__flip="one",
    )
    found = launched(tmp_path / "study", config)
    assert list(found["method"].values) == list(config.methods)
    assert not found["diverged"].any()
    assert np.isfinite(found["loss"]).all()
    assert np.isnan(found["dead"].sel({"method": "linear"})).all()
    losses = found["loss"].values.reshape(3, -1)
    assert np.unique(losses, axis=0).shape == losses.shape


@pytest.fixture(scope="module")
def effect(quick_compile):
    """Mean losses of 32 runs in bins of 100,000 examples, per method."""
    jax.config.update("jax_disable_most_optimizations", False)
    config = changed(configs.get_config("laptop"), bin=100_000)
    keys, found = jax.random.split(jax.random.key(0), 32), {}
    for name in ("bp", "cbp"):
        task, method = study.problem(config, name), study.method(config, name)

        def learn(state, _, task=task):
            stream, items = task.stream.draw(state.stream)
            state = state._replace(stream=stream)
            params, opt, losses = train.learn(task, state, items)
            return state._replace(params=params, opt=opt), losses.mean()

        def run(key, task=task, hparams=method.hparams, learn=learn):
            state = train.init(task, key, hparams)
            return jax.lax.scan(learn, state, None, 50)[1]

        losses = jax.jit(jax.vmap(run))(keys)
        found[name] = np.mean(np.asarray(losses).reshape(32, 5, 10), axis=(0, 2))
    jax.config.update("jax_disable_most_optimizations", True)
    return found


def test_backprop_loses_plasticity(effect):
    """First and last: 0.66 to 0.77 and 1.05 to 1.22, over twelve keys of a study."""
    assert effect["bp"][-1] > 1.25 * effect["bp"][0]
    assert effect["bp"][-1] > LINEAR


def test_continual_backprop_keeps_it(effect):
    """First and last: 0.54 to 0.59 and 0.54 to 0.61, over twelve keys of a study."""
    assert effect["cbp"].max() < 1.25 * effect["cbp"][0]
    assert effect["cbp"][-1] < 0.7 * effect["bp"][-1]
    assert effect["cbp"][-1] < 0.8 * LINEAR


BAD = [
    ({"methods": ("bp", "cpb")}, "did you mean 'cbp'"),
    ({"methods": ()}, "methods"),
    ({"methods": ("bp", "bp")}, "differ"),
    ({"optimizer": "sdg"}, "did you mean 'sgd'"),
    ({"activation": "rely"}, "activation.*'rely'"),
    ({"activation": "linear"}, "activation.*'linear'"),
    ({"hidden": (5, 0)}, "hidden"),
    ({"hidden": (), "methods": ("cbp",)}, "no hidden layer"),
    ({"hidden": (), "methods": ("redo",)}, "no hidden layer"),
    ({"cbp__utility": "contribition", "methods": ("cbp",)}, "mean 'contribution'"),
    ({"cbp__maturity_threshold": -1, "methods": ("cbp",)}, "maturity_threshold.*-1"),
    ({"cbp__decay_rate": 1.0, "methods": ("cbp",)}, "decay_rate"),
    ({"learning_rate": -0.1}, "learning_rate.*-0.1"),
    ({"learning_rate": float("nan")}, "learning_rate.*nan"),
    ({"learning_rate": float("inf")}, "learning_rate.*inf"),
    ({"sweep__learning_rate": (0.1, float("nan"))}, "learning_rate.*nan"),
    ({"sweep__learning_rate": (0.1, -1)}, "learning_rate.*-1"),
    ({"sweep__learning_rate": (0.1, 0.1)}, "learning_rate.*repeated"),
    ({"sweep__learning_rate": ("fast",)}, "fast"),
    ({"sweep__replacement_rate": (0.1,)}, "replacement_rate"),  # of no method here
    ({"redo__period": 0, "methods": ("redo",)}, "period"),
    ({"l2__weight_decay": -1.0, "methods": ("l2",)}, "weight_decay"),
    ({"optimizer": "adam", "adam__b1": 1.0}, "b1"),
    ({"optimizer": "adam", "sweep__b2": (1.5,)}, "b2"),
    ({"seeds": 0}, "seeds.*0"),
    ({"seed": -1}, "seed.*-1"),
    ({"seed": 2**70}, "seed"),
    ({"bin": 0}, "bin"),
    ({"bin": -20}, "bin"),
    ({"bin": 30}, "multiple"),
    ({"bin": 8}, "drawn at once"),
    ({"examples": 0}, "examples"),
    ({"examples": 50}, "multiple"),
    ({"unroll": -1}, "unroll"),
    ({"runs_per_block": -1}, "runs_per_block"),
    ({"max_runs": -1}, "max_runs"),
    ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds"),
    ({"stream__flip": "two"}, "flip.*'two'"),
    ({"stream__period": 0}, "period"),
    ({"stream__beta": float("nan")}, "beta"),
]
for rate in (-1.0, 2.0, float("nan"), float("inf"), "a"):
    named = "replacement_rate" if rate != "a" else "'a'"
    for bad in ({"cbp__replacement_rate": rate}, {"sweep__replacement_rate": (rate,)}):
        BAD.append((bad | {"methods": ("cbp",)}, named))


@pytest.mark.parametrize(("changes", "match"), BAD, ids=lambda x: str(x)[:50])
def test_bad_configurations_are_refused_before_anything_is_written(
    changes, match, tmp_path
):
    with pytest.raises(ValueError, match=match):
        launched(tmp_path / "study", quick(**changes))
    assert not (tmp_path / "study").exists()


def test_a_rate_of_zero_is_allowed():
    """A sweep of rates may begin at none."""
    for config in (
        quick(cbp__replacement_rate=0.0),
        quick(sweep__replacement_rate=(0.0, 1e-3)),
    ):
        method = study.method(config, "cbp")
        assert method.hparams["replacement_rate"] == config.cbp.replacement_rate


def test_methods_in_one_word_are_separated():
    config = quick(methods=("bp,linear",))
    assert launch.method_names(config) == ("bp", "linear")
    assert launch.scientific(config)["methods"] == ("bp", "linear")


def test_how_a_study_runs_is_no_part_of_what_it_computes():
    fields = launch.scientific(quick(max_runs=5, runs_per_block=2, unroll=3))
    assert fields == launch.scientific(quick())
    assert fields != launch.scientific(quick(stream__beta=0.6))


def test_steps_are_unrolled_as_configured():
    for unroll in (1, 4):
        method = study.method(quick(unroll=unroll), "bp")
        state = jax.eval_shape(method.learner.init, jax.random.key(0), method.hparams)
        assert f"unroll={unroll}" in str(jax.make_jaxpr(method.learner.segment)(state))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study and the bytes of its files."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    launched(folder, quick())
    return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


def main(monkeypatch, workdir, config, overwrite=False):
    """What the program says at its end, run in this process."""
    for name, value in (("CONFIG", config), ("WORKDIR", workdir)):
        monkeypatch.setattr(program, name, types.SimpleNamespace(value=value))
    flag = types.SimpleNamespace(value=overwrite)
    monkeypatch.setattr(program, "OVERWRITE", flag)
    monkeypatch.setattr(launch, "devices", lambda platform: jax.devices()[:1])
    with pytest.raises(SystemExit) as caught:
        program.main(["run"])
    return caught.value.code


def assert_one_line(message, *words):
    assert message.startswith("error: ")
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


def test_another_config_is_refused_by_name(finished, monkeypatch):
    folder, files = finished
    message = main(monkeypatch, folder, quick(learning_rate=0.5, stream__beta=0.6))
    assert_one_line(message, "learning_rate", "0.01", "0.5", "beta", "0.6")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_workdir_that_is_a_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "notes").write_text("precious")
    for workdir in (tmp_path / "notes", tmp_path / "notes" / "study"):
        assert_one_line(main(monkeypatch, workdir, quick()), "notes")
    assert (tmp_path / "notes").read_text() == "precious"


def test_a_folder_of_other_files_is_not_overwritten(monkeypatch, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    assert_one_line(main(monkeypatch, tmp_path, quick(), overwrite=True), "not")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_workdir_without_permission_is_refused(monkeypatch, tmp_path):
    tmp_path.chmod(0o500)
    try:
        (tmp_path / "probe").mkdir()
    except OSError:
        assert_one_line(main(monkeypatch, tmp_path / "study", quick()), "cannot write")
    else:
        pytest.skip("this user may write everywhere")
    finally:
        tmp_path.chmod(0o700)


def test_bad_input_ends_the_program_with_one_line(monkeypatch, tmp_path):
    for config in (quick(bin=0), quick(seeds=0), quick(activation="rely")):
        assert_one_line(main(monkeypatch, tmp_path / "study", config))
    assert not (tmp_path / "study").exists()


def test_overwriting_starts_anew(finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "study"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    found = launched(copy, quick(seeds=1), overwrite=True)
    assert found.sizes["seed"] == 1


def test_table_has_first_and_last_bin(finished):
    dataset = results.load(finished[0])
    lines = launch.table(dataset, "loss", 20).splitlines()
    assert len(lines) == 2
    assert "first 20 examples" in lines[0] and "last" in lines[0]
    first, last = dataset["loss"].isel(method=0, setting=0).mean("seed").values[[0, -1]]
    assert f"{first:.3f} [" in lines[1] and f"{last:.3f} [" in lines[1]


def test_table_of_one_bin(finished):
    dataset = results.load(finished[0]).isel(bin=[0])
    lines = launch.table(dataset, "loss", 20).splitlines()
    assert len(lines) == 2
    assert "first 20 examples" in lines[0]
