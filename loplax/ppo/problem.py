"""What an agent learns, with what, and the state of its run."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from loplax import checks, units
from loplax.ppo import policies


class Part(NamedTuple):
    """A part of the network that the diagnostics look at.

    Attributes:
      groups: its hidden layers.
      params: ``params -> its own``; all of them by default.
    """

    groups: units.Units
    params: Callable[[Any], Any] = lambda params: params


class Problem(NamedTuple):
    """What to learn, with what. Its numbers may be traced; its counts may not.

    Attributes:
      env: an environment with the signature of gymnax 1.x.
      env_params: its parameters. A sequence of tasks has its key there: a build that
        splits its own gives every run its own tasks.
      init: ``key -> params`` of the network.
      apply: ``(params, observations [batch, inputs]) -> (outputs, values [batch])``.
      policy: the distribution over actions that ``outputs`` describe: logits, or means
        and logarithms of standard deviations; see `policies`.
      tx: the transformation.
      parts: what the diagnostics look at, by the beginning of the names that they get:
        ``{"": Part(policy_layers, ...), "value_": Part(value_layers, ...)}``.
      num_envs: environments of a run.
      num_steps: transitions of each before the network learns from them.
      epochs: how often it learns from each transition.
      minibatches: number of steps in an epoch.
      bootstrap: whether the value of what follows counts where an episode ends by a
        time limit; as published it does not.
      clip_actions: whether the environment gets actions clipped to its action space,
        which a Gaussian leaves; as published it does not, and must bear them.
      gamma: discount.
      gae_lambda: decay of the advantages' trace.
      clip: how far the probability ratio may go from 1 before it has no gradient.
      value_weight: weight of the value loss.
      entropy_weight: weight of the entropy.
    """

    env: Any
    env_params: Any
    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array], tuple[Any, jax.Array]]
    policy: policies.Policy
    tx: optax.GradientTransformation
    parts: Mapping[str, Part]
    num_envs: int = 1
    num_steps: int = 2048
    epochs: int = 10
    minibatches: int = 16
    bootstrap: bool = True
    clip_actions: bool = False
    gamma: float | jax.Array = 0.99
    gae_lambda: float | jax.Array = 0.95
    clip: float | jax.Array = 0.2
    value_weight: float | jax.Array = 1.0
    entropy_weight: float | jax.Array = 0.0


def check(problem: Problem) -> None:
    """Raises ``ValueError`` for numbers out of range, counts that do not fit."""
    for name in ("num_envs", "num_steps", "epochs", "minibatches"):
        checks.whole(name, getattr(problem, name), 1)
    for name in ("gamma", "gae_lambda"):
        checks.in_range(name, getattr(problem, name), 0, 1)
    for name in ("clip", "value_weight", "entropy_weight"):
        checks.in_range(name, getattr(problem, name))
    collected = problem.num_envs * problem.num_steps
    if collected % problem.minibatches:
        raise ValueError(
            f"minibatches ({problem.minibatches}) must divide num_envs * num_steps "
            f"({collected})."
        )


class Episodes(NamedTuple):
    """Returns and lengths of episodes.

    Attributes:
      sums: return and length so far of those under way, ``[2, num_envs]``.
      ended: sums over the episodes that have ended in the current bin, ``[2]``.
      number: how many these are.
      last: means over those of the last bin in which any ended, ``[2]``; NaN before.
      task: the largest number, from 0, of a task that any environment was in at the
        last step; 0 where nothing changes.
    """

    sums: jax.Array
    ended: jax.Array
    number: jax.Array
    last: jax.Array
    task: jax.Array


class PPOState(NamedTuple):
    """State of a run, environments included.

    Attributes:
      params: network parameters.
      initial: the parameters at the start.
      opt: state of the transformation.
      env: states of the environments.
      observation: what they show, ``[num_envs, inputs]``.
      episodes: returns and lengths.
      hparams: the numeric settings, float scalars.
      key_build: key given to ``build``.
      key: key of all that is still to be drawn.
    """

    params: Any
    initial: Any
    opt: optax.OptState
    env: Any
    observation: jax.Array
    episodes: Episodes
    hparams: dict[str, jax.Array]
    key_build: jax.Array
    key: jax.Array


# (hparams, key, data) -> Problem
Build = Callable[[dict[str, jax.Array], jax.Array, Any], Problem]
