"""hare_tortoise: the parameters return to the mean of their path."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

STEPS = 8
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def run(tx, params, grads):
    """Parameters and states after each step."""

    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        carry = optax.apply_updates(params, updates), state
        return carry, carry

    return jax.lax.scan(step, (params, tx.init(params)), grads)[1]


@functools.cache
def compiled(reset_inner):
    """Jitted run around SGD with momentum 0.5, with all numbers traced."""

    @jax.jit
    def go(params, grads, **numbers):
        inner = optax.sgd(0.1, momentum=0.5)
        tx = optim.hare_tortoise(inner, reset_inner=reset_inner, **numbers)
        return run(tx, params, grads)

    return go


@pytest.mark.parametrize("reset_inner", [True, False])
def test_against_numpy(net, reset_inner):
    """Step by step: the hare, the tortoise, and what becomes of the momentum."""
    params, grads = net.random(0), net.random(1, (STEPS,))
    numbers = {"momentum": 0.8, "period": 3}
    ours, states = compiled(reset_inner)(params, grads, **numbers)
    for name, p in params.items():
        hare = tortoise = np.asarray(p, float)
        trace = np.zeros_like(hare)
        for t in range(STEPS):
            trace = 0.5 * trace + np.asarray(grads[name][t], float)
            hare = hare - 0.1 * trace
            tortoise = 0.8 * tortoise + 0.2 * hare
            if (t + 1) % 3 == 0:
                hare = tortoise
                trace = 0 * trace if reset_inner else trace
            close(ours[name][t], hare)
            close(states.tortoise[name][t], tortoise)


def test_extreme_tortoises(net):
    """One that never moves takes the hare back to the start, a quick one nowhere."""
    params, grads = net.random(0), net.random(1, (STEPS,))
    go = compiled(False)
    back, _ = go(params, grads, momentum=1.0, period=4)
    jax.tree.map(lambda q, p: close(q[3], p), back, params)
    same, _ = go(params, grads, momentum=0.0, period=4)
    sgd = optax.sgd(0.1, momentum=0.5)
    plain, _ = jax.jit(lambda: run(sgd, params, grads))()
    jax.tree.map(close, same, plain)


def test_adam_starts_again(net):
    """After a return Adam continues as a new Adam does from the tortoise."""
    params, grads = net.random(0), net.random(1, (STEPS,))

    @jax.jit
    def both():
        adam, half = optax.adam(0.1), STEPS // 2
        tx = optim.hare_tortoise(adam, momentum=0.9, period=half)
        ours, _ = run(tx, params, grads)
        halfway = jax.tree.map(lambda p: p[half - 1], ours)
        rest = jax.tree.map(lambda g: g[half:-1], grads)
        return jax.tree.map(lambda p: p[half:-1], ours), run(adam, halfway, rest)[0]

    jax.tree.map(close, *both())


def test_tortoise_in_low_precision():
    """The tortoise of a bfloat16 network moves though its momentum is nearly 1."""
    params = {"w": jnp.zeros(3, jnp.bfloat16)}
    tx = optim.hare_tortoise(optax.sgd(0.0), momentum=0.999, period=1000)
    state = tx.init({"w": jnp.ones(3, jnp.bfloat16)})
    step = jax.jit(lambda state: tx.update(params, state, params)[1])
    for _ in range(10):
        state = step(state)
    close(state.tortoise["w"], 0.999**10 * np.ones(3))
    assert optax.tree.get(state, "tortoise") is state.tortoise


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_hare_that_is_lost_leaves_the_tortoise(bad):
    """Of weights that rest, one of which is bad for a step, the mean is theirs."""
    params = {"w": jnp.array([1.0, 2.0])}
    tx = optim.hare_tortoise(optax.sgd(1.0), momentum=0.9, period=100)

    @jax.jit
    def tortoises(grads):
        step = lambda state, grad: (tx.update({"w": grad}, state, params)[1],) * 2
        return jax.lax.scan(step, tx.init(params), grads)[1].tortoise["w"]

    found = tortoises(jnp.zeros((5, 2)).at[2, 1].set(bad))
    np.testing.assert_allclose(found, np.tile([1.0, 2.0], (5, 1)), rtol=1e-6)


@pytest.mark.parametrize(
    "inner",
    [
        optax.chain(optim.elastic_weight_consolidation(1.0), optax.sgd(0.1)),
        optim.synaptic_intelligence(optax.sgd(0.1), strength=1.0),
    ],
    ids=["ewc", "si"],
)
def test_a_return_may_not_forget_what_was_consolidated(inner):
    params = jnp.ones(2)
    with pytest.raises(ValueError, match="reset the .*State inside"):
        optim.hare_tortoise(inner, period=2).init(params)
    optim.hare_tortoise(inner, period=2, reset_inner=False).init(params)
    outside = optim.hare_tortoise(optax.sgd(0.1), period=2)
    optax.chain(optim.elastic_weight_consolidation(1.0), outside).init(params)
