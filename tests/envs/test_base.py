"""A step of the base class: how episodes end, and what the next one begins with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from loplax import envs

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(3)


def last(counter, params, action=1):
    """The transition of one step from place 0."""
    _, state = counter.reset(KEY, params)
    return counter.step(KEY, state, action, params)


@pytest.mark.parametrize(
    ("goal", "limit", "terminated", "truncated"),
    [(100, 5, 0, 0), (1, 5, 1, 0), (100, 1, 0, 1), (1, 1, 1, 1)],
)
def test_termination_and_time_limit_are_apart(
    counter, goal, limit, terminated, truncated
):
    params = counter.default_params.replace(goal=goal, max_steps_in_episode=limit)
    obs, state, reward, *flags, info = last(counter, params)
    assert flags == [terminated, truncated]
    assert [info["terminated"], info["truncated"]] == flags
    assert info["discount"] == 1 - terminated
    np.testing.assert_array_equal(info["final_observation"][0], reward)
    if terminated or truncated:
        assert state.time == 0
        assert obs[0] == state.place
        assert 0 <= state.place < 0.25
    else:
        assert state.time == 1
        np.testing.assert_array_equal(obs, info["final_observation"])


def test_it_is_gymnaxs_step(counter, gymnax_counter, roll):
    """Every number agrees with gymnax's own step, over several ends of both kinds."""
    params = counter.default_params.replace(goal=9.0)
    actions = jnp.array([1, 2, 3] * 10)
    ours, theirs = (
        roll(env, KEY, actions, params) for env in (counter, gymnax_counter)
    )
    assert ours[-1].keys() == theirs[-1].keys()
    assert ours[3].sum() > 2
    assert ours[4].sum() > 2
    for our, their in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(our, their)


def test_resets_draw_from_the_key_of_the_step(counter):
    params = counter.default_params.replace(max_steps_in_episode=1)
    _, state = counter.reset(KEY, params)
    step = jax.vmap(counter.step, (0, None, None, None))
    starts = step(jax.random.split(KEY, 20), state, 1, params)[1].place
    assert len(np.unique(starts)) == 20


def primitives(jaxpr, inside=False):
    """Names of all primitives, and whether they are in a branch of a cond."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name, inside
        within = inside or eqn.primitive.name == "cond"
        for sub in core.jaxprs_in_params(eqn.params):
            yield from primitives(sub, within)


@pytest.mark.parametrize("axes", [0, 1, 2])
def test_the_reset_is_in_a_branch_under_vmap_too(counter, gymnax_counter, axes):
    """The only uniform numbers drawn are those of the reset."""

    def drawn(env):
        step = lambda key, state: env.step(key, state, 1, env.default_params)
        keys, init = jax.random.split(KEY, (2, 3)[:axes]), env.reset_env
        for _ in range(axes):
            step, init = jax.vmap(step), jax.vmap(init, (0, None))
        _, state = init(keys, env.default_params)
        program = jax.make_jaxpr(step)(keys, state)
        bits = "random_bits"
        return {inside for name, inside in primitives(program.jaxpr) if name == bits}

    assert drawn(counter) == {True}
    assert drawn(gymnax_counter) == {False}


def test_a_batch_resets_only_those_that_ended(counter):
    params = counter.default_params.replace(goal=50.0)
    start = counter.reset(KEY, params)[1].replace(place=jnp.float32(40.0))
    step = jax.vmap(counter.step, (0, None, 0, None))
    keys = jax.random.split(KEY, 3)
    obs, state, _, terminated, _, info = step(
        keys, start, jnp.array([1, 10, 2]), params
    )
    assert terminated.tolist() == [False, True, False]
    assert state.time.tolist() == [1, 0, 1]
    assert state.place[0] == 41
    assert state.place[1] < 1
    assert state.place[2] == 42
    np.testing.assert_array_equal(info["final_observation"][:, 0], [41, 50, 42])
    np.testing.assert_array_equal(obs[:, 0], state.place)


def test_parameters_default_to_the_environments_own(counter):
    _, state = counter.reset(KEY)
    assert counter.step(KEY, state, 1)[0].shape == (3,)


@pytest.mark.parametrize("wrap", [envs.Perturbed, envs.Wrapper])
def test_what_is_wrapped_must_be_an_environment(wrap):
    with pytest.raises(ValueError, match="must be a gymnax environment"):
        wrap(envs.make("CartPole-v1"))
