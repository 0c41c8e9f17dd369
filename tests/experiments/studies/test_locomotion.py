"""The studies of walking robots: the published setting, and a pole that slips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.slippery_ant import config as slippery
from experiments.studies import control, locomotion
from loplax import envs

pytestmark = pytest.mark.usefixtures("quick_compile")
ROBOTS = ("ant", "hopper", "walker2d")


@pytest.mark.parametrize("name", ROBOTS)
def test_paper_is_the_published_setting(name):
    config = locomotion.get_config("paper", name)
    assert (config.environment, config.change) == (name, "none")
    steps = config.updates * config.num_envs * config.num_steps
    np.testing.assert_allclose(steps, 50e6, rtol=1e-3)
    assert (config.learning_rate, config.seeds) == (1e-4, 30)
    assert (config.num_steps, config.epochs, config.minibatches) == (2048, 10, 16)
    assert not config.bootstrap and not config.clip_actions
    assert config.methods == ("bp", "tuned_adam", "l2", "cbp")
    assert config.cbp.to_dict() == {
        "replacement_rate": 1e-4,
        "maturity_threshold": 10_000,
        "decay_rate": 0.99,
        "utility": "contribution",
        "budget": "random",
        "reset_inner": False,
        "b1": 0.99,
        "b2": 0.99,
        "weight_decay": 1e-4,
    }
    assert config.redo.to_dict() == {
        "threshold": 0.1,
        "period": 100,
        "decay_rate": 0.0,
        "reset_inner": False,
        "b1": 0.99,
        "b2": 0.99,
        "weight_decay": 1e-4,
    }


def test_other_presets_bootstrap_at_the_time_limit():
    config = locomotion.get_config("laptop", "ant")
    assert config.bootstrap and config.cbp.reset_inner


def test_slippery_ant_is_the_published_setting():
    config = slippery.get_config("paper")
    assert (config.environment, config.change) == ("ant", "friction")
    assert (config.factors, config.listed) == ((0.02, 2.0), ())
    steps = config.updates * config.num_envs * config.num_steps
    np.testing.assert_allclose(steps, 20e6, rtol=5e-3)
    assert config.period == 2_000_000
    assert not config.bootstrap


def test_robots_learn_on_the_chosen_backend(monkeypatch, changed):
    made = []
    monkeypatch.setattr(envs, "make", lambda *a, **k: made.append((a, k)) or (0, 0))
    config = locomotion.get_config("smoke", "hopper")
    control.make(changed(config, backend="generalized"))
    assert made == [(("hopper",), {"backend": "generalized"})]


BAD = [
    ({"backend": "sprin"}, "backend.*mean 'spring'"),
    ({"environment": "hoper"}, "environment.*mean 'hopper'"),
    ({"environment": "Pendulum-v1"}, "environment.*'Pendulum-v1'"),  # has no backend
]


@pytest.mark.parametrize(("changes", "match"), BAD)
def test_bad_input_is_refused_before_anything_is_written(
    changes, match, changed, launched, tmp_path
):
    config = changed(locomotion.get_config("smoke", "ant"), **changes)
    with pytest.raises(ValueError, match=match):
        launched(tmp_path / "study", "ant", config)
    assert not (tmp_path / "study").exists()


# With brax. Of its models the smallest stands in for the ant, which compiles slowly.


@pytest.fixture(scope="module")
def pole():
    """An inverted pendulum of brax."""
    pytest.importorskip("brax")
    return envs.make("inverted_pendulum", backend="spring")


@pytest.fixture
def config(pole, changed, monkeypatch):
    """``(a__b=value) -> config`` of a slippery inverted pendulum."""
    monkeypatch.setattr(envs, "make", lambda *_, **__: pole)
    sizes = {
        "environment": "inverted_pendulum",
        "methods": ("bp",),
        "hidden": (4,),
        "seeds": 2,
        "num_steps": 16,
        "bin": 1,
        "updates": 2,
    }
    return lambda **new: changed(slippery.get_config("smoke"), **(sizes | new))


def frictions(config, tasks):
    """Friction of the tasks of three runs, ``[3, tasks]``."""
    study = control.make(config)

    def of_run(key):
        env, params = study.environment(study.numbers)
        params = study.env_params(params, key)
        _, state = env.reset(key, params)

        def begin(task):
            steps = config.period * task
            ended = state.replace(steps=steps, task=jnp.maximum(task - 1, 0))
            return env.restart(key, ended, params)[1].params.friction

        return jax.vmap(begin)(jnp.arange(tasks))

    return jax.jit(jax.vmap(of_run))(jax.random.split(jax.random.key(0), 3))


def test_friction_is_drawn_from_its_range(config):
    found = np.log(frictions(config(), 100))
    assert (found[:, 0] == 0).all() and len(np.unique(found)) == 3 * 99 + 1
    low, high = np.log(0.02), np.log(2)
    assert low <= found.min() < low + 0.2 and high - 0.2 < found.max() <= high
    np.testing.assert_allclose(found[:, 1:].mean(), (low + high) / 2, atol=0.3)


def test_frictions_can_be_given(config):
    found = frictions(config(listed=(0.5, 0.02)), 3)
    np.testing.assert_allclose(found, np.tile([0.5, 0.02, 0.5], (3, 1)))
