"""Acting: transitions, and the returns of episodes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from loplax import precision
from loplax.ppo.problem import Episodes, PPOState, Problem


class Transition(NamedTuple):
    """What happened in one step, ``[..., num_envs]`` each.

    Attributes:
      observation: what the policy saw, ``[..., inputs]``.
      action: what it did.
      log_prob: the action's log probability, in nats.
      reward: what it got; NaN if what the action led to is not finite.
      terminated: whether the episode ended by itself.
      truncated: whether it ended by a time limit.
      following: what the action led to, ``[..., inputs]``; not the next episode's
        first observation.
    """

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    following: jax.Array


def collect(problem: Problem, state: PPOState) -> tuple[PPOState, Transition]:
    """Acts for ``num_steps`` steps in every environment.

    Args:
      problem: what to learn.
      state: where the run stands.

    Returns:
      The state, and the transitions, ``[num_steps, num_envs, ...]``.
    """
    key, key_steps = jax.random.split(state.key)
    step = jax.vmap(problem.env.step, in_axes=(0, 0, 0, None))
    space = problem.env.action_space(problem.env_params)
    bound = lambda action: action
    if problem.clip_actions and problem.policy.continuous:
        bound = lambda action: jnp.clip(action, space.low, space.high)

    def one(carry, key):
        env, observation, episodes = carry
        key_act, key_env = jax.random.split(key)
        outputs, _ = problem.apply(state.params, observation)
        action = problem.policy.sample(key_act, outputs)
        keys = jax.random.split(key_env, problem.num_envs)
        after, env, reward, terminated, truncated, info = step(
            keys, env, bound(action), problem.env_params
        )
        following = flat(info["final_observation"])
        # Where an episode ends, nothing else would show it: the next one starts afresh.
        sound = jnp.all(jnp.isfinite(following), axis=1)
        reward = jnp.where(sound, reward, jnp.nan)
        seen = Transition(
            observation=observation,
            action=action,
            log_prob=problem.policy.log_prob(outputs, action),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            following=following,
        )
        episodes = _count(episodes, reward, terminated | truncated)
        task = jnp.max(jnp.asarray(info.get("task", 0), jnp.float32))
        episodes = episodes._replace(task=task)
        return precision.like((env, flat(after), episodes), carry), seen

    carry = (state.env, state.observation, state.episodes)
    keys = jax.random.split(key_steps, problem.num_steps)
    (env, observation, episodes), seen = jax.lax.scan(one, carry, keys)
    state = state._replace(env=env, observation=observation, episodes=episodes, key=key)
    return state, seen


def flat(observation: jax.Array) -> jax.Array:
    """Observations of several environments as vectors of floats."""
    return observation.reshape(len(observation), -1).astype(float)


def _count(episodes: Episodes, reward: jax.Array, ended: jax.Array) -> Episodes:
    sums = episodes.sums + jnp.stack([reward, jnp.ones_like(reward)])
    return episodes._replace(
        sums=jnp.where(ended, 0, sums),
        ended=episodes.ended + jnp.sum(jnp.where(ended, sums, 0), axis=1),
        number=episodes.number + jnp.sum(ended),
    )


def close(episodes: Episodes) -> tuple[jax.Array, Episodes]:
    """Means over the episodes of a bin, and what is left for the next bin."""
    means = episodes.ended / episodes.number
    last = jnp.where(episodes.number > 0, means, episodes.last)
    ended, number = map(jnp.zeros_like, (episodes.ended, episodes.number))
    return last, episodes._replace(ended=ended, number=number, last=last)
