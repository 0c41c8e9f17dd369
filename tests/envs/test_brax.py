"""Brax behind the signature of gymnax is brax, step for step."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import envs

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def brax_envs():
    return pytest.importorskip("brax.envs")


@pytest.fixture(scope="module")
def pendulum(brax_envs):
    return envs.Brax("inverted_pendulum")


def test_the_transitions_are_braxs_own(brax_envs, pendulum, roll):
    """Until the episode ends; the next one begins with a state of brax's reset."""
    own = brax_envs.get_environment("inverted_pendulum", backend="spring")
    actions = 0.6 * jnp.ones((40, 1))
    key_reset, key_steps = jax.random.split(KEY)

    @jax.jit
    def expected(key):
        def step(state, action):
            after = own.step(state, action)
            return after.replace(info=state.info), (after.obs, after.reward, after.done)

        return jax.lax.scan(step, own.reset(key), actions)[1]

    old_obs, old_reward, done = expected(key_reset)
    obs, state, reward, terminated, truncated, info = roll(
        pendulum, KEY, actions, pendulum.default_params
    )
    end = int(np.argmax(done))
    assert 2 < end < 39
    np.testing.assert_allclose(
        info["final_observation"][: end + 1], old_obs[: end + 1], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(reward[: end + 1], old_reward[: end + 1])
    assert np.argmax(terminated) == end
    assert not truncated.any()
    np.testing.assert_array_equal(info["discount"], 1.0 - terminated)
    np.testing.assert_array_equal(obs[:end], info["final_observation"][:end])
    key_second = jax.random.split(jax.random.split(key_steps, 40)[end])[1]
    np.testing.assert_allclose(obs[end], jax.jit(own.reset)(key_second).obs, atol=1e-6)
    assert state.time[end - 1 : end + 2].tolist() == [end, 0, 1]


def test_physics_that_are_not_finite_have_no_reward(pendulum, roll):
    """The pendulum's reward is 1 whatever happens, and NaN does not end its episode."""
    params = pendulum.default_params.replace(max_steps_in_episode=4)
    actions = jnp.zeros((12, 1)).at[jnp.array([1, 7])].set(jnp.nan)
    _, state, reward, terminated, truncated, _ = roll(pendulum, KEY, actions, params)
    assert np.flatnonzero(truncated).tolist() == [3, 7, 11] and not terminated.any()
    # From the second step of the first episode on, and in the last of the second.
    bad = np.isin(np.arange(12), [1, 2, 3, 7])
    np.testing.assert_array_equal(reward, np.where(bad, np.nan, 1))
    assert np.isfinite(state.physics.q[jnp.array([0, 3, 7])]).all()


def test_the_time_limit_truncates(pendulum, roll):
    params = pendulum.default_params.replace(max_steps_in_episode=3)
    _, state, *_, terminated, truncated, info = roll(
        pendulum, KEY, jnp.zeros((40, 1)), params
    )
    assert np.flatnonzero(truncated).tolist() == list(range(2, 40, 3))
    assert not terminated.any()
    assert (info["discount"] == 1).all()
    assert pendulum.default_params.max_steps_in_episode == 1000


def test_friction_moves_the_ant_and_needs_no_recompilation(brax_envs):
    """The listed friction of each task counts, whatever the parameters' own."""
    env, params = envs.slippery_ant(frictions=(0.02, 2.0))
    assert params.period == 2_000_000
    actions = jax.random.uniform(KEY, (30, 8), minval=-1.0)

    @jax.jit
    def run(params):
        _, state = env.reset(KEY, params)
        body = lambda state, action: env.step(KEY, state, action, params)[1:3]
        return jax.lax.scan(body, state, actions)[0]

    def end(friction, period=1_000_000):
        inner = params.inner.replace(
            friction=jnp.float32(friction), max_steps_in_episode=jnp.int32(20)
        )
        return run(params.replace(inner=inner, period=jnp.int32(period)))

    state = end(1.0)
    np.testing.assert_allclose(state.params.friction, 0.02)
    assert state.inner.time == 10
    np.testing.assert_allclose(end(1.0, period=20).params.friction, 2.0)
    still, moved = state.inner.physics.q, end(1.0, period=20).inner.physics.q
    assert np.isfinite(moved).all()
    assert abs(still - moved).max() > 1e-2
    assert run._cache_size() == 1


def test_the_slippery_ant_draws_its_friction_as_published(brax_envs):
    env, params = envs.slippery_ant()

    @jax.jit
    def after(steps):
        _, state = env.reset(KEY, params)
        before = jnp.maximum(steps // 2_000_000 - 1, 0)
        ended = state.replace(steps=steps, task=before)
        return env.restart(KEY, ended, params)[1].params.friction

    frictions = jax.vmap(after)(jnp.arange(500) * 2_000_000)
    assert frictions[0] == after(1_999_999) == 1
    places = np.log(frictions[1:] / 0.02) / np.log(100)
    grid = np.linspace(0, 1, 6)
    np.testing.assert_allclose(np.quantile(places, grid), grid, atol=0.06)


@pytest.mark.parametrize("name", ["walker2d", "halfcheetah"])
def test_other_environments_trace(brax_envs, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs a warning about a model where it runs.
    env, params = envs.make(name, backend="positional")
    key, action = KEY, env.action_space(params).sample(KEY)
    obs, state = jax.eval_shape(env.reset, key, params)
    out = jax.eval_shape(env.step, key, state, action, params)
    assert out[0].shape == obs.shape == env.observation_space(params).shape
    assert [leaf.shape for leaf in out[2:5]] == [(), (), ()]
    assert (env.name, env.num_actions) == (name, action.size)


def test_mistakes_are_errors():
    for name, near in (("hoper", "hopper"), ("half_cheetah", "halfcheetah")):
        with pytest.raises(ValueError, match=f"did you mean '{near}'"):
            envs.Brax(name)
    with pytest.raises(ValueError, match="did you mean 'spring'"):
        envs.Brax("ant", "sprung")
    with pytest.raises(ValueError, match="frictions must be positive"):
        envs.slippery_ant(frictions=[1.0, 0.0])


def test_without_brax_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    with pytest.raises(ImportError, match=r'pip install "loplax\[brax\]"'):
        envs.Brax("ant")
