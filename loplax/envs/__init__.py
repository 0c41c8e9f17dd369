"""Reinforcement-learning problems with the signature of gymnax 1.x.

``env.reset(key, params)`` returns ``(obs, state)``; ``env.step(key, state, action,
params)`` returns ``(obs, state, reward, terminated, truncated, info)`` and begins the
next episode where one ends. All that may change without recompilation is in ``params``.
"""

from loplax import extras

with extras.needed("rl", "loplax.envs"):
    from loplax.envs.base import Environment, Wrapper
    from loplax.envs.brax import Brax
    from loplax.envs.changes import listed, permuted, scaled, shifted
    from loplax.envs.changing import Changing
    from loplax.envs.named import make
    from loplax.envs.perturbed import Perturbed
    from loplax.envs.slippery_ant import slippery_ant

__all__ = [
    "Brax",
    "Changing",
    "Environment",
    "Perturbed",
    "Wrapper",
    "listed",
    "make",
    "permuted",
    "scaled",
    "shifted",
    "slippery_ant",
]
