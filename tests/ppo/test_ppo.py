"""PPO: environments whose values and best actions are known, and NumPy's arithmetic."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from loplax import envs, nets, optim, ppo, units
from loplax.ppo import acting, learning, policies, run

pytestmark = pytest.mark.usefixtures("quick_compile")


@struct.dataclass
class State(environment.EnvState):
    """Steps taken, and a random sign that the observation shows."""

    sign: Any


class Probe(environment.Environment):
    """Ends after ``length`` steps, by itself or by the time limit."""

    def __init__(self, reward, length=1, limit=1000, space=None):
        super().__init__()
        self.reward, self.length, self.limit = reward, length, limit
        self.space = space or spaces.Discrete(2)

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=self.limit)

    def reset_env(self, key, params):
        state = State(time=0, sign=jax.random.rademacher(key, (), jnp.float32))
        return self.see(state), state

    def step_env(self, key, state, action, params):
        del key, params
        reward = self.reward(state, jnp.squeeze(action))
        state = state.replace(time=state.time + 1)
        ended = state.time >= self.length
        return self.see(state), state, jnp.float32(reward), ended, {}

    def see(self, state):
        return jnp.stack([state.sign, jnp.float32(state.time)])

    def action_space(self, params):
        return self.space

    def observation_space(self, params):
        return spaces.Box(-10, 10, (2,))


TORQUE = spaces.Box(-1.0, 1.0, (1,))


def made(env, hidden=(16,), method=None, observed=False, **changed):
    """The problem of an environment; whether its units are observed, which is slow."""
    params = env.default_params
    policy = policies.over(env.action_space(params))
    net = nets.ActorCritic(hidden, policy.actions, policy.continuous, "tanh")
    apply = lambda params, x: net.apply({"params": params}, x)
    first = lambda key: net.init(key, jnp.ones((1, 2)))["params"]
    groups = units.find(apply, first(jax.random.key(0)), jnp.ones((1, 2)))
    inner = optax.adam(0.01)
    tx = inner if method is None else method(inner, groups)
    numbers = {"num_envs": 4, "num_steps": 32, "epochs": 4, "minibatches": 4}
    return ppo.Problem(
        env,
        params,
        first,
        apply,
        policy,
        tx,
        {"": ppo.Part(groups)},
        **(numbers | changed),
    )


def learned(problem, updates=50):
    """State and metrics after some updates, the last bin being a tenth of them."""
    build = lambda hparams, key, data: problem
    train = lambda key: ppo.segment(
        build, ppo.init(build, key, {}), bins=10, updates=updates // 10
    )
    return jax.jit(train)(jax.random.key(0))


def values(problem, state, *observations):
    return np.asarray(problem.apply(state.params, jnp.array(observations))[1])


@pytest.mark.parametrize("space", [None, TORQUE], ids=["discrete", "continuous"])
def test_the_value_of_a_constant_reward_is_the_reward(space):
    problem = made(Probe(lambda state, action: 1.0, space=space))
    state, found = learned(problem)
    seen = values(problem, state, [1.0, 0.0], [-1.0, 0.0])
    np.testing.assert_allclose(seen, 1, atol=0.05)
    np.testing.assert_array_equal(found["return"], 1)
    np.testing.assert_array_equal(found["length"], 1)


def test_the_value_depends_on_the_observation():
    problem = made(Probe(lambda state, action: state.sign))
    state, _ = learned(problem)
    seen = values(problem, state, [1.0, 0.0], [-1.0, 0.0])
    np.testing.assert_allclose(seen, [1, -1], atol=0.1)


def test_a_later_reward_is_discounted():
    problem = made(Probe(lambda state, action: state.time == 1, length=2), gamma=0.5)
    state, found = learned(problem)
    seen = values(problem, state, [1.0, 0.0], [1.0, 1.0])
    np.testing.assert_allclose(seen, [0.5, 1], atol=0.1)
    np.testing.assert_array_equal(found["return"], 1)
    np.testing.assert_array_equal(found["length"], 2)


def test_the_best_action_of_two_is_found():
    good = lambda state, action: action == (state.sign > 0)
    problem = made(Probe(good))
    state, found = learned(problem)
    logits, _ = problem.apply(state.params, jnp.array([[1.0, 0], [-1, 0]]))
    assert logits.argmax(1).tolist() == [1, 0]
    assert found["return"][-1] > 0.9 > found["return"][0]
    assert found["entropy"][-1] < 0.1 < found["entropy"][0] < np.log(2)


def test_the_best_torque_is_found():
    """By the median of the seeds: a narrow policy leaps now and then."""
    good = lambda state, action: -((action - 0.5 * state.sign) ** 2)
    problem = made(Probe(good, space=TORQUE))
    build = lambda hparams, key, data: problem

    def outputs(key):
        state = ppo.init(build, key, {})
        state, _ = ppo.segment(build, state, bins=1, updates=20)
        return problem.apply(state.params, jnp.array([[1.0, 0], [-1, 0]]))[0]

    mean, log_std = jax.jit(jax.vmap(outputs))(jax.random.split(jax.random.key(0), 16))
    found = np.median(mean[..., 0], axis=0)
    np.testing.assert_allclose(found, [0.5, -0.5], atol=0.1)
    assert np.all(log_std < -0.3)  # less and less noise


def test_a_time_limit_is_no_end_of_the_return_but_if_it_is_to_be():
    """Constant reward, limit 4, discount 0.5: 2 for ever; 15/8, 7/4, 3/2, 1 till 4."""
    env = Probe(lambda state, action: 1.0, length=1000, limit=4)
    for bootstrap, known in ((True, [2] * 4), (False, [15 / 8, 7 / 4, 3 / 2, 1])):
        problem = made(env, gamma=0.5, bootstrap=bootstrap)
        state, found = learned(problem, updates=100)
        seen = values(problem, state, *([1.0, t] for t in range(4)))
        np.testing.assert_allclose(seen, known, atol=0.15)
        np.testing.assert_array_equal(found["length"], 4)


def test_a_true_end_is_one_at_the_time_limit_too():
    env = Probe(lambda state, action: 1.0, length=4, limit=4)
    problem = made(env, gamma=0.5)
    state, _ = learned(problem, updates=100)
    np.testing.assert_allclose(values(problem, state, [1.0, 3.0]), 1, atol=0.15)


# One update, step by step.


def transitions(rng, steps=6, envs=2):
    """Random transitions in which episodes end in both ways, and in both at once."""
    ends = np.zeros((2, steps, envs), bool)
    ends[0, 1, 0] = ends[1, 3, 0] = ends[0, 2, 1] = ends[1, 2, 1] = True
    observation, following = rng.normal(size=(2, steps, envs, 2)).astype(np.float32)
    reward = rng.normal(size=(steps, envs)).astype(np.float32)
    action = rng.integers(0, 2, (steps, envs))
    log_prob = np.log(rng.uniform(0.3, 0.7, (steps, envs))).astype(np.float32)
    return ppo.Transition(observation, action, log_prob, reward, *ends, following)


@pytest.mark.parametrize("bootstrap", [True, False])
def test_advantages_are_those_of_a_loop_in_numpy(bootstrap):
    problem = made(Probe(lambda s, a: 1.0), bootstrap=bootstrap, gamma=0.9)
    params = problem.init(jax.random.key(0))
    seen = transitions(np.random.default_rng(0))
    batch, found = ppo.estimate(problem, params, seen)
    value = lambda x: np.asarray(problem.apply(params, x.reshape(-1, 2))[1], float)
    v = value(seen.observation).reshape(6, 2)
    after = value(seen.following).reshape(6, 2)
    expected = np.zeros((6, 2))
    for env in range(2):
        advantage = 0.0
        for t in reversed(range(6)):
            terminated, truncated = seen.terminated[t, env], seen.truncated[t, env]
            if terminated or truncated:
                advantage = 0.0
            final = terminated or (truncated and not bootstrap)
            target = seen.reward[t, env] + 0.9 * after[t, env] * (not final)
            advantage = target - v[t, env] + 0.9 * 0.95 * advantage
            expected[t, env] = advantage
    returns = expected + v
    np.testing.assert_allclose(batch.target, returns.ravel(), rtol=1e-4, atol=1e-5)
    normal = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(batch.advantage, normal.ravel(), rtol=1e-4, atol=1e-5)
    unexplained = expected.var() / returns.var()
    np.testing.assert_allclose(found["explained_variance"], 1 - unexplained, rtol=1e-4)
    np.testing.assert_allclose(found["reward"], seen.reward.mean(), rtol=1e-5)


def one_step(env, batch, **changed):
    """Old and new parameters of linear networks after one step of SGD, and metrics."""
    problem = made(env, hidden=(), epochs=1, minibatches=1, **changed)
    problem = problem._replace(tx=optax.with_extra_args_support(optax.sgd(0.1)))
    build = lambda hparams, key, data: problem
    state = ppo.init(build, jax.random.key(0), {})
    after, found = ppo.learn(problem, state, batch)
    plain = lambda tree: jax.tree.map(lambda x: np.asarray(x, float), tree)
    return plain(state.params), plain(after.params), found


def of_values(old, batch, weight):
    """Change of the value's kernel and bias, and the loss."""
    layer = old["value"]["output"]
    error = batch.observation @ layer["kernel"][:, 0] + layer["bias"] - batch.target
    slope = 2 * error / len(error) * weight
    return -0.1 * batch.observation.T @ slope, -0.1 * slope.sum(), np.mean(error**2)


def random_batch(actions):
    rng = np.random.default_rng(1)
    size = len(actions)
    batch = ppo.Batch(
        observation=rng.normal(size=(size, 2)),
        action=actions,
        log_prob=rng.uniform(-1.3, -0.3, size),
        advantage=rng.normal(size=size),
        target=rng.normal(size=size),
    )
    return jax.tree.map(jnp.asarray, batch)


def clipped(ratio, advantage, clip):
    """The smaller of the two gains, and its derivative by the ratio."""
    near = np.clip(ratio, 1 - clip, 1 + clip)
    free = ratio * advantage <= near * advantage
    return np.minimum(ratio * advantage, near * advantage), np.where(free, advantage, 0)


def test_a_step_of_a_categorical_policy_is_that_of_numpy():
    rng = np.random.default_rng(2)
    batch = random_batch(rng.integers(0, 2, 64))
    old, new, found = one_step(
        Probe(lambda s, a: 1.0), batch, clip=0.3, value_weight=0.7, entropy_weight=0.2
    )
    layer = old["policy"]["output"]
    logits = batch.observation @ layer["kernel"] + layer["bias"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    taken = np.eye(2)[batch.action]
    ratio = (p * taken).sum(1) / np.exp(batch.log_prob)
    gain, slope = clipped(ratio, batch.advantage, 0.3)
    entropy = -(p * np.log(p)).sum(1)
    by_logits = (slope * ratio)[:, None] * (taken - p)
    by_logits += 0.2 * -p * (np.log(p) + entropy[:, None])
    change = 0.1 * by_logits / 64
    moved = new["policy"]["output"]
    expected = layer["kernel"] + batch.observation.T @ change
    np.testing.assert_allclose(moved["kernel"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moved["bias"], change.sum(0), rtol=1e-4, atol=1e-6)
    kernel, bias, error = of_values(old, batch, 0.7)
    moved, layer = new["value"]["output"], old["value"]["output"]
    np.testing.assert_allclose(
        moved["kernel"][:, 0], layer["kernel"][:, 0] + kernel, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(moved["bias"], bias, rtol=1e-4, atol=1e-6)
    known = {
        "policy_loss": -gain.mean(),
        "value_loss": error,
        "entropy": entropy.mean(),
        "loss": -gain.mean() + 0.7 * error - 0.2 * entropy.mean(),
        "kl": np.mean(ratio - 1 - np.log(ratio)),
        "clip_fraction": np.mean(abs(ratio - 1) > 0.3),
        "replacements": 0,
    }
    assert set(found) == set(known)
    for name, value in known.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
    assert 0.1 < known["clip_fraction"] < 0.9


def test_a_step_of_a_gaussian_policy_is_that_of_numpy():
    rng = np.random.default_rng(3)
    batch = random_batch(rng.normal(size=(64, 1)).astype(np.float32))
    old, new, found = one_step(
        Probe(lambda s, a: 1.0, space=TORQUE), batch, clip=0.3, entropy_weight=0.2
    )
    layer = old["policy"]["output"]
    deviation = batch.action - batch.observation @ layer["kernel"] - layer["bias"]
    log_prob = -0.5 * deviation[:, 0] ** 2 - 0.5 * np.log(2 * np.pi)
    ratio = np.exp(log_prob - batch.log_prob)
    gain, slope = clipped(ratio, batch.advantage, 0.3)
    by_log_prob = (slope * ratio)[:, None] / 64
    change = 0.1 * by_log_prob * deviation
    moved = new["policy"]["output"]
    expected = layer["kernel"] + batch.observation.T @ change
    np.testing.assert_allclose(moved["kernel"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moved["bias"], change.sum(0), rtol=1e-4, atol=1e-6)
    by_log_std = (by_log_prob * (deviation**2 - 1)).sum() + 0.2
    np.testing.assert_allclose(new["log_std"], [0.1 * by_log_std], rtol=1e-4)
    np.testing.assert_allclose(found["policy_loss"], -gain.mean(), rtol=1e-4)


def test_an_epoch_learns_from_every_transition_once():
    env = Probe(lambda s, a: 1.0)
    batch = random_batch(np.zeros(64, int))
    batch = batch._replace(observation=jnp.zeros((64, 2)))
    problem = made(env, hidden=(), epochs=3, minibatches=8, value_weight=1.0)

    # The bias of the value gets 2 (0 - target) / 8 per step: its sum tells who was in.
    total = optax.GradientTransformationExtraArgs(
        lambda params: jnp.zeros(()),
        lambda grads, state, params, **_: (
            jax.tree.map(jnp.zeros_like, grads),
            state + grads["value"]["output"]["bias"][0],
        ),
    )
    problem = problem._replace(tx=total)
    state = ppo.init(lambda *_: problem, jax.random.key(0), {})
    after, _ = ppo.learn(problem, state, batch)
    expected = 3 * np.sum(-2 * batch.target / 8)
    np.testing.assert_allclose(after.opt, expected, rtol=1e-4)


# Whole runs.


def control(hparams, key, data):
    """CBP with a high rate in the network of a probe, settings traced."""
    del data
    method = functools.partial(
        optim.continual_backprop,
        replacement_rate=hparams["replacement_rate"],
        maturity_threshold=8,
        max_replacements=2,
        key=key,
    )
    env = Probe(lambda state, action: action == (state.sign > 0), length=5)
    numbers = {"gamma": hparams["gamma"], "num_envs": 2, "num_steps": 16}
    return made(env, method=method, **numbers)


HPARAMS = {"replacement_rate": 0.02, "gamma": 0.9}
advance = jax.jit(functools.partial(ppo.segment, control, bins=2, updates=3))
begin = jax.jit(functools.partial(ppo.init, control))


def hparams(**changed):
    return {name: jnp.float32(value) for name, value in (HPARAMS | changed).items()}


def test_continual_backprop_replaces_units_of_policy_and_value():
    state, found = advance(begin(jax.random.key(0), hparams()))
    ages = {name: known.age for name, known in state.opt.units.items()}
    assert set(ages) == {"policy/hidden_0", "value/hidden_0"}
    steps = 2 * 3 * 4 * 4
    assert int(state.opt.count) == steps
    assert all(age.min() < steps for age in ages.values())
    # 16 units each, mature all the time but for 8 of 96 steps: about 56 in 6 updates.
    assert 40 < 6 * np.mean(found["replacements"]) < 60
    np.testing.assert_array_equal(found["task"], 0)  # nothing changes


def test_segments_joined_are_one_run_bit_by_bit():
    whole = jax.jit(functools.partial(ppo.segment, control, bins=4, updates=3))
    start = begin(jax.random.key(0), hparams())
    once, found = whole(start)
    twice, first = advance(start)
    twice, second = advance(twice)
    for a, b in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), first, second)
    jax.tree.map(np.testing.assert_array_equal, found, joined)


def test_settings_and_seeds_side_by_side_are_runs_one_by_one():
    def train(key, gamma):
        start = ppo.init(control, key, hparams() | {"gamma": gamma})
        return ppo.segment(control, start, bins=2, updates=3)[1]

    keys, gammas = jax.random.split(jax.random.key(1), 2), jnp.array([0.5, 0.99])
    seeds = jax.vmap(train, in_axes=(0, None))
    found = jax.jit(jax.vmap(seeds, in_axes=(None, 0)))(keys, gammas)
    _, alone = advance(begin(keys[1], hparams(gamma=0.99)))
    assert set(alone) == set(found)
    for name, value in alone.items():
        np.testing.assert_allclose(found[name][1, 1], value, rtol=2e-3, atol=2e-4)
    assert not np.allclose(found["loss"][0], found["loss"][1])


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        jax.block_until_ready(advance(begin(jax.random.key(0), hparams())))


def test_a_run_with_bad_physics_leaves_its_neighbour_alone():
    """The reward of the second run is NaN from some step on."""

    def build(hparams, key, data):
        bad = hparams["bad"]
        reward = lambda s, a: jnp.where(bad * s.time > 2, jnp.nan, 1.0)
        return made(Probe(reward, length=5), num_envs=2, num_steps=16)

    def train(bad):
        start = ppo.init(build, jax.random.key(0), {"bad": bad})
        return ppo.segment(build, start, bins=2, updates=2)[1]

    found = jax.jit(jax.vmap(train))(jnp.array([0.0, 1.0]))
    for name in ("return", "loss", "weight_magnitude"):
        assert np.isfinite(found[name][0]).all(), name
        assert not np.isfinite(found[name][1]).any(), name


@pytest.mark.parametrize("ended", ["terminated", "truncated"])
def test_an_end_does_not_hide_that_the_physics_broke(ended):
    """What an action led to is NaN, and seen by nobody: the next episode begins."""

    class Broken(Probe):
        def see(self, state):
            seen = super().see(state)
            return jnp.where(state.sign * state.time == 5, jnp.nan, seen)

    limits = {"length": 5} if ended == "terminated" else {"length": 99, "limit": 5}
    env = Broken(lambda s, a: 1.0, **limits)
    problem = made(env, num_envs=2, num_steps=16, epochs=1, bootstrap=False)
    build = lambda hparams, key, data: problem
    start = ppo.init(build, jax.random.key(0), {})
    _, seen = ppo.collect(problem, start)
    assert np.isfinite(seen.observation).all()
    broke = np.isnan(seen.following).any(-1)
    assert 0 < broke.sum() < getattr(seen, ended).sum()
    np.testing.assert_array_equal(np.isnan(seen.reward), broke)
    _, found = ppo.segment(build, start, bins=1, updates=1)
    diverged = (
        "loss",
        "clip_fraction",
        "approximate_rank",
        "absolute_approximate_rank",
    )
    for name in diverged:
        assert np.isnan(found[name]), name


def test_the_explained_variance_of_equal_targets_does_not_exist():
    """Rewards and values are 0; in a bin, updates in which it exists count alone."""
    env = Probe(lambda s, a: 0.0)
    problem = made(env, hidden=(), num_envs=2, num_steps=4, epochs=1, minibatches=1)
    first = problem.init
    problem = problem._replace(init=lambda key: optax.tree.zeros_like(first(key)))
    params = problem.init(jax.random.key(0))
    seen = transitions(np.random.default_rng(0))
    seen = seen._replace(reward=np.zeros_like(seen.reward))
    assert np.isnan(ppo.estimate(problem, params, seen)[1]["explained_variance"])
    start = ppo.init(lambda *_: problem, jax.random.key(0), {})
    _, found = ppo.segment(lambda *_: problem, start, bins=1, updates=2)
    assert np.isnan(found["explained_variance"]) and np.isfinite(found["loss"])


def test_a_run_keeps_its_types_in_double_precision():
    """Settings of either precision, to which optax's moments are promoted."""
    adam = lambda hparams: optax.adam(1e-3, hparams["gamma"])
    traced = lambda hparams, key, data: control(hparams, key, data)._replace(
        tx=optax.with_extra_args_support(adam(hparams))
    )
    after_traced = functools.partial(ppo.segment, traced, bins=2, updates=3)
    runs = [(begin, advance), (functools.partial(ppo.init, traced), after_traced)]
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            numbers = {name: jnp.asarray(x, dtype) for name, x in HPARAMS.items()}
            for first, then in runs:
                start = jax.eval_shape(first, jax.random.key(0), numbers)
                after, _ = jax.eval_shape(then, start)
                assert jax.tree.map(jnp.result_type, start) == jax.tree.map(
                    jnp.result_type, after
                )
        _, found = advance(begin(jax.random.key(0), numbers))
    assert found["loss"].dtype == np.float64
    assert np.isfinite([*found.values()]).all()


def test_return_and_length_are_those_of_the_last_bin_in_which_an_episode_ended():
    env = Probe(lambda s, a: s.time, length=24)  # returns 23 * 24 / 2
    problem = made(env, num_envs=1, num_steps=16)
    build = lambda hparams, key, data: problem
    start = ppo.init(build, jax.random.key(0), {})
    _, found = jax.jit(functools.partial(ppo.segment, build, bins=4, updates=1))(start)
    np.testing.assert_array_equal(found["return"], [np.nan, 276, 276, 276])
    np.testing.assert_array_equal(found["length"], [np.nan, 24, 24, 24])
    np.testing.assert_array_equal(found["episodes"], [0, 1, 1, 0])
    np.testing.assert_allclose(found["reward"][0], 7.5)


def test_bins_know_the_task_of_their_last_step():
    """Episodes of 5 steps, tasks of 20, bins of 10."""
    inner = Probe(lambda state, action: 1.0, length=5)
    env = envs.Changing(inner, lambda key, task, params: params, period=20)
    problem = made(env, num_envs=2, num_steps=10, epochs=1)
    build = lambda hparams, key, data: problem
    start = ppo.init(build, jax.random.key(0), {})
    state, found = jax.jit(functools.partial(ppo.segment, build, bins=5, updates=1))(
        start
    )
    np.testing.assert_array_equal(found["task"], [0, 0, 1, 1, 2])
    assert state.env.task.tolist() == [2, 2]


def test_the_task_is_that_of_the_furthest_environment():
    env = Probe(lambda state, action: 1.0)
    step = env.step_env

    def step_env(*args):
        *after, _ = step(*args)
        return *after, {"task": 3 + after[1].sign}

    env.step_env = step_env
    problem = made(env, num_envs=16)
    start = ppo.init(lambda *_: problem, jax.random.key(0), {})
    after, _ = jax.jit(functools.partial(ppo.collect, problem))(start)
    assert after.episodes.task == 4


def test_returns_of_environments_whose_episodes_differ():
    """An episode lasts 2 steps or 4, as its sign says, with a reward of 1 a step."""
    env = Probe(lambda s, a: 1.0)
    ends = lambda state: state.time >= 3 - state.sign
    step = env.step_env

    def step_env(key, state, action, params):
        obs, state, reward, _, info = step(key, state, action, params)
        return obs, state, reward, ends(state), info

    env.step_env = step_env
    problem = made(env, num_envs=3, num_steps=40)
    build = lambda hparams, key, data: problem
    start = ppo.init(build, jax.random.key(0), {})
    after, collected = ppo.collect(problem, start)
    ended = np.asarray(collected.terminated)
    lengths = [np.diff(np.flatnonzero(ended[:, i]), prepend=-1) for i in range(3)]
    every = np.concatenate(lengths)
    assert set(every) == {2, 4}
    last, rest = acting.close(after.episodes)
    np.testing.assert_allclose(last, every.mean(), rtol=1e-6)
    assert int(after.episodes.number) == len(every)
    under_way = [39 - np.flatnonzero(ended[:, i])[-1] for i in range(3)]
    np.testing.assert_array_equal(rest.sums, [under_way, under_way])
    assert not rest.number and not rest.ended.any()


def test_diagnostics_look_at_all_environments():
    """Number of the environment, where the steps times environments are too many."""
    steps = np.tile(np.arange(64.0), 2048)[:, None]
    seen = np.unique(run._probe(jnp.asarray(steps)))
    np.testing.assert_array_equal(seen, np.arange(64))
    few = jnp.arange(10.0)[:, None]
    np.testing.assert_array_equal(run._probe(few), few)


def test_the_weight_change_is_that_of_an_update_in_bins_of_any_size():
    start = begin(jax.random.key(0), hparams())
    changes = []
    for bins, updates in ((4, 1), (1, 4)):
        run = functools.partial(ppo.segment, control, bins=bins, updates=updates)
        changes.append(jax.jit(run)(start)[1]["weight_change"].mean())
    np.testing.assert_allclose(*changes, rtol=1e-4)
    assert changes[0] > 0


def test_parts_have_diagnostics_of_their_own():
    problem = made(Probe(lambda s, a: 1.0), observed=True)
    groups = problem.parts[""].groups
    parts = {
        name: ppo.Part(groups[i : i + 1], lambda params, name=name: params[name])
        for i, name in enumerate(("policy", "value"))
    }
    problem = problem._replace(parts=parts)
    build = lambda hparams, key, data: problem
    start = ppo.init(build, jax.random.key(0), {})
    _, found = ppo.segment(build, start, bins=1, updates=1)
    after, _ = ppo.segment(build, start, bins=1, updates=1)
    for name in parts:
        own = jax.tree.leaves(after.params[name])
        size = sum(abs(x).sum() for x in own) / sum(x.size for x in own)
        np.testing.assert_allclose(found[f"{name}weight_magnitude"], size, rtol=1e-5)
        pairs = zip(own, jax.tree.leaves(start.params[name]), strict=True)
        change = sum(abs(new - old).sum() for new, old in pairs)
        np.testing.assert_allclose(found[f"{name}weight_change"], change, rtol=1e-3)
        assert f"{name}effective_rank" in found


def test_many_observations_are_valued_as_few_are(monkeypatch):
    problem = made(Probe(lambda s, a: 1.0))
    params = problem.init(jax.random.key(0))
    seen = transitions(np.random.default_rng(0))
    expected, _ = ppo.estimate(problem, params, seen)
    monkeypatch.setattr(learning, "ROWS", 5)
    found, _ = ppo.estimate(problem, params, seen)
    np.testing.assert_allclose(found.target, expected.target, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [False, True])
def test_actions_are_clipped_for_the_environment_only(clip):
    """A reward that is the action's size tells what the environment got."""
    env = Probe(lambda s, a: jnp.abs(a), space=TORQUE)
    problem = made(env, clip_actions=clip)
    start = ppo.init(lambda *_: problem, jax.random.key(0), {})
    _, seen = ppo.collect(problem, start)
    size = abs(seen.action[..., 0])
    assert size.max() > 1.5
    given = jnp.minimum(size, 1) if clip else size
    np.testing.assert_allclose(seen.reward, given, rtol=1e-6)


def test_values_of_another_shape_are_refused():
    """``[batch, 1]`` would be broadcast against the targets."""
    problem = made(Probe(lambda s, a: 1.0))
    apply = problem.apply
    column = lambda params, x: (apply(params, x)[0], apply(params, x)[1][:, None])
    problem = problem._replace(apply=column)
    with pytest.raises(ValueError, match=r"shape \(4,\).*got \(4, 1\)"):
        ppo.init(lambda *_: problem, jax.random.key(0), {})


def test_segments_have_bins_and_bins_have_updates():
    problem = made(Probe(lambda s, a: 1.0))
    build = lambda hparams, key, data: problem
    start = ppo.init(build, jax.random.key(0), {})
    for bins, updates in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="must be in"):
            ppo.segment(build, start, bins=bins, updates=updates)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"minibatches": 5}, r"minibatches \(5\) must divide.*\(128\)"),
        ({"num_envs": 0}, "num_envs must be in"),
        ({"num_steps": 1.5}, "num_steps must be a whole"),
        ({"epochs": 0}, "epochs must be in"),
        ({"gamma": 1.1}, "gamma must be in"),
        ({"gae_lambda": -0.1}, "gae_lambda must be in"),
        ({"clip": -0.1}, "clip must be in"),
    ],
)
def test_bad_numbers_are_refused(bad, message):
    problem = made(Probe(lambda s, a: 1.0), **bad)
    with pytest.raises(ValueError, match=message):
        ppo.init(lambda *_: problem, jax.random.key(0), {})
