"""Only the view of the environment changes."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import envs

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(1)
NAMES = (
    "CartPole-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "Pendulum-v1",
    "Reacher-misc",
    "Breakout-MinAtar",
)


@pytest.mark.parametrize("name", NAMES)
def test_observations_are_the_inner_ones_permuted_and_shifted(name):
    """In a step that begins an episode, and so has two observations."""
    inner, plain = gymnax.make(name)
    plain = plain.replace(max_steps_in_episode=1)
    env = envs.Perturbed(inner)
    size = env.default_params.offset.size
    order, offset = jax.random.permutation(KEY, size), jnp.arange(size) / 7
    action = inner.action_space(plain).sample(KEY)

    @jax.jit
    def both():
        params = envs.perturbed.PerturbedParams(plain, order, offset)
        obs, state = env.reset(KEY, params)
        old_obs, old_state = inner.reset(KEY, plain)
        new = obs, *env.step(KEY, state, action, params)
        return new, (old_obs, *inner.step(KEY, old_state, action, plain))

    new, old = both()
    for before, after in (
        (old[0], new[0]),
        (old[1], new[1]),
        (old[-1]["final_observation"], new[-1]["final_observation"]),
    ):
        expected = np.ravel(before)[order] + offset
        np.testing.assert_allclose(after, expected, rtol=1e-6)
        assert after.dtype == jnp.float32
    assert not np.array_equal(new[1], new[-1]["final_observation"])
    for after, before in zip(
        jax.tree.leaves(new[2:-1]), jax.tree.leaves(old[2:-1]), strict=True
    ):
        np.testing.assert_allclose(after, before, rtol=1e-6)


def test_the_space_is_seen_alike(counter):
    env = envs.Perturbed(counter)
    params = env.default_params.replace(
        permutation=jnp.array([2, 0, 1]), offset=jnp.array([1.0, 0.0, -1.0])
    )
    space = env.observation_space(params)
    assert space.shape == (3,)
    assert space.low.tolist() == [-6, -9, -9]
    assert space.high.tolist() == [201, 200, 199]
    assert env.action_space(params).n == 4


def test_tasks_differ_in_their_permutation_alone(counter, roll):
    """Task 0 is seen as it is; the final observation is the old task's."""
    env = envs.Changing(envs.Perturbed(counter), envs.permuted(), period=5)
    obs, state, *_, info = roll(
        env, jax.random.key(4), jnp.ones(30), env.default_params
    )
    place = np.asarray(state.inner.place)
    plain = np.stack([place, -place, 2 * place], axis=1)
    orders = np.asarray(state.params.permutation)
    np.testing.assert_array_equal(obs, np.take_along_axis(plain, orders, axis=1))
    assert orders[0].tolist() == [0, 1, 2]
    assert len(np.unique(orders, axis=0)) >= 3
    before = np.concatenate([[[0, 1, 2]], orders[:-1]])
    final = np.asarray(info["final_observation"])
    seen = np.take_along_axis(final, np.argsort(before, axis=1), axis=1)
    np.testing.assert_array_equal(seen[:, 0] * 2, seen[:, 2])


def test_observations_must_be_arrays(counter):
    class Words(type(counter)):
        def observation_space(self, params):
            return gymnax.environments.spaces.Discrete(3)

    with pytest.raises(ValueError, match="observations must be arrays"):
        envs.Perturbed(Words())
