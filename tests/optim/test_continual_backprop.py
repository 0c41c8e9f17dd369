"""continual_backprop: when units are replaced, which ones, and by what."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

from loplax import optim, units
from loplax.optim.continual_backprop import Budget

STEPS = 30
zeros = jax.nn.initializers.zeros


@functools.cache
def compiled(net, steps=STEPS, **settings):
    """Jitted ``(params, features, seed, **numbers) -> (params, state)`` of all steps.

    The inner optimiser does nothing, so replacements alone move the parameters; they
    draw zeros unless told otherwise, which compiles faster.
    """
    static = {"initializer": zeros, "max_replacements": 4, "utility": "contribution"}
    static |= settings

    @jax.jit
    def run(params, features, seed, replacement_rate, maturity_threshold, decay_rate):
        tx = optim.continual_backprop(
            optax.set_to_zero(),
            net.groups,
            replacement_rate=replacement_rate,
            maturity_threshold=maturity_threshold,
            decay_rate=decay_rate,
            key=jax.random.key(seed),
            **static,
        )

        def step(carry, features):
            params, state = carry
            updates, state = tx.update(params, state, params, features=features)
            carry = optax.apply_updates(params, updates), state
            return carry, carry

        carry = params, tx.init(params)
        return jax.lax.scan(step, carry, features, length=steps)[1]

    return run


def play(
    net, rate, threshold=0, decay=0.9, *, seed=0, features=None, params=None, **kw
):
    """Runs once; returns all parameters and states as NumPy arrays."""
    run = compiled(net, **kw)
    features = net.features(seed, (STEPS,)) if features is None else features
    params = net.random(seed) if params is None else params
    params, state = run(params, features, seed, rate, float(threshold), decay)
    return jax.tree.map(np.asarray, (params, state._replace(key=None)))


def saved(state, name):
    """Replacements in the budget of a layer, with what rounding kept out."""
    return sum(state.units[name].budget)


# When: the budget.

VARIANTS = [("eligible", 4), ("eligible", 1), ("eligible", 2), ("all", 4), ("all", 1)]


@pytest.mark.parametrize(("budget", "most"), VARIANTS)
@hypothesis.given(
    rate=st.floats(0, 1, width=32),
    threshold=st.integers(0, 12),
    seed=st.integers(0, 99),
)
@hypothesis.settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_law_of_the_budget(net, budget, most, rate, threshold, seed):
    """Replacements so far are rate x eligible units, within one; none is lost.

    No immature unit is replaced (age > threshold, strictly); never more than
    ``max_replacements`` per step, and what exceeds it waits in the budget. The trap: a
    budget that grows while no unit is mature, so that a layer is wiped at once.
    """
    _, state = play(
        net, rate, threshold, seed=seed, max_replacements=most, budget=budget
    )
    for name in "ab":
        age, owed = np.zeros(4, int), 0.0
        for t in range(STEPS):
            age += 1
            eligible = age > threshold
            count = eligible.sum()
            owed += rate * (count if budget == "eligible" else 4 * (count > 0))
            replaced = state.replaced[name][t]
            assert not np.any(replaced & ~eligible)
            due = [min(np.floor(owed + error), most, count) for error in (-1e-4, 1e-4)]
            assert replaced.sum() in due
            owed -= replaced.sum()
            age[replaced] = 0
            np.testing.assert_array_equal(state.units[name].age[t], age)
            np.testing.assert_allclose(saved(state, name)[t], owed, atol=1e-4)


@pytest.mark.parametrize("budget", ["eligible", "all"])
def test_no_layer_is_wiped_at_maturity(net, budget):
    """The trap: a budget that grew in a layer's youth empties the layer at once."""
    _, state = play(net, 0.3, 20, budget=budget)
    for name in "ab":
        assert not np.any(saved(state, name)[:20])
        assert not np.any(state.replaced[name][:20])
        assert state.replaced[name][20].sum() == 1  # 4 x 0.3 = 1.2


def test_age_must_exceed_the_threshold(net):
    """At age = threshold a unit is still safe; at the next step it is not."""
    _, state = play(net, 1.0, 10)
    for name in "ab":
        counts = state.replaced[name].sum(axis=1)
        np.testing.assert_array_equal(counts, 4 * (np.arange(1, STEPS + 1) % 11 == 0))


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_default_bound_loses_no_time(net, rate):
    """With a fixed rate the default ``max_replacements`` never delays a replacement."""
    tx = optim.continual_backprop(
        optax.set_to_zero(),
        net.groups,
        replacement_rate=rate,
        maturity_threshold=2,
        initializer=zeros,
        key=jax.random.key(0),
    )
    params, features = net.random(0), net.features(0)
    step = lambda s, _: (tx.update(params, s, params, features=features)[1],) * 2
    run = jax.jit(lambda: jax.lax.scan(step, tx.init(params), length=STEPS)[1])
    state = run()
    for name in "ab":
        assert np.all(saved(state, name) < 1)
        assert np.any(state.replaced[name])


def test_tiny_rates_add_up(net):
    """Millions of amounts below the precision of the budget are still counted.

    From 0.9999, ten thousand steps of 1e-8 make one replacement, and only one; a plain
    float32 sum would stay at 0.9999 for ever.
    """
    steps = 12_000
    tx = optim.continual_backprop(
        optax.set_to_zero(),
        net.groups[:1],
        replacement_rate=2.5e-9,
        maturity_threshold=0,
        initializer=zeros,
        key=jax.random.key(0),
    )
    params, features = net.random(0), net.features(0)

    @jax.jit
    def run():
        state = tx.init(params)
        budget = Budget(jnp.float32(0.9999), jnp.float32(0))
        state = state._replace(units={"a": state.units["a"]._replace(budget=budget)})
        step = lambda s, _: (
            tx.update(params, s, params, features=features)[1],
            s.replaced,
        )
        last, replaced = jax.lax.scan(step, state, length=steps)
        return saved(last, "a"), replaced["a"]

    budget, replaced = run()
    (when,) = np.flatnonzero(np.any(replaced, axis=1))
    assert abs(when - 10_000) < 10
    left = 0.9999 + steps * 1e-8 - 1
    np.testing.assert_allclose(budget, left, atol=1e-7)


def test_rate_zero_never_replaces(net):
    """With a rate of 0 parameters stay as they are, to the bit."""
    params, state = play(net, 0.0)
    assert not any(np.any(x) for x in state.replaced.values())
    before = net.random(0)
    for name, values in params.items():
        np.testing.assert_array_equal(
            values, np.broadcast_to(before[name], values.shape)
        )


def test_without_accumulation_chance_decides(net):
    """One unit with probability rate x eligible; layers and steps are independent."""
    run = compiled(net, budget="random")
    many = jax.jit(jax.vmap(run, (None, None, 0, None, None, None)))
    args = net.random(0), net.features(0, (STEPS,)), jnp.arange(100), 0.05, 0.0, 0.9
    state = many(*args)[1]
    a, b = (np.asarray(state.replaced[name]).sum(axis=-1) for name in "ab")
    assert a.max() == b.max() == 1
    close = lambda x, p: abs(np.mean(x) - p) < 4 * np.sqrt(p * (1 - p) / np.size(x))
    assert close(a, 0.2) and close(b, 0.2)
    assert close(a * b, 0.04) and close(a[:, 1:] * a[:, :-1], 0.04)
    assert not any(np.any(saved(state, name)) for name in "ab")


def test_without_accumulation_whole_numbers_are_certain(net):
    """From rate x eligible = 1 on, a step replaces the integer part, every time."""
    _, state = play(net, 0.6, budget="random")
    assert all(np.all(x.sum(axis=1) == 2) for x in state.replaced.values())
    _, state = play(net, 0.6, budget="random", max_replacements=1)
    assert all(np.all(x.sum(axis=1) == 1) for x in state.replaced.values())


def test_random_utility_is_independent_of_chance(net):
    """Whether a step replaces says nothing about which unit: all are as likely."""
    run = compiled(net, budget="random", utility="random")
    many = jax.jit(jax.vmap(run, (None, None, 0, None, None, None)))
    args = net.random(0), net.features(0, (STEPS,)), jnp.arange(100), 0.05, 0.0, 0.0
    replaced = np.asarray(many(*args)[1].replaced["a"]).sum(axis=(0, 1))
    share = replaced / replaced.sum()
    assert replaced.sum() > 400
    assert np.all(np.abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / replaced.sum()))


# Which: the ranking.


def test_the_least_useful_units_go(net):
    """The k units of lowest utility go. The trap: top-k with the wrong sign."""
    for seed in range(20):
        params, features = net.random(seed), net.features(seed, (STEPS,))
        _, state = play(net, 0.5, decay=0.0, seed=seed)
        for group in net.groups:
            h = np.asarray(features[group.name][0])
            w = np.asarray(params[group.outgoing[0].path])
            useful = np.abs(w).mean(axis=1) * np.abs(h).mean(axis=0)
            expected = np.isin(np.arange(4), np.argsort(useful)[:2])
            np.testing.assert_array_equal(state.replaced[group.name][0], expected)


def test_equal_units(net):
    """Among equal units as many are replaced as are due, no more."""
    features = jax.tree.map(jnp.zeros_like, net.features(0, (STEPS,)))
    _, state = play(net, 0.5, features=features)
    assert all(np.all(x.sum(axis=1) == 2) for x in state.replaced.values())


def test_a_unit_just_matured_is_not_replaced_at_once(net):
    """The ranking is bias-corrected. The trap: ranking by the raw running average.

    Unit 3 is replaced at step 4 and is then the most useful one; when it matures, its
    raw average is still the lowest, having started from 0.
    """
    columns = jnp.array([1.0, 1.05, 1.0, 4.0])  # utility 1 / mean|W_in|
    params = net.random(0) | {"w0": jnp.tile(columns, (3, 1))}
    features = net.features(0)

    @jax.jit
    def run(rates):
        def step(carry, rate):
            params, state = carry
            tx = optim.continual_backprop(
                optax.set_to_zero(),
                net.groups[:1],
                replacement_rate=rate,
                maturity_threshold=3,
                utility="adaptation",
                initializer=jax.nn.initializers.constant(0.8),
                key=jax.random.key(0),
            )
            state = tx.init(params) if state is None else state
            updates, state = tx.update(params, state, params, features=features)
            return (optax.apply_updates(params, updates), state), state

        carry, first = step((params, None), rates[0])
        return first, jax.lax.scan(step, carry, rates[1:])[1]

    rates = jnp.zeros(8).at[jnp.array([3, 7])].set(0.25)
    _, state = run(rates)
    replaced, raw = state.replaced["a"], state.units["a"].utility
    when, which = np.nonzero(replaced)
    assert np.argmin(raw[-2]) == 3
    assert list(zip(when + 2, which, strict=True)) == [(4, 3), (8, 1)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_feature_never_wins(net, value):
    """A unit of non-finite utility is not replaced; the others go on as without it.

    The trap: inf * 0 = NaN wins the argmin.
    """
    features = net.features(0, (STEPS,))
    broken = features | {"a": features["a"].at[..., 2].set(value)}
    params, state = play(net, 0.25, 3, features=broken)
    _, clean = play(net, 0.0, 3, features=features)
    assert not np.any(state.replaced["a"][:, 2])
    others = [0, 1, 3]
    first = np.argmax(state.replaced["a"].any(axis=1))
    assert first > 3
    np.testing.assert_array_equal(
        state.units["a"].utility[:first, others],
        clean.units["a"].utility[:first, others],
    )
    weakest = others[np.argmin(clean.units["a"].utility[first, others])]
    assert np.flatnonzero(state.replaced["a"][first]).tolist() == [weakest]
    # three eligible units at a rate of 1/4
    total = state.replaced["a"].sum()
    eligible = np.sum(state.units["a"].age[:, others] > 3) + total
    assert total > 3 and abs(total - 0.25 * eligible) <= 1
    assert all(np.all(np.isfinite(x)) for x in params.values())
    assert all(np.all(np.isfinite(saved(state, name))) for name in "ab")


def test_infinite_weights_never_win(net):
    """Unit 1 has infinite outgoing weights and is silent: 0 x inf; it is left alone."""
    params = net.random(0)
    params["w1"] = params["w1"].at[1].set(jnp.inf)
    features = net.features(0, (STEPS,), silent={"a": 1, "b": 1})
    _, state = play(net, 0.25, features=features, params=params)
    assert not np.any(state.replaced["a"][:, 1])
    assert state.replaced["a"].sum() >= 0.25 * 3 * STEPS - 1


def test_zero_incoming_weights_never_win(net):
    """1 / mean|W_in| of a unit without incoming weights is infinite; it stays."""
    params = net.random(0)
    params["w0"] = params["w0"].at[:, 1].set(0.0)
    constant = jax.nn.initializers.constant(1.0)
    _, state = play(
        net, 0.25, params=params, utility="adaptation", initializer=constant
    )
    assert not np.any(state.replaced["a"][:, 1])
    assert state.replaced["a"].sum() >= 0.25 * 3 * STEPS - 1


def test_a_layer_that_is_not_finite_as_a_whole(net):
    """Nothing is eligible, so nothing is replaced and no budget gathers."""
    features = net.features(0, (STEPS,))
    features["a"] = jnp.full_like(features["a"], jnp.nan)
    params, state = play(net, 1.0, features=features)
    assert not np.any(state.replaced["a"]) and np.all(state.replaced["b"])
    assert not np.any(saved(state, "a"))
    assert all(np.all(np.isfinite(x)) for x in params.values())


# By what: the state after a replacement, and the order of the layers.


def test_a_replaced_unit_starts_from_nothing(net):
    """Utility, mean activation and age are 0; others have aged and kept theirs."""
    _, state = play(net, 0.25)
    for name in "ab":
        replaced = state.replaced[name]
        assert np.any(replaced)
        known = state.units[name]
        for field in (known.utility, known.mean_activation[name], known.age):
            np.testing.assert_array_equal(field[replaced], 0)
            assert np.all(field[~replaced] > 0)
        older = known.age[1:] == known.age[:-1] + 1
        np.testing.assert_array_equal(older, ~replaced[1:])


def test_update_returns_updates(net):
    """Updates, 0 where nothing changes. The trap: parameters, which do not chain."""
    tx = optim.continual_backprop(
        optax.set_to_zero(),
        net.groups,
        replacement_rate=0.25,
        maturity_threshold=0,
        initializer=zeros,
        key=jax.random.key(0),
    )
    params = jax.tree.map(lambda p: p + 100.0, net.random(0))
    step = jax.jit(
        lambda: tx.update(params, tx.init(params), params, features=features)
    )
    features = net.features(0)
    updates, state = step()
    for name, own in net.owned(state.replaced).items():
        np.testing.assert_array_equal(np.asarray(updates[name]) != 0, own)
        np.testing.assert_array_equal(updates[name][own], -params[name][own])


DEPTH, WIDTH = 12, 3


def deep(params, x):
    """An MLP whose layer names do not sort in the order of the layers."""
    for i in range(DEPTH):
        layer = params[f"hidden_{i}"]
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ params["out"]["kernel"]


@pytest.mark.parametrize("order", ["forward", "alphabet"])
def test_layers_are_not_ordered_by_name(order):
    """``hidden_10`` sorts before ``hidden_2``; neither names nor their order matter.

    One unit of each layer is replaced. Its outgoing weights are rows of the next layer,
    zeroed first; the incoming ones are drawn second, so shared weights are drawn.
    """
    rng = np.random.default_rng(0)
    make = lambda: {
        "kernel": rng.uniform(0.1, 1, (WIDTH, WIDTH)).astype(np.float32),
        "bias": rng.uniform(0.1, 1, WIDTH).astype(np.float32),
    }
    params = {f"hidden_{i}": make() for i in range(DEPTH)} | {"out": make()}
    dead = {2: 1, 10: 2}
    for layer, unit in dead.items():
        params[f"hidden_{layer}"]["bias"][unit] = -1e6
    x = jnp.ones((4, WIDTH))
    groups = list(units.find(deep, params, x))
    assert [group.name for group in groups] == [f"hidden_{i}" for i in range(DEPTH)]
    tx = optim.continual_backprop(
        optax.set_to_zero(),
        sorted(groups) if order == "alphabet" else groups,
        replacement_rate=1 / WIDTH,
        maturity_threshold=0,
        initializer=jax.nn.initializers.constant(0.7),
        key=jax.random.key(0),
    )

    @jax.jit
    def step(params, x):
        _, features = units.tap(deep)(params, x)
        updates, state = tx.update(params, tx.init(params), params, features=features)
        return optax.apply_updates(params, updates), state.replaced

    after, replaced = step(params, x)
    one = {i: np.flatnonzero(replaced[f"hidden_{i}"]) for i in range(DEPTH)}
    assert all(unit.size == 1 for unit in one.values())
    assert all(one[layer] == unit for layer, unit in dead.items())
    names = [f"hidden_{i}" for i in range(DEPTH)] + ["out"]
    for i, unit in one.items():
        params[names[i + 1]]["kernel"][unit, :] = 0.0
    for i, unit in one.items():
        params[names[i]]["kernel"][:, unit] = 0.7
        params[names[i]]["bias"][unit] = 0.0
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, after, params)


def test_a_saved_run_goes_on_as_the_same_run(net):
    """The state holds all there is: utilities, ages, budget and random key.

    The trap: a checkpoint without them, so that a resumed run is another run.
    """
    tx = optim.continual_backprop(
        optax.sgd(0.1, momentum=0.9),
        net.groups,
        replacement_rate=0.1,
        maturity_threshold=2,
        key=jax.random.key(0),
    )
    inputs = net.random(1, (STEPS,)), net.features(2, (STEPS,))

    @jax.jit
    def run(carry, inputs):
        def step(carry, inputs):
            params, state = carry
            updates, state = tx.update(inputs[0], state, params, features=inputs[1])
            return (optax.apply_updates(params, updates), state), state.replaced

        return jax.lax.scan(step, carry, inputs)

    part = lambda start, stop: jax.tree.map(lambda x: x[start:stop], inputs)
    carry = net.random(0), tx.init(net.random(0))
    carry, first = run(carry, part(0, STEPS // 2))
    (params, state), second = run(carry, part(STEPS // 2, STEPS))
    assert all(np.any(x) for x in (*first.values(), *second.values()))

    saved = carry[1]._replace(key=jax.random.key_data(carry[1].key))
    leaves = [np.array(leaf) for leaf in jax.tree.leaves((carry[0], saved))]
    like = jax.eval_shape(lambda: (carry[0], saved))
    restored = jax.tree.unflatten(jax.tree.structure(like), map(jnp.asarray, leaves))
    restored = (
        restored[0],
        restored[1]._replace(key=jax.random.wrap_key_data(restored[1].key)),
    )
    (again, state_again), _ = run(restored, part(STEPS // 2, STEPS))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    jax.tree.map(np.testing.assert_array_equal, state_again.units, state.units)
