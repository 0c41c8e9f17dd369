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

from experiments.launch import launching, program
from experiments.methods import specs
from experiments.nonstationary_control import config as configs
from experiments.nonstationary_control import plot
from experiments.studies import control
from loplax import ppo
from loplax.studies import checkpoints, results, runs

pytestmark = pytest.mark.usefixtures("quick_compile")
NAME = "nonstationary_control"
LEFT_OUT = ("head_reset", "full_reset", "plasticity_injection", "input_normalization")
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
    "period": 80,  # 40 steps of each environment
    "cbp.maturity_threshold": 2,
    "sweep.replacement_rate": (0.0, 0.1),
}


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
    config = tiny(gamma=0.5, cbp__b2=0.75, adam__b1=0.25)
    study = control.make(config)
    numbers = lambda name: study.method(config, name).hparams
    adam = {"learning_rate": 3e-3, "b1": 0.25, "b2": 0.999, "weight_decay": 0.0}
    agent = {"gae_lambda": 0.95, "clip": 0.2, "value_weight": 1, "entropy_weight": 0}
    assert numbers("bp") == agent | adam | {"gamma": 0.5}
    tuned = numbers("bp") | {"b1": 0.99, "b2": 0.99}
    assert numbers("tuned_adam") == tuned
    assert numbers("l2") == tuned | {"weight_decay": 1e-3}
    own = {"replacement_rate": 1e-4, "maturity_threshold": 2, "decay_rate": 0.99}
    assert numbers("cbp") == tuned | own | {"b2": 0.75, "weight_decay": 1e-4}
    own = {"threshold": 0.1, "period": 100, "decay_rate": 0.0, "weight_decay": 1e-4}
    assert numbers("redo") == tuned | own


CHANGED = {
    "gamma": 0.5,
    "gae_lambda": 0.5,
    "clip": 0.001,
    "value_weight": 0.1,
    "entropy_weight": 0.5,
    "learning_rate": 0.01,
    "b1": 0.5,
    "b2": 0.5,
    "weight_decay": 0.5,
    "replacement_rate": 0.25,
    "maturity_threshold": 6,
    "decay_rate": 0.1,
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


@pytest.mark.parametrize("name", control.METHODS)
def test_every_method_learns_in_shape(name, tiny):
    """A segment keeps the types of the state; both networks have units."""
    config = tiny()
    learner, numbers = control.make(config).method(config, name)
    hparams = dict.fromkeys(numbers, jax.ShapeDtypeStruct((), jnp.float32))
    before = jax.eval_shape(learner.init, jax.random.key(0), hparams, ())
    after, found = jax.eval_shape(learner.segment, before, ())
    assert jax.tree.map(types_of, after) == jax.tree.map(types_of, before)
    layered = name != "linear"
    assert ("dormant" in found, "value_dormant" in found) == (layered, layered)


def types_of(leaf):
    return leaf.shape, leaf.dtype


def test_methods_without_a_place_here_are_left_out():
    assert specs.SPECS.keys() - control.METHODS == set(LEFT_OUT)


# The settings of the tasks.


def sequence(config, seeds=3, tasks=4):
    """Parameters of the first tasks of some runs, ``[seeds, tasks, ...]``."""
    study = control.make(config)

    def of_run(key):
        params = study.env_params(key)
        _, state = study.env.reset(key, params)

        def begin(task):
            steps = config.period // config.num_envs * task
            ended = state.replace(steps=steps, task=jnp.maximum(task - 1, 0))
            return study.env.restart(key, ended, params)[1]

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
    assert study.env_params(jax.random.key(0)) == study.env.default_params


# A small study.


@pytest.fixture(scope="module")
def traced(quick_compile):
    """How often segments were traced; studies of as many runs share a program."""
    calls, made, segment, build = [], {}, ppo.segment, runs.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ppo, "segment", lambda *a, **k: (calls.append(1), segment(*a, **k))[1]
        )
        patch.setattr(
            runs,
            "build",
            lambda learner, *how: made.setdefault(how[0], build(learner, *how)),
        )
        yield lambda: len(calls)


@pytest.fixture(scope="module")
def whole(traced, tiny, launched, tmp_path_factory):
    """The folder of a study from its beginning to its end, and its results."""
    folder, before = tmp_path_factory.mktemp("whole"), traced()
    found = launched(folder, NAME, tiny())
    # A method is traced for its shapes, and once for all segments, settings and seeds.
    assert traced() == before + 2 * 2
    return folder, found


@pytest.fixture(scope="module")
def crashed(whole, tiny, launched, tmp_path_factory):
    """A folder in which continual backprop stopped, and the last checkpoint."""
    folder, record, left = tmp_path_factory.mktemp("crashed"), results.record, [9]

    def crash(*args):
        record(*args)
        left[0] -= 1
        if not left[0]:
            raise RuntimeError("crash")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "record", crash)
        with pytest.raises(RuntimeError, match="crash"):
            launched(folder, NAME, tiny(checkpoint_seconds=0.0))
    return folder, next(iter(checkpoints.read(folder / "checkpoints")))


def test_a_small_study_from_end_to_end(whole):
    """Methods see the settings that they use."""
    _, found = whole
    assert list(found["step"].values) == [64, 128, 192, 256, 320, 384]
    assert not found["diverged"].any()
    for name, values in found.isel(method=1).data_vars.items():
        assert np.isfinite(values).all(), name
    assert np.isnan(found["dormant"].isel(method=0)).all()
    assert (found["length"] > 5).all() and (found["return"] == found["length"]).all()
    for name in ("loss", "effective_rank", "value_effective_rank"):
        assert len(np.unique(found[name].isel(method=1))) > 2
    loss, replaced = found["loss"].values, found["replacements"].values
    np.testing.assert_array_equal(loss[0, 0], loss[0, 1])
    assert (loss[1, 0] != loss[1, 1]).any(axis=1).all()
    assert (replaced[0] == 0).all() and (replaced[1, 0] == 0).all()
    assert (replaced[1, 1, :, 2:] > 0).any(axis=1).all()


def test_it_stops_within_a_task_and_an_episode(crashed):
    _, saved = crashed
    assert (saved.method, saved.segment) == ("cbp", 2)
    steps = saved.leaves[".env.steps"]
    np.testing.assert_array_equal(steps, np.full((4, ENVS), 2 * 2 * STEPS))
    assert (steps % 40).all() and (saved.leaves[".env.inner.time"] > 0).all()
    assert len(np.unique(saved.leaves[".opt.units['policy/hidden_0'].age"])) > 1


def test_environments_of_a_run_share_its_tasks(crashed):
    """Two seeds in two settings: four runs, all in their second task."""
    leaves = crashed[1].leaves
    assert (leaves[".env.task"] == 1).all()
    found = leaves[".env.params.permutation"].reshape(2, 2, ENVS, 4)
    for seed in range(2):
        one = np.broadcast_to(found[0, seed, 0], (2, ENVS, 4))
        np.testing.assert_array_equal(found[:, seed], one)
    assert (found[0, 0, 0] != found[0, 1, 0]).any()


def test_a_crashed_study_ends_with_the_same_bytes(
    crashed, whole, traced, tiny, launched, tmp_path
):
    """State of the environments included, and nothing is compiled for it."""
    folder = shutil.copytree(crashed[0], tmp_path / "study")
    expected = (whole[0] / "results.nc").read_bytes()
    assert (folder / "results.nc").read_bytes() != expected
    before = traced()
    launched(folder, NAME, tiny(checkpoint_seconds=0.0))
    assert (folder / "results.nc").read_bytes() == expected
    assert traced() == before + 2  # for the shapes


def test_two_devices_give_the_same_numbers_as_one(whole, tmp_path):
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
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
    expected = whole[1].isel(method=[0], setting=[0])
    found = results.load(tmp_path)
    expected = expected[list(found)].drop_vars("replacement_rate")
    xarray.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    xarray.testing.assert_equal(found["return"], expected["return"])


def test_bad_physics_marks_its_run_and_leaves_the_others_alone(
    crashed, whole, tiny, launched, tmp_path
):
    """From some step on the gravity of a run is NaN."""
    folder = shutil.copytree(crashed[0], tmp_path / "study")
    gravity = crashed[1].leaves[".env.params.inner.gravity"].copy()
    gravity[1] = np.nan
    leaves = crashed[1].leaves | {".env.params.inner.gravity": gravity}
    checkpoints.save(folder / "checkpoints", crashed[1]._replace(leaves=leaves))
    found = launched(folder, NAME, tiny())
    diverged = np.zeros((2, 2, 2), bool)
    diverged[1, 0, 1] = True
    np.testing.assert_array_equal(found["diverged"], diverged)
    loss, expected = found["loss"].values, whole[1]["loss"].values
    np.testing.assert_array_equal(loss[~diverged], expected[~diverged])
    np.testing.assert_array_equal(np.isnan(loss[1, 0, 1]), [False] * 2 + [True] * 4)


# What a study shows.


def test_figures_and_table_count_environment_steps(
    whole, tiny, tmp_path, monkeypatch, capsys
):
    folder = shutil.copytree(whole[0], tmp_path / "study")
    flags = {"WORKDIR": folder, "OVERWRITE": False, "DATA_DIR": None}
    for name, value in flags.items():
        monkeypatch.setattr(program, name, types.SimpleNamespace(value=value))
    monkeypatch.setattr(launching, "devices", lambda platform: jax.devices()[:1])
    monkeypatch.setattr(launching, "run", lambda *_, **__: whole[1])
    program._run(["run"], tiny(), NAME)
    head, *lines = capsys.readouterr().out.splitlines()
    assert "first 192 environment steps" in head and "last 192" in head  # 3 bins
    assert [line.split()[0] for line in lines[:4]] == ["linear", "linear", "cbp", "cbp"]
    for name in ("figure", "diagnostics", "comparison", "sweep"):
        assert str(folder / f"{name}.png") in lines[4]
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert plot.FIGURE.steps == "environment steps"


BAD = [
    *(({"methods": (name,)}, f"methods.*got '{name}'") for name in LEFT_OUT),
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
    config.methods, config.sweep.replacement_rate = ("linear",), ()
    made = control.make(config)
    launching.run(sys.argv[1], config, jax.devices(), made, overwrite=False)
