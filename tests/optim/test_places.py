"""A unit is worth what it sends at each place, however the reader is spelled."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim, units
from loplax.optim import utilities

# Both units fire at the first corner only; there unit 0 alone is read.
CORNER = jnp.zeros((2, 2, 2, 1)).at[:, 0, 0].set(1.0)
IMAGE = jax.random.uniform(jax.random.key(0), (2, 2, 2, 1))
WEIGHTS = jnp.zeros((2, 2, 2, 1)).at[0, 0, 0].set(0.1).at[1, :, 1].set(5.0)
NHWC = ("NHWC", "HWIO", "NHWC")


def convolve(x, w):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=NHWC)


READERS = {
    "dense": lambda h, w: h.reshape(2, -1) @ w,
    "tensordot": lambda h, w: jnp.tensordot(h, w, 3),
    "einsum": lambda h, w: jnp.einsum("bhwc,hwco->bo", h, w),
    "convolution": convolve,
}


def build(spelling, w):
    """The groups, parameters and activations of a model."""

    def apply(params, x):
        h = jax.nn.relu(convolve(x, params["k"]))
        return READERS[spelling](h, params["w"]) + params["b"]

    w = w.reshape(8, 1) if spelling == "dense" else w
    params = {"k": jnp.ones((1, 1, 1, 2)), "w": w, "b": jnp.ones(1)}
    return units.find(apply, params, IMAGE), params, units.tap(apply)


def replace(found, params, features):
    """One step that replaces one of the two units."""
    tx = optim.continual_backprop(
        optax.sgd(0.1),
        found,
        utility="contribution",
        replacement_rate=0.5,
        maturity_threshold=0,
        bias_transfer=True,
        key=jax.random.key(0),
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, state = tx.update(zeros, tx.init(params), params, features=features)
    return optax.apply_updates(params, updates), state


@pytest.mark.parametrize("spelling", READERS)
def test_the_unit_that_is_not_read_is_replaced(spelling):
    """Large weights at places where a unit is silent count nothing."""
    found, params, tapped = build(spelling, WEIGHTS)
    before, features = tapped(params, CORNER)
    params, state = replace(found, params, features)
    assert state.replaced["k"].tolist() == [False, True]
    assert params["w"].reshape(4, 2)[0, 0] == np.float32(0.1)
    assert not jnp.any(params["w"].reshape(4, 2)[:, 1])
    # Nothing was read of that unit, so nothing is to be absorbed.
    assert params["b"] == 1
    np.testing.assert_array_equal(tapped(params, CORNER)[0], before)


def test_spellings_agree():
    """Utilities and transferred means are those of the weights place by place."""
    weights = jax.random.normal(jax.random.key(1), (2, 2, 2, 1))
    h = np.repeat(np.asarray(IMAGE), 2, axis=-1)
    expected = np.mean(np.abs(weights[..., 0] * h.mean(0)), axis=(0, 1))
    lost = np.sum(weights[..., 0] * h.mean(0), axis=(0, 1))
    for spelling in READERS:
        found, params, tapped = build(spelling, weights)
        features = tapped(params, IMAGE)[1]
        means = {"k": jnp.mean(features["k"], axis=0)}
        utility = utilities.mean_product(found[0], params, means)
        np.testing.assert_allclose(utility, expected, rtol=1e-6)
        params, state = replace(found, params, features)
        assert state.replaced["k"].tolist() == (expected == expected.min()).tolist()
        moved = lost[np.argmin(expected)]
        np.testing.assert_allclose(params["b"] - 1, moved, rtol=1e-5, atol=1e-6)
