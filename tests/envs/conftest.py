"""Small environments whose every number is known."""

import jax
import jax.numpy as jnp
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from loplax import envs


@struct.dataclass
class CounterState(environment.EnvState):
    place: jax.Array


@struct.dataclass
class CounterParams(environment.EnvParams):
    max_steps_in_episode: int = 5
    start: float = 0.0
    goal: float = 100.0


class GymnaxCounter(environment.Environment):
    """Adds the action to a place that starts near ``start`` and ends at ``goal``."""

    @property
    def default_params(self):
        return CounterParams()

    def reset_env(self, key, params):
        place = params.start + 0.25 * jax.random.uniform(key)
        return self.see(place), CounterState(time=0, place=place)

    def step_env(self, key, state, action, params):
        place = state.place + action
        state = CounterState(time=state.time + 1, place=place)
        terminated = place >= params.goal
        return self.see(place), state, place, terminated, {"discount": 1 - terminated}

    def see(self, place):
        return jnp.stack([place, -place, 2 * place])

    def action_space(self, params):
        return spaces.Discrete(4)

    def observation_space(self, params):
        return spaces.Box(jnp.array([-9.0, -8.0, -7.0]), 200.0, (3,))


class Counter(envs.Environment, GymnaxCounter):
    """The same with the reset in a branch."""


@pytest.fixture(scope="session")
def counter():
    return Counter()


@pytest.fixture(scope="session")
def gymnax_counter():
    return GymnaxCounter()


@pytest.fixture(scope="session")
def roll():
    """``roll(env, key, actions, params)``: all that the steps return, stacked."""

    def run(env, key, actions, params):
        key_reset, key_steps = jax.random.split(key)
        _, state = env.reset(key_reset, params)

        def step(state, item):
            key, action = item
            obs, state, *rest = env.step(key, state, action, params)
            return state, (obs, state, *rest)

        keys = jax.random.split(key_steps, len(actions))
        return jax.lax.scan(step, state, (keys, actions))[1]

    return jax.jit(run, static_argnums=0)
