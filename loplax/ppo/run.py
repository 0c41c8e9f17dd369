"""Whole runs: init and segment, pure functions of a key and numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from loplax import checks, diagnostics, metrics, units
from loplax.ppo import acting, learning
from loplax.ppo.problem import Build, Episodes, PPOState, Problem, check

PROBE = 2048  # observations on which the diagnostics are taken, at most


def init(
    build: Build, key: jax.Array, hparams: dict[str, jax.Array], data: Any = ()
) -> PPOState:
    """Starts a run.

    Args:
      build: ``(hparams, key, data) -> Problem``.
      key: the run's key.
      hparams: the numeric settings.
      data: arrays that all runs share.

    Returns:
      The state before the first transition.

    Raises:
      ValueError: for a number out of range, if the minibatches do not divide what is
        collected, or if the network's values are not ``[batch]``.
    """
    key_build, key_net, key_env, key = jax.random.split(key, 4)
    problem = build(hparams, key_build, data)
    check(problem)
    params = problem.init(key_net)
    keys = jax.random.split(key_env, problem.num_envs)
    reset = jax.vmap(problem.env.reset, in_axes=(0, None))
    observation, env = reset(keys, problem.env_params)
    observation = acting.flat(observation)
    _, values = jax.eval_shape(problem.apply, params, observation)
    if values.shape != (problem.num_envs,):
        raise ValueError(
            f"apply must return values of shape {(problem.num_envs,)} for as many "
            f"observations, got {values.shape}."
        )
    episodes = Episodes(
        sums=jnp.zeros((2, problem.num_envs)),
        ended=jnp.zeros(2),
        number=jnp.zeros(()),
        last=jnp.full(2, jnp.nan),
        task=jnp.zeros(()),
    )
    return PPOState(
        params=params,
        initial=jax.tree.map(jnp.copy, params),  # so that the state can be donated
        opt=problem.tx.init(params),
        env=env,
        observation=observation,
        episodes=episodes,
        hparams=hparams,
        key_build=key_build,
        key=key,
    )


def segment(
    build: Build, state: PPOState, data: Any = (), *, bins: int, updates: int
) -> tuple[PPOState, dict[str, jax.Array]]:
    """Learns from ``bins * updates * num_steps * num_envs`` transitions.

    ``jit(vmap(vmap(...)))`` of `init` and this is a whole experiment over settings and
    seeds.

    Args:
      build: as for `init`.
      state: where the run stands.
      data: as for `init`.
      bins: number of bins of the metrics.
      updates: collections per bin, each followed by learning.

    Returns:
      The state, and metrics ``[bins]``:

      - ``return`` and ``length``: means over the ``episodes``, a number, that ended in
        the bin; those of the last bin in which any did if none did, NaN before that;
      - ``task``: the number, from 0, of the task of the bin's last step, of the
        environment that is furthest: what it calls ``info["task"]``, 0 if nothing;
      - what `estimate` and `learn` measure, and ``weight_change``, ``sum|change|`` in
        an update, of every part: means over the bin's updates (``explained_variance``:
        over those in which it exists);
      - what `observe` does, at the end of the bin, on observations of the last update.

    Raises:
      ValueError: as `init`, or if there are no bins or no updates in them.

    Example:
      >>> import optax
      >>> from loplax import envs, nets, optim, ppo, units
      >>> from loplax.ppo import policies
      >>> env, env_params = envs.make("CartPole-v1")
      >>> policy = policies.over(env.action_space(env_params))
      >>> net = nets.ActorCritic((8,), policy.actions, policy.continuous)
      >>> apply = lambda params, x: net.apply({"params": params}, x)
      >>> first = lambda key: net.init(key, jnp.ones((1, 4)))["params"]
      >>> hidden = units.find(apply, first(jax.random.key(0)), jnp.ones((1, 4)))
      >>> def build(hparams, key, data):
      ...   tx = optim.continual_backprop(
      ...       optax.adam(hparams["learning_rate"]), hidden, key=key,
      ...       replacement_rate=1e-4, max_replacements=1)
      ...   return ppo.Problem(env, env_params, first, apply, policy, tx,
      ...                  {"": ppo.Part(hidden)}, num_steps=64, minibatches=4)
      >>> def train(key, rate):
      ...   state = ppo.init(build, key, {"learning_rate": rate})
      ...   return ppo.segment(build, state, bins=2, updates=3)[1]["return"]
      >>> keys, rates = jax.random.split(jax.random.key(0), 2), jnp.array([1e-3, 1e-2])
      >>> seeds = jax.vmap(train, in_axes=(0, None))
      >>> jax.jit(jax.vmap(seeds, in_axes=(None, 0)))(keys, rates).shape
      (2, 2, 2)
    """
    problem = build(state.hparams, state.key_build, data)
    check(problem)
    checks.whole("bins", bins, 1)
    checks.whole("updates", updates, 1)

    def one_update(carry, _):
        state, collected = acting.collect(problem, carry[0])
        batch, found = learning.estimate(problem, state.params, collected)
        before = state.params
        state, learned = learning.learn(problem, state, batch)
        for prefix, part in problem.parts.items():
            both = part.params(before), part.params(state.params)
            found[f"{prefix}weight_change"] = metrics.weight_change(*both)
        return (state, _probe(batch.observation)), found | learned

    def one_bin(carry, _):
        (state, probe), found = jax.lax.scan(one_update, carry, None, length=updates)
        # Updates in which it does not exist do not count.
        explained = jnp.nanmean(found["explained_variance"])
        found = jax.tree.map(jnp.mean, found) | observe(problem, state, probe)
        found["explained_variance"] = explained
        found["episodes"], found["task"] = state.episodes.number, state.episodes.task
        (found["return"], found["length"]), episodes = acting.close(state.episodes)
        return (state._replace(episodes=episodes), probe), found

    size = problem.num_envs * problem.num_steps
    probe = _probe(jnp.zeros((size, state.observation.shape[1])))
    (state, _), found = jax.lax.scan(one_bin, (state, probe), None, length=bins)
    return state, found


def observe(
    problem: Problem, state: PPOState, observations: jax.Array
) -> dict[str, jax.Array]:
    """The diagnostics of a network.

    Args:
      problem: what is learned.
      state: where the run stands.
      observations: on which to take them, ``[examples, inputs]``.

    Returns:
      Those of `diagnostics.of_weights` and `diagnostics.of_features` for every part.
    """
    _, features = units.tap(problem.apply)(state.params, observations)
    found: dict[str, jax.Array] = {}
    for prefix, part in problem.parts.items():
        weights = part.params(state.params), part.params(state.initial)
        layers = [features[group.name] for group in part.groups]
        here = diagnostics.of_weights(*weights) | diagnostics.of_features(layers)
        found |= {f"{prefix}{name}": value for name, value in here.items()}
    return diagnostics.floats(found)


def _probe(observations: jax.Array) -> jax.Array:
    """Rows of steps and environments at random, always the same, at most ``PROBE``."""
    rows = np.random.default_rng(0).permutation(len(observations))[:PROBE]
    return observations[np.sort(rows)]
