"""Means over examples: how many, in which chunks, and with which weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

RNG = np.random.default_rng(0)
X, W = (RNG.normal(size=shape).astype(np.float32) for shape in ((7, 3), (3, 2)))
Y = np.array([0, 1, 1, 0, 1, 0, 0])


def loss(w, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(x @ w, y)


def test_fisher_of_many_examples():
    """In float32 it is exact to 1e-5, where all are alike and where few count."""
    square = lambda w, x, y: jnp.mean(w * x)
    found = jax.jit(lambda x: optim.fisher(square, jnp.array(1.0), x, x))
    drawn = np.random.default_rng(0).lognormal(sigma=2, size=60_000)
    for x in (np.full(60_000, 1.1), drawn):
        x = x.astype(np.float32)
        np.testing.assert_allclose(found(x), np.mean(x.astype(float) ** 2), rtol=1e-5)


def test_weights_of_examples():
    """As a list, of whole numbers, in half precision; traced ones below 0 give NaN."""
    fisher = lambda weights: optim.fisher(loss, W, X, Y, weights=weights, chunk=2)
    some = [1, 0, 2, 0, 0, 0, 1]
    expected = fisher(np.array(some, np.float32))
    for weights in (some, np.array(some), jnp.array(some, jnp.float16)):
        np.testing.assert_array_equal(fisher(weights), expected)
    many = jnp.array([some, [-1, *some[1:]], [np.nan, *some[1:]], [np.inf, *some[1:]]])
    found = jax.jit(jax.vmap(fisher))(many)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    assert np.isnan(found[1:]).all()
    alike = fisher(jnp.full(7, 6e4, jnp.float16))  # the sum is no number of float16
    np.testing.assert_allclose(alike, fisher(None), rtol=1e-5)


WRONG = {  # weights, inputs and targets
    r"weights must be \[7\], got \[6\]": (np.ones(6), X, Y),
    r"weights must be \[7\], got \[\]": (1.0, X, Y),
    r"weights must be in \[0, inf\), got \[-1": (-np.ones(7), X, Y),
    "weights must be in .*nan": (np.full(7, np.nan), X, Y),
    "weights must be in .*inf": ([np.inf] * 7, X, Y),
    r"one number of examples, at least 1, got \[6, 7\]": (None, X, Y[:6]),
    r"at least 1, got \[0\]": (None, X[:0], Y[:0]),
    r"at least 1, got \['no axis', 7\]": (None, X, 1),
}


@pytest.mark.parametrize("words", WRONG)
def test_examples_that_do_not_fit(words):
    weights, inputs, targets = WRONG[words]
    with pytest.raises(ValueError, match=words):
        optim.fisher(loss, W, inputs, targets, weights=weights)
