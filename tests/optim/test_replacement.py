"""The weights of a replaced unit: what they become, and how they are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim, units

W = units.WeightAxis
init = jax.nn.initializers


def replace(params, groups, features, key=None, **settings):
    """One step that replaces at a rate of 1/4; returns parameters and state."""
    settings = {
        "replacement_rate": 0.25,
        "maturity_threshold": 0,
        "utility": "contribution",
        **settings,
    }

    @jax.jit
    def step(params, features, key):
        make = optim.continual_backprop
        tx = make(optax.sgd(0.1, momentum=0.9), groups, key=key, **settings)
        updates, state = tx.update(params, tx.init(params), params, features=features)
        return optax.apply_updates(params, updates), state

    return step(params, features, jax.random.key(0) if key is None else key)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_of_a_replaced_unit(net, dtype):
    """Outgoing weights and biases are exactly 0, incoming weights new.

    Scales return to what they were at ``init``: 1 for a norm, .25 for the slope of a
    PReLU, any other value here. The trap: outgoing weights drawn instead of zeroed.
    """
    first, second = net.groups
    first = first._replace(scales=(W("scale", 0),))
    params = net.random(0, dtype=dtype)
    params["scale"] = jnp.full(4, 3.3, dtype)
    features = net.features(1, silent={"a": 1, "b": 2})
    after, state = replace(params, (first, second), features)
    after = {name: np.asarray(x, np.float64) for name, x in after.items()}
    assert np.flatnonzero(state.replaced["a"]).tolist() == [1]
    assert np.flatnonzero(state.replaced["b"]).tolist() == [2]
    assert after["b0"][1] == after["b1"][2] == 0
    assert np.all(after["w2"][2] == 0)
    assert np.all(np.delete(after["w1"][1], 2) == 0)
    initial = np.asarray(params["scale"], np.float64)[1]
    np.testing.assert_allclose(after["scale"], [2.97, 3.3, 2.97, 2.97], rtol=1e-2)
    assert after["scale"][1] == initial
    drawn = {"w0": after["w0"][:, 1], "w1": after["w1"][:, 2]}
    for column in drawn.values():
        bound = np.sqrt(6 / column.size)  # he_uniform
        assert np.all(np.abs(column) <= bound * 1.01)
        assert len(np.unique(np.abs(column))) == column.size
    moved = lambda name: 0.9 * np.asarray(params[name], np.float64)
    keep = np.delete(after["w0"], 1, axis=1), np.delete(moved("w0"), 1, axis=1)
    np.testing.assert_allclose(*keep, rtol=2e-2)


def test_a_weight_between_two_replaced_units_is_drawn(net):
    """It is zeroed as an outgoing weight first and drawn as an incoming one second."""
    features = net.features(1, silent={"a": 1, "b": 2})
    for groups in (net.groups, net.groups[::-1]):
        after, _ = replace(net.random(0), groups, features)
        assert after["w1"][1, 2] != 0
        assert abs(after["w1"][1, 2]) <= np.sqrt(6 / 4) * 1.001


def test_draws_are_all_different(net):
    """Units of one step, layers, steps and keys get weights of their own."""
    tx = lambda key: optim.continual_backprop(
        optax.set_to_zero(),
        net.groups,
        replacement_rate=1.0,
        maturity_threshold=0,
        initializer=init.uniform(1.0),  # of the same scale in both layers
        key=key,
    )

    @jax.jit
    def run(params, features, key):
        step = tx(key)
        draws, state = [], step.init(params)
        for _ in range(2):
            updates, state = step.update(params, state, params, features=features)
            params = optax.apply_updates(params, updates)
            draws.append((params["w0"], params["w1"]))
        return draws

    features = net.features(0)
    draws = [run(net.random(0), features, jax.random.key(seed)) for seed in (0, 1)]
    columns = [
        np.asarray(w)[:3, unit] for w in jax.tree.leaves(draws) for unit in range(4)
    ]
    assert len(columns) == 2 * 2 * 2 * 4
    for i, a in enumerate(columns):
        assert len(np.unique(a)) == 3
        assert all(np.max(np.abs(a - b)) > 1e-3 for b in columns[:i])


# name: (initialiser, shape of the weight, axis of its eight units)
DRAWS = {
    "he_uniform": (init.he_uniform(), (5, 8), 1),
    "glorot_uniform": (init.glorot_uniform(), (5, 8), 1),
    "glorot_normal": (init.glorot_normal(), (5, 8), 1),
    "fan_out": (init.variance_scaling(2.0, "fan_out", "uniform"), (5, 8), 1),
    "convolution": (init.glorot_uniform(), (2, 2, 3, 8), -1),
    "transposed": (init.glorot_uniform(in_axis=1, out_axis=0), (8, 5), 0),
}


@pytest.mark.parametrize("name", DRAWS)
def test_scale_of_the_draws(name):
    """One unit's weights have the distribution of the whole layer's initialisation.

    Also where it depends on the number of units (Glorot's fan-out): not that of the
    single column that is drawn, but that of the layer.
    """
    initializer, shape, axis = DRAWS[name]
    group = units.UnitGroup("w", 8, (W("w", axis),), (), (), (W("v", 0),))
    params = {"w": jnp.ones(shape), "v": jnp.arange(1.0, 9.0)[:, None]}
    features = {"w": jnp.ones((1, 8))}
    tx = lambda key: optim.continual_backprop(
        optax.set_to_zero(),
        [group],
        replacement_rate=0.125,
        maturity_threshold=0,
        initializer=initializer,
        key=key,
    )

    def draw(seed):
        step = tx(jax.random.key(seed))
        updates, _ = step.update(params, step.init(params), params, features=features)
        return jnp.moveaxis(updates["w"], axis, 0)[0] + 1.0

    drawn = np.ravel(jax.jit(jax.vmap(draw))(jnp.arange(400)))
    keys = jax.random.split(jax.random.key(1), 100)
    whole = np.ravel(jax.vmap(lambda k: initializer(k, shape, jnp.float32))(keys))
    assert abs(np.mean(drawn) - np.mean(whole)) < 4 * np.std(whole) / 40 + 1e-6
    np.testing.assert_allclose(np.std(drawn), np.std(whole), rtol=0.08, atol=1e-6)
    low, high = np.quantile(whole, (0.1, 0.9))
    assert abs(np.mean(drawn < low) - np.mean(whole < low)) < 0.04
    assert abs(np.mean(drawn > high) - np.mean(whole > high)) < 0.04
    assert np.max(np.abs(drawn)) < np.max(np.abs(whole)) * 1.15


@pytest.mark.parametrize("kind", ["orthogonal", "row_normalised"])
def test_dependent_weights_are_refused(net, kind):
    """Weights of one unit cannot be drawn alone where they depend on the others."""

    def row_normalised(key, shape, dtype):
        draws = jax.random.normal(key, shape, dtype)
        return draws / jnp.linalg.norm(draws, axis=-1, keepdims=True)

    bad = {"orthogonal": init.orthogonal(), "row_normalised": row_normalised}[kind]
    with pytest.raises(ValueError, match="are not a multiple of its draws"):
        replace(net.random(0), net.groups, net.features(1), initializer=bad)


def test_an_initializer_per_path(net):
    """Each incoming weight uses its own; one that is missing is named."""
    each = {"w0": init.constant(2.0), "w1": init.constant(3.0)}
    features = net.features(1, silent={"a": 1, "b": 2})
    after, _ = replace(net.random(0), net.groups, features, initializer=each)
    np.testing.assert_allclose(after["w0"][:, 1], 2.0, rtol=1e-6)
    np.testing.assert_allclose(after["w1"][:, 2], 3.0, rtol=1e-6)
    with pytest.raises(ValueError, match="nothing for 'w1'"):
        each = {"w0": init.zeros}
        replace(net.random(0), net.groups, features, initializer=each)


def test_a_recurrent_weight_may_be_incoming_and_outgoing():
    """A unit's weight to itself is both; it is drawn, the rest of its row is 0."""
    group = units.UnitGroup("h", 4, (W("x", 1), W("h", 1)), (), (), (W("h", 0),))
    params = {"x": jnp.ones((3, 4)), "h": jnp.ones((4, 4))}
    features = {"h": jnp.ones((2, 4)).at[:, 2].set(0.0)}
    after, _ = replace(params, [group], features, initializer=init.constant(5.0))
    expected = np.full((4, 4), 0.9)
    expected[2, :] = 0.0
    expected[:, 2] = 5.0
    np.testing.assert_allclose(after["h"], expected, rtol=1e-6)


@pytest.mark.parametrize("make", ["tuple", "nested"])
def test_other_containers(make):
    """Parameters may be any tree; paths join its keys with a slash."""
    w, v = jnp.ones((3, 4)), jnp.ones((4, 2))
    if make == "tuple":
        params, incoming, outgoing = (w, [v]), "0", "1/0"
    else:
        params, incoming, outgoing = {"a": {"w": w}, "b": {"w": v}}, "a/w", "b/w"
    group = units.UnitGroup("h", 4, (W(incoming, 1),), (), (), (W(outgoing, 0),))
    features = {"h": jnp.ones((2, 4)).at[:, 2].set(0.0)}
    after, _ = replace(params, [group], features, initializer=init.constant(5.0))
    assert jax.tree.structure(after) == jax.tree.structure(params)
    w, v = jax.tree.leaves(after)
    np.testing.assert_allclose(w[0], [0.9, 0.9, 5.0, 0.9], rtol=1e-6)
    np.testing.assert_allclose(v[:, 0], [0.9, 0.9, 0.0, 0.9], rtol=1e-6)
