r"""Proximal policy optimisation: one environment or many, one network, one run.

From ``num_envs`` environments ``num_steps`` transitions each are collected. With the
value :math:`V` of observations :math:`o_t` and of what followed them, :math:`o'_t`,
rewards :math:`r_t`, and :math:`\text{term}_t`, :math:`\text{end}_t \in \{0, 1\}` where
an episode was terminated, or ended for whatever reason,

.. math::
  \delta_t &= r_t + \gamma (1 - \text{term}_t) V(o'_t) - V(o_t) \\
  A_t &= \delta_t + \gamma \lambda (1 - \text{end}_t) A_{t+1}, \quad R_t = A_t + V(o_t)

and with :math:`\hat A` the advantages normalised over all that was collected, each step
on one of the minibatches, in ``epochs`` random orders, lowers the mean of

.. math::
  -\min(\rho \hat A, \operatorname{clip}(\rho, 1 - \epsilon, 1 + \epsilon) \hat A)
  + c_v (V - R)^2 - c_e H, \quad \rho = \pi(a | o) / \pi_\text{old}(a | o)

References:
  Schulman et al., `Proximal policy optimization algorithms
  <https://arxiv.org/abs/1707.06347>`_, 2017; as in Dohare et al., `Loss of plasticity
  in deep continual learning <https://doi.org/10.1038/s41586-024-07711-7>`_, Nature 632,
  2024, Methods.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from loplax import diagnostics, metrics, policies, units
from loplax.optim import checks

PROBE = 2048  # observations on which the diagnostics are taken, at most
ROWS = 16_384  # observations that are valued at once: activations take memory


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


class Episodes(NamedTuple):
    """Returns and lengths of episodes.

    Attributes:
      sums: return and length so far of those under way, ``[2, num_envs]``.
      ended: sums over the episodes that have ended in the current bin, ``[2]``.
      number: how many these are.
      last: means over those of the last bin in which any ended, ``[2]``; 0 before.
    """

    sums: jax.Array
    ended: jax.Array
    number: jax.Array
    last: jax.Array


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


class Transition(NamedTuple):
    """What happened in one step, ``[..., num_envs]`` each.

    Attributes:
      observation: what the policy saw, ``[..., inputs]``.
      action: what it did.
      log_prob: the action's log probability, in nats.
      reward: what it got.
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


# (hparams, key, data) -> Problem
Build = Callable[[dict[str, jax.Array], jax.Array, Any], Problem]


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
    observation = _flat(observation)
    _, values = jax.eval_shape(problem.apply, params, observation)
    if values.shape != (problem.num_envs,):
        raise ValueError(
            f"apply must return values of shape {(problem.num_envs,)} for as many "
            f"observations, got {values.shape}."
        )
    episodes = Episodes(
        jnp.zeros((2, problem.num_envs)), jnp.zeros(2), jnp.zeros(()), jnp.zeros(2)
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


def check(problem: Problem) -> None:
    """Raises ``ValueError`` for numbers out of range, counts that do not fit."""
    for name in ("num_envs", "num_steps", "epochs", "minibatches"):
        checks.integer(name, getattr(problem, name), 1)
    for name in ("gamma", "gae_lambda"):
        checks.number(name, getattr(problem, name), 0, 1)
    for name in ("clip", "value_weight", "entropy_weight"):
        checks.number(name, getattr(problem, name))
    collected = problem.num_envs * problem.num_steps
    if collected % problem.minibatches:
        raise ValueError(
            f"minibatches ({problem.minibatches}) must divide num_envs * num_steps "
            f"({collected})."
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
        the bin; those of the last bin in which any did if none did, and 0 before that;
      - what `estimate` and `learn` measure, and ``weight_change``, ``sum|change|`` in
        an update, of every part: means over the bin's updates;
      - what `observe` does, at the end of the bin, on observations of the last update.

    Raises:
      ValueError: as `init`, or if there are no bins or no updates in them.

    Example:
      >>> from loplax import envs, nets, optim
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
      ...   return Problem(env, env_params, first, apply, policy, tx,
      ...                  {"": Part(hidden)}, num_steps=64, minibatches=4)
      >>> def train(key, rate):
      ...   state = init(build, key, {"learning_rate": rate})
      ...   return segment(build, state, bins=2, updates=3)[1]["return"]
      >>> keys, rates = jax.random.split(jax.random.key(0), 2), jnp.array([1e-3, 1e-2])
      >>> seeds = jax.vmap(train, in_axes=(0, None))
      >>> jax.jit(jax.vmap(seeds, in_axes=(None, 0)))(keys, rates).shape
      (2, 2, 2)
    """
    problem = build(state.hparams, state.key_build, data)
    check(problem)
    checks.integer("bins", bins, 1)
    checks.integer("updates", updates, 1)

    def one_update(carry, _):
        state, collected = collect(problem, carry[0])
        batch, found = estimate(problem, state.params, collected)
        before = state.params
        state, learned = learn(problem, state, batch)
        for prefix, part in problem.parts.items():
            both = part.params(before), part.params(state.params)
            found[f"{prefix}weight_change"] = metrics.weight_change(*both)
        return (state, _probe(batch.observation)), found | learned

    def one_bin(carry, _):
        (state, probe), found = jax.lax.scan(one_update, carry, None, length=updates)
        found = jax.tree.map(jnp.mean, found) | observe(problem, state, probe)
        found["episodes"] = state.episodes.number
        (found["return"], found["length"]), episodes = _close(state.episodes)
        return (state._replace(episodes=episodes), probe), found

    size = problem.num_envs * problem.num_steps
    probe = _probe(jnp.zeros((size, state.observation.shape[1])))
    (state, _), found = jax.lax.scan(one_bin, (state, probe), None, length=bins)
    return state, found


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
        seen = Transition(
            observation=observation,
            action=action,
            log_prob=problem.policy.log_prob(outputs, action),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            following=_flat(info["final_observation"]),
        )
        episodes = _count(episodes, reward, terminated | truncated)
        return (env, _flat(after), episodes), seen

    carry = (state.env, state.observation, state.episodes)
    keys = jax.random.split(key_steps, problem.num_steps)
    (env, observation, episodes), seen = jax.lax.scan(one, carry, keys)
    state = state._replace(env=env, observation=observation, episodes=episodes, key=key)
    return state, seen


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
      of the targets by the values, ``1 - var(target - value) / var(target)``, or 0
      where the targets are all alike.
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

    start = jnp.zeros_like(deltas[0])
    _, advantages = jax.lax.scan(back, start, (deltas, ended), reverse=True)
    targets = advantages + values
    normal = (advantages - jnp.mean(advantages)) / (jnp.std(advantages) + 1e-8)
    variance = jnp.var(targets)
    unexplained = jnp.var(advantages) / jnp.where(variance == 0, 1, variance)
    found = {
        "reward": jnp.mean(collected.reward),
        "explained_variance": jnp.where(variance == 0, 0, 1 - unexplained),
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
        updates, opt = problem.tx.update(grads, opt, params, features=features)
        replaced = optax.tree.get_all_with_path(opt, "replaced")
        found["replacements"] = sum(
            (jnp.sum(x) for x in jax.tree.leaves([value for _, value in replaced])),
            jnp.zeros((), jnp.int32),
        )
        return (optax.apply_updates(params, updates), opt), found

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
        gain = jnp.minimum(ratio * items.advantage, near * items.advantage)
        found = {
            "policy_loss": -jnp.mean(gain),
            "value_loss": jnp.mean((values - items.target) ** 2),
            "entropy": jnp.mean(problem.policy.entropy(outputs)),
            "kl": jnp.mean(ratio - 1 - log_ratio),
            "clip_fraction": jnp.mean(jnp.abs(ratio - 1) > problem.clip),
        }
        found["loss"] = (
            found["policy_loss"]
            + problem.value_weight * found["value_loss"]
            - problem.entropy_weight * found["entropy"]
        )
        return found["loss"], (features, found)

    return objective


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
    found = {}
    for prefix, part in problem.parts.items():
        weights = part.params(state.params), part.params(state.initial)
        layers = [features[group.name] for group in part.groups]
        here = diagnostics.of_weights(*weights) | diagnostics.of_features(layers)
        found |= {f"{prefix}{name}": value for name, value in here.items()}
    return jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), found)


def _flat(observation: jax.Array) -> jax.Array:
    """Observations of several environments as vectors."""
    return observation.reshape(len(observation), -1).astype(jnp.float32)


def _probe(observations: jax.Array) -> jax.Array:
    """Rows of steps and environments at random, always the same, at most ``PROBE``."""
    rows = np.random.default_rng(0).permutation(len(observations))[:PROBE]
    return observations[np.sort(rows)]


def _count(episodes: Episodes, reward: jax.Array, ended: jax.Array) -> Episodes:
    sums = episodes.sums + jnp.stack([reward, jnp.ones_like(reward)])
    return episodes._replace(
        sums=jnp.where(ended, 0, sums),
        ended=episodes.ended + jnp.sum(jnp.where(ended, sums, 0), axis=1),
        number=episodes.number + jnp.sum(ended),
    )


def _close(episodes: Episodes) -> tuple[jax.Array, Episodes]:
    """Means over the episodes of a bin, and what is left for the next bin."""
    means = episodes.ended / jnp.maximum(episodes.number, 1)
    last = jnp.where(episodes.number > 0, means, episodes.last)
    zeros = jnp.zeros_like
    return last, Episodes(
        episodes.sums, zeros(episodes.ended), zeros(episodes.number), last
    )
