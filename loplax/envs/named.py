"""Environments by name."""

from typing import Any

import gymnax
from gymnax.environments import environment

from loplax.envs import brax, checks


def make(name: str, **settings: Any) -> tuple[environment.Environment, Any]:
    """Builds an environment of gymnax or brax.

    Args:
      name: one of ``gymnax.registered_envs``, or of ``loplax.envs.brax.NAMES``.
      **settings: of its constructor: ``backend`` for those of brax.

    Returns:
      ``(env, params)``, as ``gymnax.make`` does.

    Raises:
      ValueError: for an unknown name.
      ImportError: if brax is needed and not installed.

    Example:
      >>> env, params = make("CartPole-v1")
      >>> env.num_actions, params.max_steps_in_episode
      (2, 500)
    """
    checks.one_of("environment", name, [*gymnax.registered_envs, *brax.NAMES])
    if name in brax.NAMES:
        env = brax.Brax(name, **settings)
        return env, env.default_params
    return gymnax.make(name, **settings)
