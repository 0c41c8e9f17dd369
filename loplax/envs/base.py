"""Environments that compute a reset only where an episode ends."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import environment

from loplax import branch


class Environment(environment.Environment):
    """A gymnax environment whose reset is a branch, also under ``vmap``.

    gymnax computes a reset at every step and selects; here a batch of environments
    computes one only in a step in which some episode of the batch ends. A subclass
    writes ``step_env``, ``reset_env``, ``default_params`` and the two spaces, as in
    gymnax. It may also write `restart`, which sees the state the episode ended in.

    Example:
      >>> import jax
      >>> from gymnax.environments.classic_control import cartpole
      >>> class InBranch(Environment, cartpole.CartPole):
      ...     '''CartPole that resets in a branch.'''
      >>> env, key = InBranch(), jax.random.key(0)
      >>> params = env.default_params.replace(max_steps_in_episode=1)
      >>> _, state = env.reset(key, params)
      >>> obs, state, reward, terminated, truncated, info = env.step(
      ...     key, state, 0, params)
      >>> bool(terminated), bool(truncated), int(state.time), sorted(info)
      (False, True, 0, ['discount', 'final_observation', 'terminated', 'truncated'])
    """

    @functools.partial(jax.jit, static_argnames=("self",))
    def step(self, key, state, action, params=None):
        """One transition; where it ends an episode, the next one begins.

        Args:
          key: typed key of this step.
          state: of the environment.
          action: an element of ``action_space(params)``.
          params: of the environment; ``default_params`` if None.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``. Where an episode ended,
          ``obs`` and ``state`` begin the next; ``info["final_observation"]`` is the
          observation that the action led to. ``terminated`` and ``truncated`` may both
          be true.
        """
        params = self.default_params if params is None else params
        key_step, key_reset = jax.random.split(key)
        final, state, reward, terminated, info = self.step_env(
            key_step, state, action, params
        )
        truncated = self.is_truncated(state, params)
        obs, state = branch.cond(
            jnp.logical_or(terminated, truncated),
            self.restart,
            lambda key, state, params: (final, state),
            key_reset,
            state,
            params,
        )
        outcome = {"terminated": terminated, "truncated": truncated}
        info = {**info, **outcome, "final_observation": final}
        return obs, state, reward, terminated, truncated, info

    def restart(self, key: jax.Array, state: Any, params: Any) -> tuple[Any, Any]:
        """Begins the next episode; ``state`` is the one in which the last ended."""
        del state
        return self.reset_env(key, params)


class Wrapper(Environment):
    """An environment around another, whose parameters are ``params.inner``.

    Args:
      env: any gymnax environment; its own ``step`` is not used.

    Raises:
      ValueError: if ``env`` is not a gymnax environment.
    """

    def __init__(self, env: environment.Environment):
        """Keeps the environment as ``inner``."""
        if not isinstance(env, environment.Environment):
            raise ValueError(f"env must be a gymnax environment, got {env!r}.")
        self.inner = env

    def restart_inner(self, key, state, params):
        """`Environment.restart` of the inner environment, whoever wrote it."""
        if isinstance(self.inner, Environment):
            return self.inner.restart(key, state, params)
        return self.inner.reset_env(key, params)

    @property
    def name(self) -> str:
        """Name of the inner environment."""
        return self.inner.name

    @property
    def num_actions(self) -> int:
        """Number of actions, or of their components."""
        return self.inner.num_actions

    def action_space(self, params):
        """That of the inner environment."""
        return self.inner.action_space(params.inner)

    def observation_space(self, params):
        """That of the inner environment."""
        return self.inner.observation_space(params.inner)
