"""Learning from transitions: advantages, and the steps of an update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import optim, precision, units
from loplax.ppo.acting import Transition
from loplax.ppo.problem import PPOState, Problem

ROWS = 16_384  # observations that are valued at once: activations take memory


class Batch(NamedTuple):
    """What to learn from, ``[num_steps * num_envs, ...]`` each.

    Attributes:
      observation: what the policy saw, ``[..., inputs]``.
      action: what it did.
      log_prob: the action's log probability then, in nats.
      advantage: normalised advantages.
      target: what the value should have been.
    """

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    advantage: jax.Array
    target: jax.Array


def estimate(
    problem: Problem, params: Any, collected: Transition
) -> tuple[Batch, dict[str, jax.Array]]:
    """Advantages by generalised advantage estimation, and targets of the values.

    Args:
      problem: what to learn.
      params: the parameters with which the transitions were collected.
      collected: the transitions, ``[num_steps, num_envs, ...]``.

    Returns:
      What to learn from, and means over it: ``reward``, and the ``explained_variance``
      of the targets by the values, ``1 - var(target - value) / var(target)``, which is
      NaN where the targets are all alike.
    """

    def value(observation):
        rows = observation.reshape(-1, observation.shape[-1])
        if len(rows) <= ROWS:
            values = problem.apply(params, rows)[1]
        else:
            one = lambda row: problem.apply(params, row[None])[1][0]
            values = jax.lax.map(one, rows, batch_size=ROWS)
        return values.reshape(observation.shape[:-1])

    terminated, ended = collected.terminated, collected.terminated | collected.truncated
    if not problem.bootstrap:
        terminated = ended
    values = value(collected.observation)
    going_on = jnp.where(terminated, 0, value(collected.following))
    deltas = collected.reward + problem.gamma * going_on - values

    def back(advantage, now):
        delta, ended = now
        trace = problem.gamma * problem.gae_lambda * advantage
        advantage = delta + jnp.where(ended, 0, trace)
        return advantage, advantage

    dtype = jnp.result_type(deltas, problem.gamma, problem.gae_lambda)
    start = jnp.zeros_like(deltas[0], dtype)
    _, advantages = jax.lax.scan(back, start, (deltas, ended), reverse=True)
    targets = advantages + values
    normal = (advantages - jnp.mean(advantages)) / (jnp.std(advantages) + 1e-8)
    variance = jnp.var(targets)
    unexplained = jnp.var(advantages) / jnp.where(variance == 0, jnp.nan, variance)
    found = {
        "reward": jnp.mean(collected.reward),
        "explained_variance": 1 - unexplained,
    }
    batch = Batch(
        collected.observation, collected.action, collected.log_prob, normal, targets
    )
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch), found


def learn(
    problem: Problem, state: PPOState, batch: Batch
) -> tuple[PPOState, dict[str, jax.Array]]:
    """Learns from what was collected, in minibatches.

    Args:
      problem: what to learn.
      state: where the run stands.
      batch: what to learn from.

    Returns:
      The state, and means over all steps: ``loss``, ``policy_loss``, ``value_loss``,
      ``entropy`` in nats, ``kl`` (of the old policy from the new, estimated by
      ``mean(ratio - 1 - log ratio)``), and ``clip_fraction`` (of ratios that are
      clipped); and the number of ``replacements``.
    """
    key, key_epochs = jax.random.split(state.key)
    objective = jax.grad(_objective(problem), has_aux=True)

    def one_minibatch(carry, chosen):
        params, opt = carry
        items = jax.tree.map(lambda x: x[chosen], batch)
        grads, (features, found) = objective(params, items)
        updates, after = problem.tx.update(grads, opt, params, features=features)
        replaced = jax.tree.map(jnp.sum, optim.newly_replaced(opt, after))
        found["replacements"] = sum(replaced.values(), jnp.zeros((), jnp.int32))
        params = optax.apply_updates(params, updates)
        return precision.like((params, after), carry), found

    def one_epoch(carry, key):
        order = jax.random.permutation(key, batch.target.size)
        order = order.reshape(problem.minibatches, -1)
        return jax.lax.scan(one_minibatch, carry, order)

    keys = jax.random.split(key_epochs, problem.epochs)
    carry = (state.params, state.opt)
    (params, opt), found = jax.lax.scan(one_epoch, carry, keys)
    replacements = jnp.sum(found.pop("replacements"))
    found = jax.tree.map(jnp.mean, found) | {"replacements": replacements}
    return state._replace(params=params, opt=opt, key=key), found


def _objective(problem: Problem) -> Callable[[Any, Batch], tuple[jax.Array, Any]]:
    """The loss of a minibatch, with the features and what is measured."""
    forward = units.tap(problem.apply)

    def objective(params, items):
        (outputs, values), features = forward(params, items.observation)
        log_prob = problem.policy.log_prob(outputs, items.action)
        log_ratio = log_prob - items.log_prob
        ratio = jnp.exp(log_ratio)
        near = jnp.clip(ratio, 1 - problem.clip, 1 + problem.clip)
        clipped = jnp.abs(ratio - 1) > problem.clip
        gain = jnp.minimum(ratio * items.advantage, near * items.advantage)
        found = {
            "policy_loss": -jnp.mean(gain),
            "value_loss": jnp.mean((values - items.target) ** 2),
            "entropy": jnp.mean(problem.policy.entropy(outputs)),
            "kl": jnp.mean(ratio - 1 - log_ratio),
            "clip_fraction": jnp.mean(jnp.where(jnp.isnan(ratio), ratio, clipped)),
        }
        found["loss"] = (
            found["policy_loss"]
            + problem.value_weight * found["value_loss"]
            - problem.entropy_weight * found["entropy"]
        )
        return found["loss"], (features, found)

    return objective
