"""l2_init: the gradient of the squared distance to the initial parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from loplax import optim

close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def test_gradient(net):
    """It adds the derivative of strength * ||theta - theta_0||^2."""
    first, params, grads = net.random(0), net.random(1), net.random(2)

    def penalty(params):
        parts = jax.tree.map(lambda p, p0: jnp.sum((p - p0) ** 2), params, first)
        return 0.3 * sum(jax.tree.leaves(parts))

    @jax.jit
    def both():
        tx = optim.l2_init(0.3)
        updates, state = tx.update(grads, tx.init(first), params)
        expected = jax.tree.map(jnp.add, grads, jax.grad(penalty)(params))
        return updates, expected, state

    updates, expected, state = both()
    jax.tree.map(close, updates, expected)
    jax.tree.map(np.testing.assert_array_equal, state.initial, first)


def test_at_the_initial_parameters(net):
    """Nothing is added there, to the bit, and nothing at strength 0."""
    first, grads = net.random(0), net.random(2)

    @jax.jit
    def both():
        here = optim.l2_init(0.3).update(grads, optim.l2_init(0.3).init(first), first)
        off = optim.l2_init(0.0)
        return here[0], off.update(grads, off.init(first), net.random(1))[0]

    for updates in both():
        jax.tree.map(np.testing.assert_array_equal, updates, grads)


def test_from_zero_it_is_weight_decay(net):
    """With all parameters initially 0 it is L2 regularisation of twice the strength."""
    zeros, params = jax.tree.map(jnp.zeros_like, net.random(0)), net.random(1)
    decay = optax.add_decayed_weights(0.6)

    @jax.jit
    def both():
        tx = optim.l2_init(0.3)
        ours, _ = tx.update(zeros, tx.init(zeros), params)
        return ours, decay.update(zeros, decay.init(zeros), params)[0]

    jax.tree.map(close, *both())


def test_weights_return(net):
    """Alone, SGD leaves (1 - 2 lr strength) of the distance at each step."""
    first, start = net.random(0), net.random(1)
    tx = optax.chain(optim.l2_init(0.5), optax.sgd(0.1))

    @jax.jit
    def run():
        def step(carry, _):
            params, state = carry
            zeros = jax.tree.map(jnp.zeros_like, params)
            updates, state = tx.update(zeros, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (start, tx.init(first)), length=10)[0][0]

    expected = jax.tree.map(lambda p0, p: p0 + 0.9**10 * (p - p0), first, start)
    jax.tree.map(close, run(), expected)
