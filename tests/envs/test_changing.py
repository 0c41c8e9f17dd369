"""Tasks follow one another at ends of episodes, and are what the change says."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import envs

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def tenfold(counter):
    """Starts near 10 times the task; episodes last 5 steps."""
    change = lambda key, task, params: params.replace(start=10.0 * task)
    return envs.Changing(counter, change, period=12)


def test_the_task_changes_at_the_first_end_of_an_episode_after_the_period(
    tenfold, roll
):
    params = tenfold.default_params
    obs, state, _, _, truncated, info = roll(tenfold, KEY, jnp.zeros(40), params)
    assert np.flatnonzero(truncated).tolist() == list(range(4, 40, 5))
    # After 15, 25 and 40 steps: 15 // 12 = 1, 25 // 12 = 2, 40 // 12 = 3.
    tasks = [0] * 15 + [1] * 10 + [2] * 15
    assert info["task"].tolist() == tasks
    assert state.task.tolist() == tasks[1:] + [3]
    assert state.steps.tolist() == list(range(1, 41))
    np.testing.assert_array_equal(obs[:, 0] // 10, state.task)
    np.testing.assert_array_equal(info["final_observation"][:, 0] // 10, info["task"])


def test_no_task_is_skipped_however_long_episodes_are(tenfold, roll):
    params = tenfold.default_params.replace(period=2)
    info = roll(tenfold, KEY, jnp.zeros(15), params)[-1]
    assert info["task"].tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_period_and_key_need_no_recompilation(counter):
    env = envs.Changing(counter, envs.scaled(goal=(0.5, 2.0)), period=3)
    step = jax.jit(lambda state, params: env.step(KEY, state, 1, params))
    for seed, period in ((0, 3), (1, 3), (2, 50)):
        params = env.default_params.replace(key=jax.random.key(seed), period=period)
        state = env.reset(KEY, params)[1]
        for _ in range(6):
            state = step(state, params)[1]
    assert step._cache_size() == 1


def test_environments_of_a_run_share_their_tasks_and_runs_do_not(counter, roll):
    env = envs.Changing(counter, envs.scaled(goal=(0.5, 2.0)), period=5)
    defaults = env.default_params

    def run(key, key_tasks):
        actions = jnp.zeros(20)
        return roll(env, key, actions, defaults.replace(key=key_tasks))[1].params.goal

    keys, runs = jax.random.split(KEY, 3), jax.random.split(jax.random.key(1), 2)
    goals = jax.vmap(jax.vmap(run, (0, None)), (None, 0))(keys, runs)
    assert goals.shape == (2, 3, 20)
    np.testing.assert_array_equal(goals, np.broadcast_to(goals[:, :1], goals.shape))
    first, second = goals[:, 0]
    np.testing.assert_array_equal(first[:4], 100.0)
    assert len(np.unique(first)) == 5
    assert not set(np.unique(first[5:])) & set(np.unique(second[5:]))
    assert np.all((first >= 50) & (first <= 200))


def test_a_task_is_the_inner_environment_with_its_parameters(roll):
    """Each transition is that of a Pendulum made with the task's gravity."""
    inner, plain = gymnax.make("Pendulum-v1")
    env = envs.Changing(inner, envs.listed(g=(10.0, 3.0)), period=20)
    plain = plain.replace(max_steps_in_episode=20)
    params = env.default_params.replace(inner=plain)
    actions = jnp.sin(jnp.arange(60.0))[:, None]
    _, state, reward, _, truncated, info = roll(env, KEY, actions, params)
    before = jax.tree.map(lambda leaf: leaf[:-1], state.inner)
    own = plain.replace(g=jnp.array([10.0, 3.0] * 30)[info["task"][1:]])
    axes = jax.tree.map(lambda _: None, own).replace(g=0)
    step = jax.vmap(inner.step_env, (None, 0, 0, axes))
    _, after, rewards, _, _ = step(KEY, before, actions[1:], own)
    np.testing.assert_allclose(reward[1:], rewards, rtol=1e-4, atol=1e-5)
    stay = ~np.asarray(truncated[1:])
    assert stay.sum() == 56
    assert set(info["task"].tolist()) == {0, 1, 2}
    np.testing.assert_allclose(
        state.inner.theta[1:][stay], after.theta[stay], rtol=1e-5, atol=1e-5
    )


def test_nested_changes_go_on_at_their_own_pace(counter, roll):
    inner = envs.Changing(counter, envs.listed(start=(0.0, 10.0)), period=5)
    outer = envs.Changing(envs.Perturbed(inner), envs.shifted(1000.0), period=10)
    state = roll(outer, KEY, jnp.zeros(20), outer.default_params)[1]
    assert state.task.tolist() == [0] * 9 + [1] * 10 + [2]
    assert state.inner.task.tolist() == [0] * 4 + [1] * 5 + [2] * 5 + [3] * 5 + [4]
    assert (state.inner.inner.place // 10 == state.inner.task % 2).all()


def test_spaces_and_names_are_the_inner_ones(counter):
    env = envs.Changing(envs.make("Pendulum-v1")[0], envs.scaled(), period=1)
    params = env.default_params
    assert env.action_space(params).shape == (1,)
    assert env.observation_space(params).shape == (3,)
    assert (env.name, env.num_actions) == ("Pendulum-v1", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (envs.scaled(gaol=(0.5, 2.0)), "did you mean 'goal'"),
        (envs.listed(strat=[1.0]), "did you mean 'start'"),
        (envs.permuted(), "field must be one of"),
        (envs.shifted(1.0), "field must be one of"),
        (lambda key, task, params: params.replace(goal=jnp.ones(2)), "like"),
        (lambda key, task, params: 3.0, "like"),
        (envs.listed(goal=[[1.0, 2.0]]), "like"),
    ],
)
def test_a_change_that_does_not_fit_is_an_error(counter, change, message):
    with pytest.raises(ValueError, match=message):
        envs.Changing(counter, change, period=5)


@pytest.mark.parametrize("period", [0, -3, 2.5, float("nan")])
def test_the_period_is_whole_and_at_least_one(counter, period):
    with pytest.raises(ValueError, match="period must be whole and at least 1"):
        envs.Changing(counter, envs.scaled(goal=(1.0, 2.0)), period=period)


def test_a_period_may_be_written_as_a_float(counter):
    env = envs.Changing(counter, envs.scaled(goal=(1.0, 2.0)), period=2e6)
    params = env.default_params
    _, state = env.reset(jax.random.key(0), params)
    _, after, *_ = env.step(jax.random.key(1), state, 0, params)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
