"""Brax environments with the signature of gymnax."""

import copy
import warnings
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from loplax import extras
from loplax.envs import base, checks

NAMES = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
)
BACKENDS = ("spring", "positional", "generalized", "mjx")


@struct.dataclass
class BraxState(environment.EnvState):
    """State of `Brax`.

    Attributes:
      time: steps taken in this episode.
      physics: brax's pipeline state.
    """

    physics: Any


@struct.dataclass
class BraxParams(environment.EnvParams):
    """Parameters of `Brax`.

    Attributes:
      max_steps_in_episode: after which an episode is truncated.
      friction: factor on the sliding friction of all geoms.
    """

    max_steps_in_episode: int = 1000
    friction: float = 1.0


class Brax(base.Environment):
    r"""A brax environment: ant, hopper, walker2d, halfcheetah, humanoid and others.

    A contact slides with the larger friction of the two geoms that touch, in all
    backends, so ``params.friction`` multiplies the friction of every contact. In the
    ant all geoms have a sliding friction of 1, as in Ant-v3: there it *is* the
    coefficient between foot and ground. It may be traced.

    Episodes are terminated by brax's ``done`` alone. What the physics returns is passed
    on as it is, NaN included; a step to positions or velocities that are not finite
    has a reward of NaN, also where brax's does not depend on them. Actions are in
    [-1, 1] in every environment.

    Args:
      name: one of ``NAMES``.
      backend: one of ``BACKENDS``, the physics engine. They are four different physics:
        returns do not compare across them.
      **settings: of brax's own constructor, ``terminate_when_unhealthy`` for example.

    Raises:
      ValueError: for an unknown name or backend.
      ImportError: if brax is not installed.

    Example:
      >>> env = Brax("ant")  # doctest: +SKIP
      >>> params = env.default_params.replace(friction=0.02)  # doctest: +SKIP
      >>> obs, state = env.reset(jax.random.key(0), params)  # doctest: +SKIP

    References:
      Freeman et al., `Brax - a differentiable physics engine for large scale rigid body
      simulation <https://arxiv.org/abs/2106.13281>`_, 2021.
    """

    def __init__(self, name: str, backend: str = "spring", **settings):
        """Loads the model."""
        checks.one_of("brax environment", name, NAMES)
        checks.one_of("backend", backend, BACKENDS)
        self._name = name
        self._brax = _load(name, backend, settings)
        self._first = jax.eval_shape(self._brax.reset, jax.random.key(0))

    def step_env(self, key, state, action, params):
        """One step of the physics."""
        del key
        # All that brax's environments read is the physics; those that never terminate
        # leave `done` as it was, and all write their metrics into the given dictionary.
        before = self._first.replace(
            pipeline_state=state.physics, done=jnp.zeros(()), metrics={}, info={}
        )
        after = self._with(params.friction).step(before, action)
        terminated, physics = after.done.astype(bool), after.pipeline_state
        sound = jnp.all(jnp.isfinite(physics.q)) & jnp.all(jnp.isfinite(physics.qd))
        reward = jnp.where(sound, after.reward, jnp.nan)
        state = BraxState(time=state.time + 1, physics=physics)
        info = {"discount": 1.0 - terminated}
        return after.obs, state, reward, terminated, info

    def reset_env(self, key, params):
        """Draws the first state of an episode."""
        first = self._with(params.friction).reset(key)
        return first.obs, BraxState(time=jnp.int32(0), physics=first.pipeline_state)

    def _with(self, friction):
        """The brax environment with its sliding frictions multiplied."""
        env, sys = copy.copy(self._brax), self._brax.sys
        env.sys = sys.replace(
            geom_friction=sys.geom_friction.at[:, 0].multiply(friction)
        )
        return env

    @property
    def default_params(self) -> BraxParams:
        """Episodes of 1000 steps, the model's own friction."""
        return BraxParams()

    @property
    def name(self) -> str:
        """Brax's name."""
        return self._name

    @property
    def num_actions(self) -> int:
        """Number of components of an action."""
        return self._brax.action_size

    def action_space(self, params=None) -> spaces.Box:
        """Torques or forces, in units of their limits."""
        return spaces.Box(-1.0, 1.0, (self.num_actions,))

    def observation_space(self, params=None) -> spaces.Box:
        """Positions and velocities."""
        return spaces.Box(-jnp.inf, jnp.inf, self._first.obs.shape)


def _load(name, backend, settings):
    with extras.needed("brax", repr(name)):
        from brax import envs
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Brax System")
        return envs.get_environment(name, backend=backend, **settings)
