"""The next layer's bias takes over the mean output of a replaced unit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim, units


def dense(params, x):
    h = jax.nn.relu(x @ params["w0"] + params["b0"])
    h = jax.nn.relu(h @ params["w1"] + params["b1"])
    return h @ params["w2"] + params["b2"]


def transposed(params, x):
    h = jax.nn.relu(params["w0"] @ x.T + params["b0"][:, None])
    return (params["w1"] @ h + params["b1"][:, None]).T


def convolution(params, x):
    dims = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(
        x, params["w0"], (1, 1), "VALID", dimension_numbers=dims
    )
    h = jax.nn.relu(h + params["b0"])
    h = h.reshape(len(x), -1)
    return h @ params["w1"] + params["b1"]


def normal(seed, shapes):
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    pairs = zip(shapes.items(), keys, strict=True)
    return {name: jax.random.normal(key, shape) for (name, shape), key in pairs}


CASES = {
    "dense": (
        dense,
        {"w0": (3, 4), "b0": (4,), "w1": (4, 4), "b1": (4,), "w2": (4, 1), "b2": (1,)},
        (6, 3),
    ),
    "transposed": (
        transposed,
        {"w0": (4, 3), "b0": (4,), "w1": (4, 4), "b1": (4,)},
        (6, 3),
    ),
    "convolution": (
        convolution,
        {"w0": (2, 2, 1, 3), "b0": (3,), "w1": (12, 5), "b1": (5,)},
        (6, 3, 3, 1),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_output_changes_only_by_the_deviation_from_the_mean(case):
    """With every unit constant over the batch nothing changes at all.

    In general the pre-activations of the next layer move by the weights times the
    removed units' deviation from their mean activation: at each position of a map, the
    mean at that position.
    """
    apply, shapes, shape = CASES[case]
    params = normal(0, shapes)
    x = jax.random.normal(jax.random.key(1), shape)
    groups = units.find(apply, params, x)[:1]
    tx = optim.continual_backprop(
        optax.sgd(0.0),
        groups,
        replacement_rate=1.0,
        maturity_threshold=0,
        decay_rate=0.0,
        bias_transfer=True,
        max_replacements=1,
        key=jax.random.key(2),
    )
    _, features = units.tap(apply)(params, x)
    updates, state = tx.update(params, tx.init(params), params, features=features)
    after = optax.apply_updates(params, updates)
    name, reader = groups[0].name, groups[0].outgoing[0]
    (unit,) = np.flatnonzero(state.replaced[name])
    at = features[name].reshape(-1, *reader.positions, groups[0].size)
    mean = at.mean(axis=0)[..., unit].reshape(-1, 1)

    chosen = reader.spread(
        jnp.arange(groups[0].size) == unit, params[reader.path].shape
    )
    removed = np.asarray(jnp.where(chosen, params[reader.path], 0))
    moved = np.asarray(after[reader.bias] - params[reader.bias])
    rows = np.moveaxis(removed, reader.block_axis, -1)
    rows = rows[np.any(rows != 0, axis=1)]  # one per position
    np.testing.assert_allclose(moved, (mean * rows).sum(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(
        after[reader.path][np.broadcast_to(chosen, removed.shape)], 0
    )


def test_a_unit_of_constant_activation_leaves_the_output_alone():
    params = {
        "w": jnp.zeros((3, 2)),
        "b": jnp.array([2.0, 0.5]),
        "v": jnp.array([[0.1, 0.2], [3.0, 4.0]]),
        "c": jnp.array([1.0, -1.0]),
    }

    def apply(params, x):
        return jax.nn.relu(x @ params["w"] + params["b"]) @ params["v"] + params["c"]

    x = jax.random.normal(jax.random.key(0), (5, 3))
    tx = optim.continual_backprop(
        optax.sgd(0.0),
        units.find(apply, params, x),
        replacement_rate=0.5,
        maturity_threshold=0,
        bias_transfer=True,
        utility="contribution",
        key=jax.random.key(1),
    )
    before, features = units.tap(apply)(params, x)
    updates, state = tx.update(params, tx.init(params), params, features=features)
    assert state.replaced["w"].tolist() == [True, False]
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(apply(after, x), before, rtol=1e-6)


def test_a_reader_without_a_bias_is_refused():
    def apply(params, x):
        return jax.nn.relu(x @ params["w"]) @ params["v"]

    params = normal(0, {"w": (3, 4), "v": (4, 2)})
    groups = units.find(apply, params, jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="'v', which reads layer 'w', adds no bias"):
        optim.continual_backprop(
            optax.sgd(0.1),
            groups,
            replacement_rate=0.1,
            bias_transfer=True,
            key=jax.random.key(0),
        )
