"""adam: optax's Adam, except that every replaced unit counts its steps from 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim, units

STEPS, PERIOD, LR = 9, 5, 0.1
DEAD = {"a": 1, "b": 2}


def play(net, tx, steps=STEPS, **features):
    """Updates of all steps, stacked, and the last state."""

    @jax.jit
    def run(params, grads, features):
        def step(carry, inputs):
            params, state = carry
            grads, features = inputs
            updates, state = tx.update(grads, state, params, **features)
            return (optax.apply_updates(params, updates), state), updates

        carry = (params, tx.init(params))
        (_, state), updates = jax.lax.scan(step, carry, (grads, features))
        return updates, state

    return run(net.random(0), net.random(1, (steps,)), features)


def assert_close(a, b):
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-8)
    jax.tree.map(close, a, b)


WRAPS = {
    "alone": lambda tx: tx,
    "chain": lambda tx: optax.chain(
        optax.clip_by_global_norm(0.5), tx, optax.scale(2.0)
    ),
    "multi steps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "masked": lambda tx: optax.masked(
        tx,
        {k: k != "w1" for k in ("b0", "b1", "b2")}
        | {"w0": True, "w1": False, "w2": True},
    ),
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_optax_adam_while_nothing_is_replaced(net, wrap):
    """Updates equal those of optax.adam, also with a schedule, other decays and eps."""
    rate = LR if wrap == "chain" else optax.linear_schedule(LR, 0.0, STEPS)
    settings = {"b1": 0.8, "b2": 0.99, "eps": 1e-3}
    ours, _ = play(net, WRAPS[wrap](optim.adam(rate, net.groups, **settings)))
    theirs, _ = play(net, WRAPS[wrap](optax.adam(rate, **settings)))
    assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_optax_adam_in_every_precision(net, dtype):
    """To the last digits, also where float32 would not do for the bias correction."""
    with jax.enable_x64(dtype == "float64"):
        params = net.random(0, dtype=dtype)
        grads = net.random(1, (STEPS,), dtype)

        def run(tx):
            state, found = tx.init(params), []
            for t in range(STEPS):
                grad = jax.tree.map(lambda g, t=t: g[t], grads)
                updates, state = tx.update(grad, state, params)
                found.append(updates)
            return found

        ours = jax.jit(lambda: run(optim.adam(LR, net.groups)))()
        theirs = jax.jit(lambda: run(optax.adam(LR)))()
        digits = 1e-14 if dtype == "float64" else 0.0
        close = functools.partial(np.testing.assert_allclose, rtol=digits, atol=0)
        jax.tree.map(close, ours, theirs)


@pytest.mark.parametrize("eps_hat", [False, True])
def test_a_replaced_unit_starts_as_a_fresh_adam(net, eps_hat):
    """After a replacement its weights move as under a new Adam, all others as before.

    The trap: moments reset without the count of the bias correction, so that a first
    step is not of size lr. The unit's incoming and outgoing weights and its bias count.
    """
    tx = optim.redo(
        optim.adam(LR, net.groups, eps=1e-12, eps_hat=eps_hat),
        net.groups,
        threshold=0.1,
        period=PERIOD,
        key=jax.random.key(0),
    )
    features = net.features(2, (STEPS,), silent=DEAD)
    updates, state = play(net, tx, features=features)
    old, _ = play(net, optax.adam(LR, eps=1e-12))

    grads = jax.tree.map(lambda g: g[PERIOD:], net.random(1, (STEPS,)))
    fresh = optax.adam(LR, eps=1e-12)
    new_state, new = fresh.init(net.random(0)), []
    update = jax.jit(fresh.update)
    for i in range(STEPS - PERIOD):
        step, new_state = update(jax.tree.map(lambda g, i=i: g[i], grads), new_state)
        new.append(step)

    own = net.owned({name: np.arange(4) == unit for name, unit in DEAD.items()})
    for name, mask in own.items():
        for i, step in enumerate(new):
            actual = np.asarray(updates[name][PERIOD + i])
            assert_close(actual[mask], np.asarray(step[name])[mask])
            assert_close(actual[~mask], np.asarray(old[name][PERIOD + i])[~mask])
        first = np.abs(updates[name][PERIOD])[mask]
        np.testing.assert_allclose(first, LR, rtol=1e-4)

    counts = optax.tree.get(state.inner, "unit_count").values
    for name, unit in DEAD.items():
        expected = np.where(np.arange(4) == unit, STEPS - PERIOD, STEPS)
        np.testing.assert_array_equal(counts[name], expected)


def test_eps_hat_is_added_before_the_correction(net):
    """Once eps counts, it is another optimiser: eps at step t is eps / sqrt(1 - b2^t).

    Without units, too.
    """
    for units_or_none in (net.groups, None):
        tx = optim.adam(LR, units_or_none, eps=0.01, eps_hat=True)
        ours, _ = play(net, tx, steps=2)
        for t, of in enumerate((1 - 0.999, 1 - 0.999**2)):
            theirs, _ = play(net, optax.adam(LR, eps=0.01 / np.sqrt(of)), steps=2)
            for name in net.shapes:
                expected = theirs[name][t]
                np.testing.assert_allclose(ours[name][t], expected, rtol=1e-4)


def test_weights_of_no_unit_keep_the_global_count(net):
    """Entries of an axis outside the units (``start``) count all steps."""
    w = units.WeightAxis
    part = units.UnitGroup(
        "a", 2, (w("w0", 1, start=0),), (), (), (w("w1", 0, start=1),)
    )
    tx = optim.adam(LR, [part])
    params = net.random(0)
    state = tx.init(params)
    state = optax.tree.set(
        state,
        count=jnp.asarray(50, jnp.int32),
        unit_count=optim.PerUnit({"a": jnp.asarray([0, 50], jnp.int32)}),
    )
    part = part._replace(incoming=())
    updates, _ = jax.jit(optim.adam(LR, [part]).update)(params, state, params)
    young = np.abs(updates["w1"][1])
    np.testing.assert_allclose(young, LR, rtol=1e-4)
    old = (1 - 0.9) / (1 - 0.9**51) / np.sqrt((1 - 0.999) / (1 - 0.999**51)) * LR
    for row in (0, 2, 3):
        np.testing.assert_allclose(np.abs(updates["w1"][row]), old, rtol=1e-3)
    np.testing.assert_allclose(np.abs(updates["w0"]), old, rtol=1e-3)


def test_a_count_that_was_not_reset_would_be_seen(net):
    """With ``reset_inner=False`` moments and counts go on as optax.adam's."""
    tx = optim.redo(
        optim.adam(LR, net.groups),
        net.groups,
        period=PERIOD,
        reset_inner=False,
        key=jax.random.key(0),
    )
    updates, state = play(net, tx, features=net.features(2, (STEPS,), silent=DEAD))
    old, _ = play(net, optax.adam(LR))
    last = lambda tree: jax.tree.map(lambda u: u[PERIOD:], tree)
    assert_close(last(updates), last(old))
    counts = optax.tree.get(state.inner, "unit_count").values
    assert all(np.all(count == STEPS) for count in counts.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
        ("b1", 1.0),
        ("b2", -0.1),
        ("eps", -1e-8),
    ],
)
def test_values_out_of_range(net, name, value):
    """The message names the argument, the range and the value."""
    with pytest.raises(ValueError, match=f"{name} must be in .* got {value}"):
        optim.adam(**{"learning_rate": 0.1, "units": net.groups} | {name: value})
