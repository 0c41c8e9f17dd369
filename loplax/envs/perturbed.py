"""Environments whose observations are permuted and shifted."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces

from loplax.envs import base


@struct.dataclass
class PerturbedParams:
    """Parameters of `Perturbed`.

    Attributes:
      inner: of the inner environment.
      permutation: of the flat observation, int32 ``[n]``.
      offset: added after it, ``[n]``.
    """

    inner: Any
    permutation: jax.Array
    offset: jax.Array


class Perturbed(base.Wrapper):
    r"""An environment seen through a permutation and an offset of its observation.

    .. math::
      o'_i = o_{\pi(i)} + \Delta_i

    The observation is flattened, images too, and becomes floats. By default nothing
    else happens to it; ``Changing(Perturbed(env), permuted(), period=...)`` is a
    sequence of tasks that differ in nothing but how they are seen.

    Args:
      env: any gymnax environment whose observations are arrays.

    Raises:
      ValueError: if its observations are something else.

    Example:
      >>> import jax, jax.numpy as jnp, gymnax
      >>> inner, _ = gymnax.make("CartPole-v1")
      >>> env, key = Perturbed(inner), jax.random.key(0)
      >>> params = env.default_params.replace(permutation=jnp.array([3, 2, 1, 0]))
      >>> bool((env.reset(key, params)[0] == inner.reset(key)[0][::-1]).all())
      True
    """

    def __init__(self, env):
        """Looks at the shape of the observations."""
        super().__init__(env)
        space = env.observation_space(env.default_params)
        if not isinstance(space, spaces.Box):
            raise ValueError(f"observations must be arrays, got {space} ({env.name}).")
        self._size = math.prod(space.shape)

    def step_env(self, key, state, action, params):
        """One step of the inner environment."""
        obs, *rest = self.inner.step_env(key, state, action, params.inner)
        return self._see(obs, params), *rest

    def reset_env(self, key, params):
        """First state of the inner environment."""
        obs, state = self.inner.reset_env(key, params.inner)
        return self._see(obs, params), state

    def restart(self, key, state, params):
        """Next episode of the inner environment."""
        obs, state = self.restart_inner(key, state, params.inner)
        return self._see(obs, params), state

    def is_truncated(self, state, params):
        """Whether the inner environment's time is up."""
        return self.inner.is_truncated(state, params.inner)

    def _see(self, obs, params):
        return obs.ravel().astype(float)[params.permutation] + params.offset

    @property
    def default_params(self) -> PerturbedParams:
        """Those of the inner environment, seen as it is."""
        return PerturbedParams(
            self.inner.default_params, jnp.arange(self._size), jnp.zeros(self._size)
        )

    def observation_space(self, params) -> spaces.Box:
        """The inner one's, flat, permuted and shifted."""
        space = self.inner.observation_space(params.inner)
        see = lambda bound: self._see(
            jnp.broadcast_to(jnp.asarray(bound), space.shape), params
        )
        return spaces.Box(see(space.low), see(space.high), (self._size,))
