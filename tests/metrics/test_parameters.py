"""Sizes and distances of parameters: values known by hand, laws of norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import metrics

pytestmark = pytest.mark.usefixtures("quick_compile")

DISTANCES = (metrics.distance, metrics.weight_change)


def parameters(seed, lead=()):
    """Normal parameters of two layers: 14 numbers."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=(*lead, *shape)), jnp.float32)
    return {"w": draw(3, 4), "b": [draw(), draw(1)]}


def test_weight_magnitude_by_hand():
    """Every parameter counts once, whatever leaf it is in."""
    params = {"w": -2.0 * jnp.ones((3, 2)), "b": [jnp.array(4.0), jnp.zeros(1)]}
    assert metrics.weight_magnitude(params) == 2.0  # (6 * 2 + 4 + 0) / 8


def test_distances_by_hand():
    before = {"w": jnp.array([[1.0, 1.0]]), "b": jnp.array(0.0)}
    after = {"w": jnp.array([[3.0, -1.0]]), "b": jnp.array(1.0)}
    assert metrics.distance(after, before) == 3.0  # sqrt(4 + 4 + 1)
    assert metrics.weight_change(before, after) == 5.0  # 2 + 2 + 1


@pytest.mark.parametrize("metric", DISTANCES)
def test_distances_are_metrics(metric):
    a, b, c = (parameters(seed) for seed in range(3))
    assert metric(a, a) == 0
    assert metric(a, b) == metric(b, a) > 0
    assert metric(a, c) < metric(a, b) + metric(b, c)
    double = lambda tree: jax.tree.map(lambda x: -2 * x, tree)
    np.testing.assert_allclose(metric(double(a), double(b)), 2 * metric(a, b))


def test_norms_bound_each_other():
    a, b = parameters(0), parameters(1)
    euclidean, absolute = metrics.distance(a, b), metrics.weight_change(a, b)
    assert euclidean < absolute < np.sqrt(14) * euclidean


@pytest.mark.parametrize("metric", DISTANCES)
def test_bfloat16(metric):
    """258 and 1 are numbers of half precision, 257 is not."""
    tree = lambda value: {"w": jnp.array([value], jnp.bfloat16)}
    assert float(metric(tree(258.0), tree(1.0))) == 257


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_that_half_precision_cannot_hold(dtype):
    """Neither overflow nor rounding of a sum of as many parameters as usual."""
    params = {"w": jnp.full((40, 50), 60000, dtype), "b": jnp.ones(1, dtype)}
    mean = (2000 * float(params["w"][0, 0]) + 1) / 2001
    np.testing.assert_allclose(metrics.weight_magnitude(params), mean, rtol=1e-6)
    opposite = jax.tree.map(jnp.negative, params)
    far = 2 * np.sqrt(2000) * float(params["w"][0, 0])
    np.testing.assert_allclose(metrics.distance(params, opposite), far, rtol=1e-5)


@pytest.mark.parametrize("metric", DISTANCES)
def test_float64(metric):
    """What is given in double precision is not rounded."""
    with jax.enable_x64(True):
        one = {"w": jnp.ones(1)}
        near = jax.tree.map(lambda x: x + 1e-12, one)
        np.testing.assert_allclose(metric(one, near), 1e-12, rtol=1e-3)


@pytest.mark.parametrize("metric", DISTANCES)
def test_under_jit_and_vmap(metric):
    a, b = parameters(0, lead=(3,)), parameters(1, lead=(3,))
    found = jax.jit(jax.vmap(metric))(a, b)
    run = lambda tree, i: jax.tree.map(lambda x: x[i], tree)
    one_by_one = [metric(run(a, i), run(b, i)) for i in range(3)]
    np.testing.assert_allclose(found, one_by_one, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows(bad):
    broken = {"w": jnp.array([1.0, bad])}
    sound = {"w": jnp.zeros(2)}
    assert not np.isfinite(metrics.weight_magnitude(broken))
    for metric in DISTANCES:
        assert not np.isfinite(metric(broken, sound))
