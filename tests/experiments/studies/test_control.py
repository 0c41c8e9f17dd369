"""Studies of reinforcement learning: their settings, a small one, one that crashes.

Run as a program, this file is the small study of one method, on all devices.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import types

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from experiments.launch import devices, program, running
from experiments.methods import composing
from experiments.methods.table import PLUGINS
from experiments.nonstationary_control import config as configs
from experiments.nonstationary_control import plot
from experiments.studies import control, defaults
from loplax import ppo
from loplax.studies import checkpoints, results

pytestmark = pytest.mark.usefixtures("quick_compile")
NAME = "nonstationary_control"
LEFT_OUT = [
    name
    for name, plugin in PLUGINS.items()
    if plugin.sessions or any(getattr(plugin, slot) for slot in composing.OF_STREAMS)
]
METHODS = [
    name
    for name, plugin in PLUGINS.items()
    if name not in LEFT_OUT and plugin.options.keys() <= {*defaults.OPTIONS}
]
ENVS, STEPS = 2, 16
TINY = {
    "environment": "CartPole-v1",
    "methods": ("linear", "cbp"),  # which compiles fast, and which does everything
    "hidden": (4,),
    "num_envs": ENVS,
    "num_steps": STEPS,
    "minibatches": 2,
    "epochs": 1,
    "updates": 12,
    "bin": 2,
    "runs_per_block": 4,
    "period": 80,  # 40 steps of each environment
    "cbp.maturity_threshold": 2,
    "sweep.cbp.replacement_rate": (0.0, 0.1),
}


def test_decay_and_replacement_are_one_method():
    """Though the sections of both set numbers of the optimiser."""
    for name in ("l2+cbp", "cbp+l2", "l2+redo"):
        config = configs.get_config("smoke")
        found = control.make(config).method(config, name).hparams
        assert found["l2.weight_decay"] == config.l2.weight_decay
        first = name.split("+")[0]
        assert found[f"{first}.b1"] == found[f"{first}.b2"] == 0.99


def small_config():
    """Of six bins with 64 steps each, so that no task ends where a bin does."""
    config = configs.get_config("smoke")
    config.update_from_flattened_dict(TINY)
    return config


@pytest.fixture(scope="module")
def tiny(changed):
    """``(a__b=value) -> config``."""
    return lambda **new: changed(small_config(), **new)


# What a configuration means.


def test_the_numbers_are_those_of_ppo_and_of_the_method(tiny):
    """Each at its address; of those that are not the agent's, for each plugin."""
    config = tiny(gamma=0.5, cbp__b2=0.75, adam__b1=0.25)
    study = control.make(config)
    agent = {"gae_lambda": 0.95, "clip": 0.2, "value_weight": 1, "entropy_weight": 0}
    agent |= {"gamma": 0.5, "learning_rate": 3e-3}

    def numbers(name):
        found = study.method(config, name).hparams
        assert {at: found.pop(at) for at in agent} == agent
        return found

    named = lambda name, **own: {f"{name}.{number}": own[number] for number in own}
    assert numbers("bp") == named("adam", b1=0.25, b2=0.999, weight_decay=0.0)
    tuned = {"b1": 0.99, "b2": 0.99}
    expected = named("tuned_adam", weight_decay=0.0, **tuned)
    assert numbers("tuned_adam") == expected
    assert numbers("l2") == named("l2", weight_decay=1e-3, **tuned)
    own = {"replacement_rate": 1e-4, "maturity_threshold": 2, "decay_rate": 0.99}
    own |= {"b1": 0.99, "b2": 0.75, "weight_decay": 1e-4}
    assert numbers("cbp") == named("cbp", **own)
    own = {"threshold": 0.1, "period": 100, "decay_rate": 0.0, "weight_decay": 1e-4}
    assert numbers("redo") == named("redo", **own, **tuned)


CHANGED = {
    "gamma": 0.5,
    "gae_lambda": 0.5,
    "clip": 0.001,
    "value_weight": 0.1,
    "entropy_weight": 0.5,
    "learning_rate": 0.01,
    "cbp.b1": 0.5,
    "cbp.b2": 0.5,
    "cbp.weight_decay": 0.5,
    "cbp.replacement_rate": 0.25,
    "cbp.maturity_threshold": 6,
    "cbp.decay_rate": 0.1,
}


def test_every_number_is_used_and_may_be_traced(tiny):
    """All of them side by side in one program, which learns from random transitions."""
    config = tiny(cbp__replacement_rate=0.5)
    study = control.make(config)
    numbers = study.method(config, "cbp").hparams
    assert numbers.keys() == CHANGED.keys()
    rows = [numbers, *(numbers | {name: new} for name, new in CHANGED.items())]
    build = control.problem(study, config, "cbp")
    key, random = jax.random.key(0), np.random.default_rng(1)
    shape = (STEPS, ENVS)
    seen = {
        "observation": random.normal(size=(*shape, 4)),
        "action": random.integers(0, 2, shape),
        "log_prob": np.log(random.uniform(0.3, 0.7, shape)),
        "reward": random.normal(size=shape),
        "terminated": random.random(shape) < 0.1,
        "truncated": random.random(shape) < 0.1,
        "following": random.normal(size=(*shape, 4)),
    }
    seen = ppo.Transition(**{name: jnp.array(value) for name, value in seen.items()})

    def weights(hparams):
        problem = build(hparams, key, ())
        params = problem.init(key)
        rest = dict.fromkeys(ppo.PPOState._fields)
        state = rest | {"params": params, "opt": problem.tx.init(params), "key": key}

        def update(state, _):
            batch, _ = ppo.estimate(problem, state.params, seen)
            return ppo.learn(problem, state, batch)[0], None

        state, _ = jax.lax.scan(update, ppo.PPOState(**state), None, length=8)
        return jax.flatten_util.ravel_pytree(state.params)[0]

    stacked = {name: jnp.float32([row[name] for row in rows]) for name in numbers}
    same, *others = np.asarray(jax.jit(jax.vmap(weights))(stacked))
    assert np.isfinite(same).all()
    for name, other in zip(CHANGED, others, strict=True):
        assert np.isfinite(other).all()
        assert not np.allclose(same, other, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("name", [*METHODS, "cbp+layer_norm+weight_clipping"])
def test_every_method_learns_in_shape(name, tiny):
    """A segment keeps the types of the state; both networks have units."""
    config = tiny()
    learner, numbers, *_ = control.make(config).method(config, name)
    hparams = dict.fromkeys(numbers, jax.ShapeDtypeStruct((), jnp.float32))
    before = jax.eval_shape(learner.init, jax.random.key(0), hparams, ())
    after, found = jax.eval_shape(learner.segment, before, ())
    assert jax.tree.map(types_of, after) == jax.tree.map(types_of, before)
    layered = name != "linear"
    assert ("dormant" in found, "value_dormant" in found) == (layered, layered)


def types_of(leaf):
    return leaf.shape, leaf.dtype


def test_what_has_no_place_here_is_known():
    """Plugins of the network's inputs, of tasks, and of what is tested."""
    names = ("head_reset", "full_reset", "plasticity_injection", "input_normalization")
    assert {*names, "ema"} <= set(LEFT_OUT)


# The settings of the tasks.


def sequence(config, seeds=3, tasks=4):
    """Parameters of the first tasks of some runs, ``[seeds, tasks, ...]``."""
    study = control.make(config)

    def of_run(key):
        env, params = study.environment(study.numbers)
        params = study.env_params(params, key)
        _, state = env.reset(key, params)

        def begin(task):
            steps = config.period // config.num_envs * task
            ended = state.replace(steps=steps, task=jnp.maximum(task - 1, 0))
            return env.restart(key, ended, params)[1]

        return jax.vmap(begin)(jnp.arange(tasks))

    states = jax.jit(jax.vmap(of_run))(jax.random.split(jax.random.key(0), seeds))
    np.testing.assert_array_equal(states.task, np.tile(np.arange(tasks), (seeds, 1)))
    return jax.tree.map(np.asarray, states.params)


def test_permutations_differ_from_task_to_task_and_from_run_to_run(tiny):
    found = sequence(tiny()).permutation
    np.testing.assert_array_equal(np.sort(found), np.broadcast_to(range(4), (3, 4, 4)))
    np.testing.assert_array_equal(found[:, 0], np.tile(range(4), (3, 1)))
    assert len(np.unique(found[:, 1:].reshape(9, 4), axis=0)) > 5


def test_offsets_are_as_large_as_configured(tiny):
    found = sequence(tiny(change="offset", offset=3.0), tasks=50).offset
    assert (found[:, 0] == 0).all() and len(np.unique(found)) == 3 * 49 * 4 + 1
    np.testing.assert_allclose(found[:, 1:].std(), 3, rtol=0.1)


def test_fields_are_drawn_from_their_range(tiny):
    """CartPole's length is 0.5."""
    config = tiny(change="length", factors=(2.0, 8.0))
    found = sequence(config, tasks=50).length
    assert (found[:, 0] == 0.5).all() and len(np.unique(found)) == 3 * 49 + 1
    assert 1 <= found[:, 1:].min() < 1.2 < 3 < found[:, 1:].max() <= 4


def test_fields_take_the_given_values_in_turn(tiny):
    found = sequence(tiny(change="length", listed=(0.1, 0.7, 0.2))).length
    np.testing.assert_allclose(found, np.tile([0.1, 0.7, 0.2, 0.1], (3, 1)))


def test_without_a_change_the_environment_is_plain(tiny):
    study = control.make(tiny(change="none"))
    env, params = study.environment(study.numbers)
    assert study.env_params(params, jax.random.key(0)) == env.default_params


# A small study.


@pytest.fixture(scope="module")
def whole(sharing, tiny, launched, tmp_path_factory):
    """The folder of a study from its beginning to its end, and its results."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, launched(folder, NAME, tiny())


@pytest.fixture(scope="module")
def stopped(whole, tiny, crashed, tmp_path_factory):
    """A folder in which continual backprop stopped, and the leaves of its state."""
    folder = tmp_path_factory.mktemp("crashed")
    crashed(folder, NAME, tiny(), segments=6 + 2)
    return folder, checkpoints.of_units(folder)[-1]


def test_a_small_study_from_end_to_end(whole):
    """Methods see the settings that they use."""
    _, found = whole
    assert list(found["method"].values) == ["linear", "cbp", "cbp"]
    assert list(found["step"].values) == [64, 128, 192, 256, 320, 384]
    assert not found["diverged"].any()
    for name, values in found.isel(arm=[1, 2]).data_vars.items():
        assert np.isfinite(values).all(), name
    assert np.isnan(found["dormant"].isel(arm=0)).all()
    assert (found["length"] > 5).all() and (found["return"] == found["length"]).all()
    for name in ("loss", "effective_rank", "value_effective_rank"):
        assert len(np.unique(found[name].isel(arm=[1, 2]))) > 2
    loss, replaced = found["loss"].values, found["replacements"].values
    assert (loss[1] != loss[2]).any(axis=1).all()
    assert (replaced[:2] == 0).all() and (replaced[2, :, 2:] > 0).any(axis=1).all()


def test_it_stops_within_a_task_and_an_episode(stopped):
    saved = checkpoints.check(stopped[1])
    assert (saved.group.about.method, saved.bin) == ("cbp", 2)
    leaves = checkpoints.load(stopped[1])
    steps = leaves[".env.steps"]
    np.testing.assert_array_equal(steps, np.full((4, ENVS), 2 * 2 * STEPS))
    assert (steps % 40).all() and (leaves[".env.inner.time"] > 0).all()
    assert len(np.unique(leaves[".opt.units['policy/hidden_0'].age"])) > 1


def test_environments_of_a_run_share_its_tasks(stopped):
    """Two seeds in two settings: four runs, all in their second task."""
    leaves = checkpoints.load(stopped[1])
    assert (leaves[".env.task"] == 1).all()
    found = leaves[".env.params.permutation"].reshape(2, 2, ENVS, 4)
    for seed in range(2):
        one = np.broadcast_to(found[0, seed, 0], (2, ENVS, 4))
        np.testing.assert_array_equal(found[:, seed], one)
    assert (found[0, 0, 0] != found[0, 1, 0]).any()


def test_a_crashed_study_ends_with_the_same_numbers(
    stopped, whole, tiny, launched, tmp_path
):
    """State of the environments included; what was finished is not computed again."""
    folder, told = shutil.copytree(stopped[0], tmp_path / "study"), []
    launched(folder, NAME, tiny(), on_segment=[told.append])
    assert [each.method for each in told] == ["cbp"] * 4
    xarray.testing.assert_identical(results.load(folder), results.load(whole[0]))


def test_two_devices_give_the_same_numbers_as_one(whole, tmp_path):
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(pathlib.Path(__file__).parents[3]),
    }
    ended = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "2 devices\n"
    found = results.load(tmp_path)
    expected = whole[1].isel(arm=[0])[list(found)].drop_vars("cbp.replacement_rate")
    expected.attrs = found.attrs
    xarray.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    # Episodes are as long to the step.
    xarray.testing.assert_allclose(found["return"], expected["return"], rtol=1e-6)


def test_bad_physics_marks_its_run_and_leaves_the_others_alone(
    stopped, whole, tiny, launched, tmp_path
):
    """From some step on the gravity of a run is NaN."""
    folder = shutil.copytree(stopped[0], tmp_path / "study")
    leaves = checkpoints.load(stopped[1])
    leaves[".env.params.inner.gravity"][1] = np.nan
    saved = checkpoints.check(stopped[1])
    checkpoints.save(folder, saved.group, saved.bin, leaves)
    found = launched(folder, NAME, tiny())
    diverged = np.zeros((3, 2), bool)
    diverged[1, 1] = True
    np.testing.assert_array_equal(found["diverged"], diverged)
    loss, expected = found["loss"].values, whole[1]["loss"].values
    np.testing.assert_array_equal(loss[~diverged], expected[~diverged])
    np.testing.assert_array_equal(np.isnan(loss[1, 1]), [False] * 2 + [True] * 4)


# What a study shows.


def test_figures_and_table_count_environment_steps(
    whole, tiny, tmp_path, monkeypatch, capsys
):
    folder = shutil.copytree(whole[0], tmp_path / "study")
    flags = {"WORKDIR": folder, "OVERWRITE": False, "DATA_DIR": None, "WRITE": []}
    flags |= {"SHARD": None, "DISTRIBUTED": None}
    for name, value in flags.items():
        monkeypatch.setattr(program, name, types.SimpleNamespace(value=value))
    monkeypatch.setattr(devices, "devices", lambda platform: jax.devices()[:1])
    program._run(["run"], tiny(), NAME, "smoke")
    head, *lines = capsys.readouterr().out.splitlines()
    assert "first 192 environment steps" in head and "last 192" in head  # 3 bins
    assert [line.split()[0] for line in lines[:3]] == ["linear", "cbp", "cbp"]
    for name in ("figure", "diagnostics", "comparison", "sweep"):
        assert str(folder / f"{name}.png") in lines[-2]
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert plot.FIGURE.steps == "environment steps"


BAD = [
    *(({"methods": (name,)}, f"{name} has no place in reinf") for name in LEFT_OUT),
    ({"methods": ("cbp+head_reset",)}, "head_reset has no place in reinf"),
    ({"methods": ("bp", "cpb")}, "methods.*mean 'cbp'"),
    ({"environment": "CartPol-v1"}, "environment.*mean 'CartPole-v1'"),
    ({"environment": "ants"}, "environment.*mean 'ant'"),
    ({"change": "lenght"}, "change.*'lenght'.*mean 'length'"),
    ({"change": "permutatoin"}, "change.*mean 'permutation'"),
    ({"change": "total_mass"}, "field.*'total_mass'"),  # follows from other fields
    ({"change": "offset", "offset": -1.0}, "-1"),
    ({"change": "length", "factors": (2.0, 0.5)}, "length.*low <= high"),
    ({"change": "length", "factors": (1.0, float("inf"))}, "length.*inf"),
    ({"change": "length", "listed": (1.0, float("nan"))}, "length.*nan"),
    ({"change": "length", "listed": ("long",)}, "'long'"),
    ({"period": 0}, "period.*0"),
    ({"minibatches": 5}, r"minibatches \(5\) must divide num_envs \* num_steps \(32\)"),
    *(({name: 0}, f"{name}.*0") for name in control.COUNTS),
    ({"num_envs": -1}, "num_envs.*-1"),
    ({"updates": 7}, r"updates \(7\).*bin \(2\)"),
    ({"bin": 0}, r"updates \(12\).*bin \(0\)"),
    ({"gamma": 1.5}, r"gamma.*\[0, 1\], got 1.5"),
    ({"sweep__gamma": (0.9, 1.5)}, "gamma.*1.5"),
    ({"gae_lambda": -0.5}, "gae_lambda.*-0.5"),
    ({"clip": -0.1}, "clip.*-0.1"),
    ({"sweep__clip": (-0.1,)}, "clip.*-0.1"),
    ({"change": "offset", "sweep__offset": (-1.0,)}, "-1"),
    ({"sweep__offset": (2.0,)}, "offset"),  # which nothing here has
    (
        {"methods": ("l2+cbp",), "cbp__b1": 0.5},
        "l2 and cbp both set the optimiser's b1",
    ),
    ({"sweep__entropy_weight": (float("nan"),)}, "entropy_weight.*nan"),
    ({"hidden": (4, 0)}, "hidden"),
    ({"activation": "rely"}, "activation.*'rely'"),
    ({"optimizer": "sdg"}, "optimizer.*mean 'sgd'"),
]


@pytest.mark.parametrize(("changes", "match"), BAD, ids=lambda x: str(x)[:50])
def test_bad_input_is_refused_before_anything_is_written(
    changes, match, tiny, launched, tmp_path
):
    with pytest.raises(ValueError, match=match):
        launched(tmp_path / "study", NAME, tiny(**changes))
    assert not (tmp_path / "study").exists()


if __name__ == "__main__":
    print(len(jax.devices()), "devices")
    config = small_config()
    config.methods, config.sweep.cbp.replacement_rate = ("linear",), ()
    running.launch(NAME, config, sys.argv[1], preset="smoke", progress=False)
