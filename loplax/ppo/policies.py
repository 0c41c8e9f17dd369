"""Distributions over actions, as pure functions of what a network returns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from loplax import extras

with extras.needed("rl", "loplax.ppo"):
    from gymnax.environments import spaces


class Policy(NamedTuple):
    """A family of distributions over actions.

    Attributes:
      actions: number of actions, or of their components: what a network returns.
      continuous: whether actions are vectors of real numbers.
      sample: ``(key, outputs) -> actions``.
      log_prob: ``(outputs, actions) -> [...]``, in nats.
      entropy: ``outputs -> [...]``, in nats.
    """

    actions: int
    continuous: bool
    sample: Callable[[jax.Array, Any], jax.Array]
    log_prob: Callable[[Any, jax.Array], jax.Array]
    entropy: Callable[[Any], jax.Array]


def categorical(actions: int) -> Policy:
    r"""One of several actions, with probabilities :math:`\operatorname{softmax}(z)`.

    Args:
      actions: their number.

    Returns:
      The policy; ``outputs`` are the logits ``[..., actions]``.

    Example:
      >>> policy = categorical(2)
      >>> logits = jnp.log(jnp.array([0.25, 0.75]))
      >>> round(float(jnp.exp(policy.log_prob(logits, jnp.array(1)))), 6)
      0.75
    """

    def log_prob(logits, action):
        log_probs = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]

    def entropy(logits):
        # Not by scipy's entr: its slope at a probability of 0 is infinite.
        log_probs = jax.nn.log_softmax(logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    return Policy(actions, False, jax.random.categorical, log_prob, entropy)


def gaussian(actions: int) -> Policy:
    r"""Independent normal distributions :math:`\mathcal N(\mu_i, \sigma_i^2)`.

    Args:
      actions: number of components of an action.

    Returns:
      The policy; ``outputs`` are :math:`\mu` and :math:`\log \sigma`, each
      ``[..., actions]``.

    Example:
      >>> policy = gaussian(1)
      >>> standard = jnp.zeros(1), jnp.zeros(1)
      >>> round(float(policy.log_prob(standard, jnp.zeros(1))), 4)
      -0.9189
    """

    def sample(key, outputs):
        mean, log_std = outputs
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return mean + jnp.exp(log_std) * noise

    def log_prob(outputs, action):
        mean, log_std = outputs
        each = jax.scipy.stats.norm.logpdf(action, mean, jnp.exp(log_std))
        return jnp.sum(each, axis=-1)

    def entropy(outputs):
        _, log_std = outputs
        return jnp.sum(log_std + 0.5 * jnp.log(2 * jnp.pi * jnp.e), axis=-1)

    return Policy(actions, True, sample, log_prob, entropy)


def over(space: spaces.Space) -> Policy:
    """The policy over an action space of gymnax.

    Args:
      space: a ``Discrete`` space, or a ``Box`` of vectors.

    Returns:
      `categorical` or `gaussian`.

    Raises:
      ValueError: for any other space.
    """
    if isinstance(space, spaces.Discrete):
        return categorical(space.n)
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return gaussian(space.shape[0])
    raise ValueError(f"actions must be Discrete or a Box of vectors, got {space}.")
