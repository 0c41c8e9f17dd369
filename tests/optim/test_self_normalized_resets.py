"""self_normalized_resets: units silent for unusually long start again."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

STEPS = 48


@functools.cache
def compiled(net):
    @jax.jit
    def run(params, grads, features, rejection_threshold, initial_threshold, period):
        tx = optim.self_normalized_resets(
            optax.adam(0.1),
            net.groups,
            rejection_threshold=rejection_threshold,
            initial_threshold=initial_threshold,
            period=period,
            initializer=jax.nn.initializers.constant(0.5),
            key=jax.random.key(0),
        )

        def step(carry, inputs):
            params, state = carry
            grads, features = inputs
            updates, state = tx.update(grads, state, params, features=features)
            carry = optax.apply_updates(params, updates), state
            return carry, carry

        return jax.lax.scan(step, (params, tx.init(params)), (grads, features))[1]

    return run


def play(net, features, rejection=0.05, initial=16, period=1000):
    """All parameters and states as NumPy arrays."""
    params, state = compiled(net)(
        net.random(0),
        net.random(1, (STEPS,)),
        features,
        float(rejection),
        float(initial),
        period,
    )
    return jax.tree.map(np.asarray, (params, state._replace(key=None)))


def firing(net, *patterns):
    """Units of layer ``a`` that fire as the patterns say, those of ``b`` always.

    A unit that fires does so on one example of the batch only; otherwise its
    activations are 0 or negative.
    """
    features = net.features(0, (STEPS,))
    fires = np.stack([np.broadcast_to(p, STEPS) for p in patterns], axis=-1)
    a = np.full((STEPS, 5, 4), -1.0, np.float32)
    a[:, 1] = 0.0
    a[:, 3] = np.where(fires, 1e-3, -1e-3)
    return features | {"a": jnp.asarray(a)}


def steps_of(mask):
    """The steps, counted from 1, at which it is set."""
    return (np.flatnonzero(mask) + 1).tolist()


def reference(fires, rejection, initial, period):
    """The rule in plain Python, for one unit: replaced or not, and the threshold."""
    age, threshold, gaps = 0, initial, []
    replaced, thresholds = [], []
    for step, fired in enumerate(fires, start=1):
        age += 1
        reset = not fired and age >= threshold
        if fired or reset:
            gaps.append(age)
            age = 0
        if step % period == 0 and gaps:
            quantile = np.mean(gaps) * math.log(1 / rejection)
            threshold = 2 * threshold if threshold <= quantile else math.ceil(quantile)
        if step % period == 0:
            gaps = []
        replaced.append(reset)
        thresholds.append(threshold)
    return replaced, thresholds


@pytest.mark.parametrize(
    ("rejection", "initial", "period"),
    [(0.05, 16, 1000), (0.05, 3, 7), (0.5, 2, 5), (0.01, 4, 1), (0.9, 20, 10)],
)
def test_as_defined(net, rejection, initial, period):
    """Thresholds and replacements of random firing patterns, rare and frequent."""
    rng = np.random.default_rng(0)
    patterns = [rng.uniform(size=STEPS) < rate for rate in (0.05, 0.2, 0.6, 0.95)]
    features = firing(net, *patterns)
    _, state = play(net, features, rejection, initial, period)
    assert not state.replaced["b"].any()
    for unit, fires in enumerate(patterns):
        replaced, threshold = reference(fires, rejection, initial, period)
        np.testing.assert_array_equal(state.replaced["a"][:, unit], replaced)
        np.testing.assert_array_equal(state.units["a"].threshold[:, unit], threshold)
    assert state.replaced["a"].any()


def test_units_are_judged_by_their_own_past(net):
    """Silence of the same length is death for one unit and ordinary for another.

    With a mean gap of 1, 2 and 4 steps until step 16, log(20) times as long silences
    are too long: 3, 6 and 12 steps. The unit that never fires was replaced at step 15;
    its threshold is doubled.
    """
    t = np.arange(1, STEPS + 1)
    before = t <= 16
    features = firing(
        net, before, before & (t % 2 == 0), before & (t % 4 == 0), np.zeros(STEPS, bool)
    )
    _, state = play(net, features, 0.05, 15, 16)
    np.testing.assert_array_equal(state.units["a"].threshold[15], [3, 6, 12, 30])
    replaced = [steps_of(state.replaced["a"][:, unit]) for unit in range(4)]
    assert [steps[0] for steps in replaced[:3]] == [16 + 3, 16 + 6, 16 + 12]
    assert replaced[3] == [15, 15 + 30]


def test_firing_units_are_left_alone(net):
    """Without silence there is no replacement, and the inner optimiser runs as alone.

    To the bit.
    """
    features, inner = net.features(2, (STEPS,)), optax.adam(0.1)
    params, state = play(net, features, 0.9, 1, 5)
    assert not any(replaced.any() for replaced in state.replaced.values())

    @jax.jit
    def alone(params):
        def step(carry, grads):
            updates, state = inner.update(grads, carry[1], carry[0])
            carry = optax.apply_updates(carry[0], updates), state
            return carry, carry

        first = (params, inner.init(params))
        return jax.lax.scan(step, first, net.random(1, (STEPS,)))[1]

    expected = alone(net.random(0))
    jax.tree.map(np.testing.assert_array_equal, (params, state.inner), expected)


def test_a_dead_unit_before_anything_is_known(net):
    """It is replaced each time that its age is the initial threshold."""
    dead = np.zeros(STEPS, bool)
    params, state = play(net, firing(net, dead, True, True, True), initial=10)
    assert steps_of(state.replaced["a"][:, 0]) == [10, 20, 30, 40]
    assert state.replaced["a"].sum() == 4
    np.testing.assert_allclose(params["w0"][9, :, 0], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(params["w1"][9, 0], 0.0)
    assert params["b0"][9, 0] == 0.0
    np.testing.assert_array_equal(
        state.units["a"].age[:12, 0], [*range(1, 10), 0, 1, 2]
    )


def test_a_gap_that_has_not_ended_says_nothing(net):
    """A threshold longer than the period stays until the unit fires or is replaced."""
    t = np.arange(1, STEPS + 1)
    features = firing(net, t % 24 == 0, True, True, True)
    _, state = play(net, features, 0.05, 30, 6)
    assert not state.replaced["a"].any()
    thresholds = state.units["a"].threshold[:, 0]
    np.testing.assert_array_equal(thresholds[:23], 30.0)
    np.testing.assert_array_equal(thresholds[23:47], 60.0)  # 30 < 24 log(20)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite(net, value):
    """They are not silence."""
    features = firing(net, True, True, True, True)
    features["a"] = features["a"].at[..., 2].set(value)
    _, state = play(net, features, initial=2, period=5)
    assert not state.replaced["a"].any()


def test_the_output_stays_when_a_dead_unit_is_replaced(net):
    """To the bit, on the batch on which it is dead."""

    def apply(params, x):
        a = jax.nn.relu(x @ params["w0"] + params["b0"])
        b = jax.nn.relu(a @ params["w1"] + params["b1"])
        return b @ params["w2"] + params["b2"], {"a": a, "b": b}

    params = jax.tree.map(jnp.abs, net.random(0))
    params["b0"] = params["b0"].at[1].set(-100.0)
    params["b1"] = params["b1"].at[2].set(-100.0)
    tx = optim.self_normalized_resets(
        optax.set_to_zero(), net.groups, initial_threshold=1, key=jax.random.key(0)
    )

    @jax.jit
    def step(params, x):
        before, features = apply(params, x)
        updates, state = tx.update(params, tx.init(params), params, features=features)
        params = optax.apply_updates(params, updates)
        return before, apply(params, x)[0], state.replaced, params

    before, after, replaced, changed = step(params, jnp.ones((5, 3)))
    assert replaced["a"].tolist() == [False, True, False, False]
    assert replaced["b"].tolist() == [False, False, True, False]
    assert np.all(changed["w0"][:, 1] != params["w0"][:, 1])
    np.testing.assert_array_equal(after, before)


def test_bad_input(net):
    """Errors in words, at construction and from the first update."""
    make = functools.partial(
        optim.self_normalized_resets, optax.sgd(0.1), net.groups, key=jax.random.key(0)
    )
    with pytest.raises(ValueError, match=r"rejection_threshold must be in \[0, 1\]"):
        make(rejection_threshold=1.5)
    with pytest.raises(ValueError, match=r"initial_threshold must be in \[1, inf\)"):
        make(initial_threshold=0)
    with pytest.raises(ValueError, match="period must be a whole number, got 1.5"):
        make(period=1.5)
    params, features = net.random(0), net.features(0)
    state = jax.eval_shape(make().init, params)
    del features["b"]
    with pytest.raises(ValueError, match="nothing for layer 'b'"):
        jax.eval_shape(
            lambda state: make().update(params, state, params, features=features), state
        )
