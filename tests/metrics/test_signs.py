"""What switching signs costs: in NumPy, by a known identity, and at the extremes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import metrics

pytestmark = pytest.mark.usefixtures("quick_compile")
KEY = jax.random.key(0)


def task(seed, size):
    """A quadratic loss of the signs of an array and of another one: H, w*, loss."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    hessian, optimum = root @ root.T / size, rng.uniform(-2, 2, size)

    def loss(params):
        away = jnp.sign(params["a"]["w"].ravel()) - jnp.asarray(optimum, jnp.float32)
        return away @ jnp.asarray(hessian, jnp.float32) @ away / 2 + params["b"].sum()

    return hessian, optimum, loss


def case(weights):
    return {"a": {"w": jnp.asarray(weights, jnp.float32)}, "b": jnp.ones(2)}


def cost(loss, weights, **how):
    found = jax.jit(lambda w: metrics.switching_cost(loss, case(w), "a/w", KEY, **how))
    return found(jnp.asarray(weights, jnp.float32))


def identity(hessian, optimum, weights):
    signs = np.sign(weights)
    return 2 * np.diag(hessian) - 2 * signs * (hessian @ (signs - optimum))


def test_one_sign_at_a_time_costs_what_the_identity_says():
    """2 H_ii - 2 b_i [H (b - w*)]_i, its mean over a bin and its deviation."""
    hessian, optimum, loss = task(0, 40)
    weights = np.random.default_rng(1).normal(size=40)
    found = cost(loss, weights.reshape(8, 5), switched=1, bins=4, runs=3000)
    exact = identity(hessian, optimum, weights)
    relative = np.abs(weights) / np.abs(weights).max()
    for i in range(4):
        inside = np.floor(np.minimum(relative, 0.999) * 4) == i
        error = 4 * exact[inside].std() / np.sqrt(3000) + 1e-4
        assert abs(found.mean[i] - exact[inside].mean()) < error
        deviation = exact[inside].std()
        np.testing.assert_allclose(found.deviation[i], deviation, rtol=0.1, atol=1e-4)
        np.testing.assert_allclose(found.size[i], relative[inside].mean(), rtol=0.05)


def test_sets_of_signs_are_drawn_without_replacement_from_one_bin():
    """Every run is one of the possible pairs, and none is left out."""
    hessian, optimum, loss = task(2, 9)
    weights = np.array([0.1, -0.2, 0.15, 0.6, -0.9, 0.8, 1.0, -0.4, 0.55])
    plain = lambda w: (np.sign(w) - optimum) @ hessian @ (np.sign(w) - optimum) / 2

    def switched(pair):
        return (plain(np.where(np.isin(np.arange(9), pair), -weights, weights))) / 2

    one = functools.partial(metrics.switching_cost, loss, case(weights), "a/w")
    each = jax.jit(jax.vmap(lambda key: one(key, switched=2, bins=2, runs=1)))
    drawn = each(jax.random.split(KEY, 300))
    for i, inside in enumerate(([0, 1, 2, 7], [3, 4, 5, 6, 8])):
        pairs = list(itertools.combinations(inside, 2))
        known = [switched(pair) - plain(weights) / 2 for pair in pairs]
        which = np.abs(drawn.mean[:, i, None] - np.array(known)).argmin(1)
        np.testing.assert_allclose(drawn.mean[:, i], np.array(known)[which], atol=1e-4)
        sizes = [np.abs(weights[list(pair)]).mean() for pair in pairs]
        np.testing.assert_allclose(drawn.size[:, i], np.array(sizes)[which], rtol=1e-5)
        assert set(which) == set(range(len(pairs)))
    assert (drawn.deviation == 0).all()


def test_whole_bins_leave_nothing_to_chance():
    hessian, optimum, loss = task(3, 6)
    weights = np.array([-0.1, 0.2, 0.3, 0.7, -0.8, 1.0])
    plain = lambda signs: (signs - optimum) @ hessian @ (signs - optimum) / 2
    found = cost(loss, weights, switched=3, bins=2, runs=5)
    for i, inside in enumerate((weights**2 < 0.25, weights**2 > 0.25)):
        signs = np.sign(np.where(inside, -weights, weights))
        expected = (plain(signs) - plain(np.sign(weights))) / 3
        np.testing.assert_allclose(found.mean[i], expected, rtol=1e-4)
        np.testing.assert_allclose(found.size[i], np.abs(weights[inside]).mean(), 1e-5)
    np.testing.assert_allclose(found.deviation, 0, atol=1e-6)


def test_bins_with_too_few_weights_have_no_value():
    loss = task(0, 6)[2]
    found = cost(loss, [0.1, 0.1, 0.15, 0.2, 0.9, 1.0], switched=3, bins=3, runs=2)
    for values in found:
        np.testing.assert_array_equal(np.isnan(values), [False, True, True])
    assert all(np.isnan(each).all() for each in cost(loss, np.ones(6), switched=7))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_without_a_largest_weight_there_is_nothing_to_tell(value):
    weights = np.full(6, value)
    weights[0] = value and 1.0
    found = cost(task(0, 6)[2], weights, switched=1, bins=3, runs=2)
    assert all(np.isnan(values).all() for values in found)


def test_several_networks_side_by_side():
    loss, rng = task(4, 20)[2], np.random.default_rng(5)
    weights, keys = rng.normal(size=(3, 20)), jax.random.split(KEY, 3)
    one = lambda w, key: metrics.switching_cost(
        loss, case(w), "a/w", key, switched=2, bins=3, runs=4
    )
    together = jax.jit(jax.vmap(one))(jnp.asarray(weights, jnp.float32), keys)
    apart = [one(w, key) for w, key in zip(weights, keys, strict=True)]
    for i, each in enumerate(zip(*apart, strict=True)):
        np.testing.assert_allclose(together[i], np.stack(each), rtol=1e-3, atol=1e-4)
    assert len({tuple(row) for row in np.asarray(together.mean)}) == 3


@pytest.mark.parametrize("option", ["switched", "bins", "runs"])
def test_bad_numbers_and_paths_are_refused(option):
    loss = task(0, 6)[2]
    numbers = {"switched": 1, "bins": 2, "runs": 2}
    measure = functools.partial(metrics.switching_cost, loss, case(np.ones(6)))
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        measure("a/w", KEY, **(numbers | {option: 0}))
    with pytest.raises(ValueError, match="path must be one of .*a/w.*, got 'w'"):
        measure("w", KEY, **numbers)
