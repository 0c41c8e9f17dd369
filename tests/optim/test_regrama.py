"""regrama: units whose incoming weights have no gradient start again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim, units

STEPS = 12
CONSTANT = jax.nn.initializers.constant(0.5)


@functools.cache
def compiled(net):
    @jax.jit
    def run(params, grads, threshold, period, decay_rate):
        tx = optim.regrama(
            optax.adam(0.1),
            net.groups,
            threshold=threshold,
            period=period,
            decay_rate=decay_rate,
            initializer=CONSTANT,
            key=jax.random.key(0),
        )

        def step(carry, grads):
            params, state = carry
            updates, state = tx.update(grads, state, params)
            carry = optax.apply_updates(params, updates), state
            return carry, carry

        return jax.lax.scan(step, (params, tx.init(params)), grads)[1]

    return run


def play(net, grads, threshold=0.1, period=1, decay=0.0):
    """All parameters and states as NumPy arrays."""
    run = compiled(net)
    params, state = run(net.random(0), grads, float(threshold), period, float(decay))
    return jax.tree.map(np.asarray, (params, state._replace(key=None)))


def steady(net, *sizes):
    """The same gradients at each step; unit ``u`` of layer ``a`` has size ``sizes[u]``.

    Their signs alternate along the inputs; biases have gradients of their own.
    """
    grads = jax.tree.map(jnp.ones_like, net.random(0, (STEPS,)))
    signs = jnp.array([1.0, -1.0, 1.0])[:, None]
    grads["w0"] = grads["w0"] * signs * jnp.array(sizes)
    grads["b0"] = grads["b0"] * jnp.array([1e3, 0.0, 1.0, 0.0])
    return grads


@pytest.mark.parametrize(
    ("threshold", "replaced"),
    [(0.1, 0), (0.2, 1), (0.5, 1), (0.6, 2), (1.3, 3), (2.0, 4)],
)
def test_known_scores(net, threshold, replaced):
    """Scores 0.2, 0.6, 1.2, 2.0, whatever the signs and the gradients of biases."""
    _, state = play(net, steady(net, 1.0, 3.0, 6.0, 10.0), threshold * (1 + 1e-6))
    expected = np.tile(np.arange(4) < replaced, (STEPS, 1))
    np.testing.assert_array_equal(state.replaced["a"], expected)


@pytest.mark.parametrize("period", [1, 3, 5])
def test_period(net, period):
    """Units are replaced at the steps that are multiples of the period, and only they.

    Their incoming weights are new and their outgoing ones 0.
    """
    params, state = play(net, steady(net, 1.0, 0.0, 1.0, 1.0), 0.0, period)
    steps = np.arange(1, STEPS + 1)
    due = steps % period == 0
    np.testing.assert_array_equal(state.replaced["a"][:, 1], due)
    assert state.replaced["a"].sum() == due.sum() and not state.replaced["b"].any()
    np.testing.assert_allclose(params["w0"][due, :, 1], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(params["w1"][due, 1], 0.0)


@pytest.mark.parametrize("decay", [0.0, 0.8])
def test_running_mean(net, decay):
    """The gradients' size is averaged over steps, and starts anew with the unit."""
    grads = net.random(3, (STEPS,))
    _, state = play(net, grads, 0.9, 3, decay)
    for group in net.groups:
        total, weight = np.zeros(4), np.zeros(4)
        for t in range(STEPS):
            now = np.abs(grads[group.incoming[0].path][t]).mean(axis=0)
            total = decay * total + (1 - decay) * now
            weight = decay * weight + 1 - decay
            size = total / weight
            dormant = (size <= 0.9 * size.mean()) & ((t + 1) % 3 == 0)
            np.testing.assert_array_equal(state.replaced[group.name][t], dormant)
            total[dormant] = weight[dormant] = 0
        assert state.replaced[group.name].any()


def test_all_incoming_weights_count_alike():
    """Over several weights the mean runs over all of a unit's entries."""
    w = units.WeightAxis
    group = units.UnitGroup("h", 2, (w("x", 1), w("h", 1)), (), (), (w("h", 0),))
    params = {"x": jnp.ones((6, 2)), "h": jnp.ones((2, 2))}
    tx = optim.regrama(
        optax.sgd(0.1),
        [group],
        threshold=1.0,
        period=100,
        initializer=CONSTANT,
        key=jax.random.key(0),
    )
    grads = {"x": jnp.array([[1.0, 0.0]] * 6), "h": jnp.array([[0.0, -8.0]] * 2)}
    _, state = jax.jit(tx.update)(grads, tx.init(params), params)
    # The mean of the two weights' means would say 0.5 and 4.
    np.testing.assert_allclose(state.units["h"].magnitude, [6 / 8, 16 / 8])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite(net, value):
    """Its unit is not dormant and does not enter the layer's mean; it is forgotten."""
    grads = steady(net, 0.05, 1.0, 1.0, 1.0)
    grads["w0"] = grads["w0"].at[:4, 0, 3].set(value)
    _, state = play(net, grads)
    np.testing.assert_array_equal(
        state.replaced["a"], [[True, False, False, False]] * 12
    )
    grads["w0"] = jnp.full_like(grads["w0"], value)
    assert not play(net, grads)[1].replaced["a"].any()


def test_never_due_is_the_inner_optimiser(net):
    """To the bit."""
    grads, inner = net.random(3, (STEPS,)), optax.adam(0.1)

    @jax.jit
    def alone(params):
        def step(carry, grads):
            updates, state = inner.update(grads, carry[1], carry[0])
            carry = optax.apply_updates(carry[0], updates), state
            return carry, carry

        return jax.lax.scan(step, (params, inner.init(params)), grads)[1]

    params, state = play(net, grads, 0.9, STEPS + 1)
    jax.tree.map(
        np.testing.assert_array_equal, (params, state.inner), alone(net.random(0))
    )


def learn(apply, params, tx, steps=6):
    """Outputs before each update, and the units replaced by it."""
    x = jnp.asarray(np.random.default_rng(1).uniform(0.5, 1.5, (5, 3)), jnp.float32)

    def loss(params):
        y = apply(params, x)
        return jnp.mean((y - 1) ** 2), y

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            grads, y = jax.grad(loss, has_aux=True)(params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), (y, state.replaced)

        return jax.lax.scan(step, (params, tx.init(params)), None, steps)[1]

    return jax.tree.map(np.asarray, run(params))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_unit_that_cannot_learn(net, activation):
    """Dead or saturated, it is replaced; the output on the same batch stays if dead."""
    act = getattr(jax.nn, activation)

    def apply(params, x):
        h = act(x @ params["w0"] + params["b0"])
        return act(h @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]

    params = jax.tree.map(lambda p: 0.3 * abs(p), net.random(0))
    sign = -1.0 if activation == "relu" else 1.0
    params["b0"] = params["b0"].at[1].set(sign * 100.0)
    tx = optim.regrama(
        optax.set_to_zero(), net.groups, threshold=1e-3, period=2, key=jax.random.key(0)
    )
    y, replaced = learn(apply, params, tx, steps=3)
    np.testing.assert_array_equal(replaced["a"][1], [False, True, False, False])
    assert not replaced["a"][0].any() and not replaced["b"][:2].any()
    same = np.array_equal(y[2], y[1])
    assert same if activation == "relu" else not same


@pytest.mark.parametrize(("period", "times"), [(1, 6), (2, 1)])
def test_a_replaced_unit_needs_a_step_without_a_check(net, period, times):
    """At the step after, its outgoing weights are 0, so nothing reaches its own."""

    def apply(params, x):
        return jnp.tanh(x @ params["w0"] + params["b0"]) @ params["w1"]

    params = {name: net.random(0)[name] for name in ("w0", "b0", "w1")}
    params["b0"] = params["b0"].at[1].set(100.0)
    tx = optim.regrama(
        optax.sgd(0.1),
        net.groups[:1],
        threshold=1e-3,
        period=period,
        initializer=jax.nn.initializers.constant(0.1),
        key=jax.random.key(0),
    )
    _, replaced = learn(apply, params, tx)
    assert replaced["a"][:, 1].sum() == replaced["a"].sum() == times


def test_bad_input(net):
    """Errors in words, at construction."""
    make = functools.partial(optim.regrama, optax.sgd(0.1), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"threshold must be in \[0, inf\), got -0.1"):
        make(net.groups, threshold=-0.1)
    with pytest.raises(ValueError, match=r"period must be in \[1, inf\), got 0"):
        make(net.groups, period=0)
    with pytest.raises(ValueError, match=r"decay_rate must be in \[0, 1\), got 1"):
        make(net.groups, decay_rate=1.0)
    with pytest.raises(ValueError, match="no hidden layer"):
        make(())
    with pytest.raises(ValueError, match=r"jax\.random\.key\(seed\)"):
        make(net.groups, key=0)
    params = {name: x for name, x in net.random(0).items() if name != "w1"}
    with pytest.raises(ValueError, match="no parameter 'w1'"):
        make(net.groups).init(params)
