"""Moving mean and variance of the inputs, against weighted averages by NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax.nets import input_normalization

DECAYS = (0.0, 0.9, 1.0)


def run(batches, shape, decay):
    """Statistics after each of the batches."""

    def step(stats, x):
        stats = input_normalization.update(stats, x, decay)
        return stats, stats

    return jax.lax.scan(step, input_normalization.init(shape), batches)[1]


@pytest.fixture(scope="module")
def swept():
    """The same with many decays at once, so that they are traced."""
    one = lambda decay, shape, batches: run(batches, shape, decay)

    def swept(batches, shape):
        sweep = jax.vmap(functools.partial(one, shape=shape, batches=batches))
        return sweep(jnp.array(DECAYS))

    return swept


@pytest.mark.parametrize(
    ("batch", "shape"), [((), (3,)), ((5,), (3,)), ((5, 2), (3,)), ((5,), (2, 3))]
)
def test_weighted_average(swept, batch, shape):
    """All inputs so far, each batch with decay times the weight of the next."""
    random = np.random.default_rng(0)
    batches = random.normal(size=(6, *batch, *shape)) * 2 + 3
    found = swept(jnp.array(batches), shape)
    flat = batches.reshape(6, -1, *shape)
    for i, decay in enumerate(DECAYS):
        for t in range(6):
            weights = np.repeat(decay ** np.arange(t, -1.0, -1), flat.shape[1])
            seen = flat[: t + 1].reshape(-1, *shape)
            mean = np.average(seen, axis=0, weights=weights)
            variance = np.average((seen - mean) ** 2, axis=0, weights=weights)
            close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
            close(found.mean[i, t], mean)
            close(found.variance[i, t], variance)


def test_normalised_inputs():
    """All that was seen with equal weights has mean 0 and variance 1 afterwards."""
    x = np.random.default_rng(1).normal(size=(500, 4)) * [1, 10, 0.1, 3] + 5
    stats = input_normalization.update(input_normalization.init((4,)), x, 1.0)
    y = input_normalization.normalize(stats, x, limit=jnp.inf)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-3)


def test_before_the_first_input_nothing_changes():
    x = jnp.array([2.0, -3.0])
    y = input_normalization.normalize(input_normalization.init((2,)), x)
    np.testing.assert_allclose(y, x, rtol=1e-4)


def test_large_means():
    """The variance does not drown in the square of the mean."""
    x = 1e4 + np.random.default_rng(2).normal(size=(1000, 1)).astype(np.float32)
    found = run(jnp.array(x), (1,), 1.0)
    np.testing.assert_allclose(found.variance[-1], np.var(np.float64(x)), rtol=0.01)


def test_an_input_that_was_always_zero():
    """Its first other value is at most 1 / sqrt(alpha) deviations off, or the limit."""
    x = jnp.zeros((300, 1)).at[-1].set(50.0)
    stats = jax.tree.map(lambda s: s[-1], run(x, (1,), 0.99))
    y = float(input_normalization.normalize(stats, x[-1], limit=jnp.inf)[0])
    assert 8 < y < 10
    assert input_normalization.normalize(stats, x[-1]) == 5
    assert input_normalization.normalize(stats, -x[-1], limit=3.0) == -3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("lead", [(), (4,)])
def test_a_bad_value_is_left_out(bad, lead):
    """A constant with one bad value, first or later, has the constant as its mean."""
    for place in (0, 3):
        x = jnp.full((6, *lead, 2), 7.0).at[(place, *(0,) * len(lead), 1)].set(bad)
        found = jax.tree.map(lambda s: s[-1], run(x, (2,), 0.9))
        np.testing.assert_allclose(found.mean, 7, rtol=1e-6)
        np.testing.assert_allclose(found.variance, 0, atol=1e-10)


def test_a_bad_value_costs_no_other():
    """The rest of its batch counts, and so do the other features."""
    x = np.random.default_rng(3).normal(size=(5, 6, 2)).astype(np.float32)
    broken = x.copy()
    broken[2, 0, 1] = np.nan
    found, sound = (run(jnp.array(b), (2,), 1.0) for b in (broken, x))
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[..., 0], b[..., 0]), found, sound
    )
    rest = np.delete(x[2, :, 1], 0)
    one = input_normalization.update(input_normalization.init((2,)), broken[2], 1.0)
    np.testing.assert_allclose(one.mean[1], rest.mean(), rtol=1e-5)
    np.testing.assert_allclose(one.variance[1], rest.var(), rtol=1e-5)


def test_half_precision():
    """Statistics stay float32, also of numbers whose squares half precision lacks."""
    x = jnp.array([[300.0], [500.0]], jnp.float16)
    found = input_normalization.update(input_normalization.init((1,)), x, 1.0)
    assert found.variance.dtype == jnp.float32
    assert (found.mean, found.variance) == (400, 100.0**2)


def test_bad_arguments():
    stats = input_normalization.init((2, 3))
    for shape in ((3, 2), (3,), ()):
        with pytest.raises(ValueError, match=r"\*\(2, 3\)"):
            input_normalization.update(stats, jnp.ones(shape), 0.9)
    for decay in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            input_normalization.update(stats, jnp.ones((2, 3)), decay)
