"""shrink_and_perturb: theta <- shrink * theta + update + noise, at every period."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

STEPS = 10
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def run(tx, params, grads, state=None):
    """Parameters after each step, as NumPy arrays, and the last state."""

    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    (_, state), params = jax.lax.scan(step, (params, tx.init(params)), grads)
    return params, state


@functools.cache
def compiled(inner):
    """Jitted run with all numbers traced."""

    @jax.jit
    def go(params, grads, seed, **numbers):
        key = jax.random.key(seed)
        params, state = run(
            optim.shrink_and_perturb(inner, key=key, **numbers), params, grads
        )
        return params, state._replace(key=jax.random.key_data(state.key))

    return go


SGD = optax.sgd(0.1, momentum=0.5)


def test_without_noise_and_shrinking(net):
    """It is then the inner optimiser, its state included."""
    params, grads = net.random(0), net.random(1, (STEPS,))
    numbers = {"shrink": 1.0, "perturb_scale": 0.0, "period": 1}
    ours, state = compiled(SGD)(params, grads, 0, **numbers)
    theirs, alone = jax.jit(lambda: run(SGD, params, grads))()
    jax.tree.map(close, (ours, state.inner), (theirs, alone))


def test_torch_style_weight_decay(net):
    """Around SGD, shrink = 1 - lr * decay is L2 regularisation in the gradient."""
    params, grads = net.random(0), net.random(1, (STEPS,))
    sgd = optax.sgd(0.1)
    numbers = {"shrink": 1 - 0.1 * 0.2, "perturb_scale": 0.0, "period": 1}
    ours, _ = compiled(sgd)(params, grads, 0, **numbers)
    decayed = optax.chain(optax.add_decayed_weights(0.2), sgd)
    theirs, _ = jax.jit(lambda: run(decayed, params, grads))()
    jax.tree.map(close, ours, theirs)


@pytest.mark.parametrize("period", [1, 3])
def test_shrinking_every_period(net, period):
    """Multiples of the period shrink the old weights, never the update."""
    params, grads = net.random(0), net.random(1, (STEPS,))
    numbers = {"shrink": 0.5, "perturb_scale": 0.0, "period": period}
    ours, _ = compiled(optax.sgd(0.1))(params, grads, 0, **numbers)
    for name, p in params.items():
        p = np.asarray(p, float)
        for t in range(STEPS):
            shrink = 0.5 if (t + 1) % period == 0 else 1.0
            p = shrink * p - 0.1 * np.asarray(grads[name][t], float)
            close(ours[name][t], p)


def test_noise():
    """Normal with the given standard deviation, new for every weight, step and key."""
    shape = (40, 50)
    params = {"u": jnp.zeros(shape), "v": jnp.zeros(shape)}
    grads = {name: jnp.zeros((4, *shape)) for name in params}
    numbers = {"shrink": 1.0, "perturb_scale": 0.3, "period": 1}
    go = compiled(optax.sgd(0.1))
    noise = []
    for seed in (0, 1):
        after, _ = go(params, grads, seed, **numbers)
        for x in after.values():
            path = np.concatenate([np.zeros((1, *shape)), np.asarray(x, float)])
            noise.extend(np.diff(path, axis=0).reshape(4, -1))
    for draws in noise:
        n = draws.size
        assert abs(draws.mean()) < 4 * 0.3 / np.sqrt(n)
        np.testing.assert_allclose(draws.std(), 0.3, rtol=4 / np.sqrt(2 * n))
        inside = np.mean(np.abs(draws) < 0.3)
        assert abs(inside - 0.6827) < 4 * np.sqrt(0.68 * 0.32 / n)
    correlation = np.corrcoef(noise) - np.eye(len(noise))
    assert len(noise) == 16 and np.max(np.abs(correlation)) < 5 / np.sqrt(2000)


def test_noise_only_every_period(net):
    """Between perturbations the parameters rest where the inner optimiser rests."""
    params = net.random(0)
    grads = jax.tree.map(jnp.zeros_like, net.random(1, (STEPS,)))
    numbers = {"shrink": 1.0, "perturb_scale": 0.1, "period": 4}
    after, _ = compiled(optax.sgd(0.1))(params, grads, 0, **numbers)
    for name, p in after.items():
        path = np.concatenate([params[name][None], p])
        moved = (np.diff(path, axis=0) != 0).reshape(STEPS, -1)
        np.testing.assert_array_equal(moved.any(axis=1), moved.all(axis=1))
        np.testing.assert_array_equal(
            moved.all(axis=1), np.arange(1, STEPS + 1) % 4 == 0
        )


def test_the_inner_state_is_not_perturbed(net):
    """Momentum sees the gradients alone, whatever happens to the weights."""
    params, grads = net.random(0), net.random(1, (STEPS,))
    go = compiled(SGD)
    quiet, loud = (
        go(params, grads, 0, shrink=s, perturb_scale=p, period=1)
        for s, p in ((1.0, 0.0), (0.5, 0.3))
    )
    jax.tree.map(close, loud[1].inner, quiet[1].inner)
    assert np.any(loud[0]["w0"] != quiet[0]["w0"])
