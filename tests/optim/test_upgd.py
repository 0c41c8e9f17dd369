"""upgd: useful weights are protected from the gradient and from noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

STEPS = 5
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def run(tx, params, grads):
    """Parameters after each step."""

    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, tx.init(params)), grads)[1]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def protection(utility, step, decay_rate):
    """S of the paper's Algorithm 1, with its bias correction."""
    corrected = {k: u / (1 - decay_rate ** (step + 1)) for k, u in utility.items()}
    highest = max(u.max() for u in corrected.values())
    return {name: sigmoid(u / highest) for name, u in corrected.items()}


def reference(params, grads, rates, weight_decay, decay_rate):
    """Parameters after each step, without noise, in NumPy."""
    params = {name: np.asarray(p, float) for name, p in params.items()}
    utility = {name: np.zeros_like(p) for name, p in params.items()}
    for t, rate in enumerate(rates):
        g = {name: np.asarray(grads[name][t], float) for name in params}
        for name, p in params.items():
            now = -g[name] * p
            utility[name] = decay_rate * utility[name] + (1 - decay_rate) * now
        protected = protection(utility, t, decay_rate)
        for name, p in params.items():
            moved = rate * g[name] * (1 - protected[name])
            params[name] = (1 - rate * weight_decay) * p - moved
        yield dict(params)


def test_against_numpy(net):
    """Step by step without noise, for a schedule of step sizes."""
    params, grads = net.random(0), net.random(1, (STEPS,))
    rate = lambda count: 0.1 / (1 + count)
    numbers = {"noise_scale": 0.0, "weight_decay": 0.3, "decay_rate": 0.7}
    tx = optim.upgd(rate, key=jax.random.key(0), **numbers)
    ours = jax.jit(lambda: run(tx, params, grads))()
    theirs = reference(params, grads, map(rate, range(STEPS)), 0.3, 0.7)
    for t, expected in enumerate(theirs):
        jax.tree.map(lambda p, q, t=t: close(p[t], q), ours, expected)


def test_noise():
    """Standard normal, new at every step, scaled and held off like the gradient."""
    shape, rate, scale = (40, 50), 0.1, 0.5
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=shape)) for name in "uv"}
    grads = {name: jnp.asarray(rng.normal(size=shape)) for name in "uv"}

    @jax.jit
    def updates(noise_scale, seed):
        numbers = {"noise_scale": noise_scale, "decay_rate": 0.0}
        tx = optim.upgd(rate, key=jax.random.key(seed), **numbers)
        state, steps = tx.init(params), []
        for _ in range(2):
            update, state = tx.update(grads, state, params)
            steps.append(update)
        return steps

    utility = {name: -np.asarray(grads[name]) * params[name] for name in "uv"}
    protected = protection(utility, 0, 0.0)
    quiet, draws = updates(0.0, 0), []
    for name, s in protected.items():
        close(quiet[0][name], -rate * grads[name] * (1 - s))
    for loud in (updates(scale, 0), updates(scale, 1)):
        for t in range(2):
            for name, s in protected.items():
                change = np.asarray(loud[t][name] - quiet[t][name], float)
                noise = change / (-rate * scale * (1 - s))
                for part in (noise[s > 0.5], noise[s <= 0.5]):
                    assert abs(part.mean()) < 4 / np.sqrt(part.size)
                    error = 4 / np.sqrt(2 * part.size)
                    np.testing.assert_allclose(part.std(), 1, rtol=error)
                draws.append(noise.ravel())
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert len(draws) == 8 and np.max(np.abs(correlation)) < 5 / np.sqrt(2000)


def test_without_useful_weights():
    """Utilities of 0 halve the step, negative ones leave it whole; nothing is NaN."""
    params = {"w": jnp.array([0.0, 2.0])}
    tx = optim.upgd(1.0, noise_scale=0.0, key=jax.random.key(0))
    step = jax.jit(lambda grads: tx.update(grads, tx.init(params), params)[0])
    np.testing.assert_array_equal(step({"w": jnp.array([3.0, 3.0])})["w"], [-1.5, -3])
    np.testing.assert_array_equal(step({"w": jnp.zeros(2)})["w"], [0, 0])


def test_utility_in_low_precision():
    """The mean of a bfloat16 network moves though its decay rate is nearly 1."""
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    tx = optim.upgd(0.0, noise_scale=0.0, decay_rate=0.9999, key=jax.random.key(0))
    step = lambda _, state: tx.update(params, state, params)[1]
    state = jax.jit(lambda: jax.lax.fori_loop(0, 5000, step, tx.init(params)))()
    close(state[0].utility["w"], (0.9999**5000 - 1) * np.ones(3), rtol=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_value_is_left_out_of_the_utility(bad):
    """With one bad gradient, first or later, the others protect as without it."""
    params = {"w": jnp.array([1.0, 2.0]), "v": jnp.array([-3.0])}
    tx = optim.upgd(1.0, noise_scale=0.0, decay_rate=0.9, key=jax.random.key(0))

    @jax.jit
    def last(grads):
        step = lambda state, grad: tx.update(grad, state, params)[::-1]
        updates = jax.lax.scan(step, tx.init(params), grads)[1]
        return jax.tree.map(lambda u: u[-1], updates)

    grads = {"w": np.full((5, 2), -1.0), "v": np.full((5, 1), 0.5)}
    expected = last(grads)
    for place in (0, 2):
        broken = {name: g.copy() for name, g in grads.items()}
        broken["w"][place, 1] = bad
        jax.tree.map(close, last(broken), expected)
