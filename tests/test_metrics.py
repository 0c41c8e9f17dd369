"""The diagnostics: values known by hand, and the laws that their formulas imply."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loplax import metrics

pytestmark = pytest.mark.usefixtures("quick_compile")

FRACTIONS = (
    metrics.dead_fraction,
    metrics.dormant_fraction,
    metrics.saturated_fraction,
)
FLOAT_RANKS = (metrics.effective_rank, metrics.stable_rank)
INTEGER_RANKS = (metrics.approximate_rank, metrics.absolute_approximate_rank)
RANKS = FLOAT_RANKS + INTEGER_RANKS
EVERY = FRACTIONS + RANKS

every = pytest.mark.parametrize("metric", EVERY)
every_rank = pytest.mark.parametrize("metric", RANKS)
seeds = st.integers(0, 2**32 - 1)
# Few shapes, since each is compiled: wide, tall, a row, a column.
shapes = st.sampled_from([(3, 5), (6, 4), (1, 4), (4, 1)])


def drawn(seed, shape, zeros=0.0):
    """Normal features of which a fraction of the units is silent."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=shape).astype(np.float32)
    return features * (rng.uniform(size=shape[1]) >= zeros)


def orthogonal(seed, size):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def test_dead_and_dormant_by_hand():
    # Units: silent; silent but once (0.1); always -2; 1.9 and 2.1.
    h = jnp.array([[0.0, 0.2, -2.0, 1.9], [0.0, 0.0, -2.0, 2.1]])
    assert metrics.dead_fraction(h) == 0.25
    # Mean magnitudes 0, 0.1, 2, 2: their mean is 1.025, so unit 2 is at 0.0976.
    assert metrics.dormant_fraction(h, 0.1) == 0.5
    assert metrics.dormant_fraction(h, 0.09) == 0.25
    assert metrics.dormant_fraction(h, 2.0) == 1.0  # 2 / 1.025 = 1.95


def test_threshold_of_dormancy_is_inclusive():
    h = jnp.array([[1.0, 3.0]])  # the mean is 2, unit 1 is at exactly 0.5
    assert metrics.dormant_fraction(h, 0.5) == 0.5


def test_saturated_by_hand():
    """The threshold itself does not count; both signs do."""
    h = jnp.array([[1.0, -1.0, 0.5, 0.0]])
    assert metrics.saturated_fraction(h) == 0.5
    assert metrics.saturated_fraction(h, 0.5) == 0.5
    assert metrics.saturated_fraction(h, 0.4) == 0.75


# Singular values -> effective, approximate, absolute approximate, stable rank.
KNOWN = [
    ((5.0,), 1.0, 1, 1, 1.0),
    ((1.0, 1.0, 1.0), 3.0, 3, 3, 3.0),
    ((2.0, 2.0, 0.0, 0.0), 2.0, 2, 2, 2.0),
    # p = 3/4, 1/4: exp(3/4 log(4/3) + 1/4 log 4); energies 9, 1.
    ((3.0, 1.0), math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)), 2, 2, 10 / 9),
    # Energies 400, 1: the first has 0.9975 of them. Sums 20, 21: the first has 0.952.
    ((20.0, 1.0), (21 / 20) ** (20 / 21) * 21 ** (1 / 21), 1, 2, 401 / 400),
]


@pytest.mark.parametrize(("sigma", "effective", "square", "absolute", "stable"), KNOWN)
def test_ranks_by_hand(sigma, effective, square, absolute, stable):
    size = len(sigma)
    left, right = orthogonal(0, size + 2)[:, :size], orthogonal(1, size)
    h = (left * sigma) @ right
    np.testing.assert_allclose(metrics.effective_rank(h), effective, rtol=1e-4)
    np.testing.assert_allclose(metrics.stable_rank(h), stable, rtol=1e-5)
    assert metrics.approximate_rank(h) == square
    assert metrics.absolute_approximate_rank(h) == absolute


def test_fraction_of_approximate_ranks():
    h = jnp.diag(jnp.array([4.0, 3.0, 2.0, 1.0]))  # sums 4, 7, 9, 10; squares 16, 25...
    counts = [metrics.absolute_approximate_rank(h, f) for f in (0.39, 0.5, 0.8, 0.95)]
    assert counts == [1, 2, 3, 4]
    assert metrics.absolute_approximate_rank(jnp.eye(4), 0.5) == 2  # exactly half
    # Of 30: 16, 25, 29, 30.
    counts = [metrics.approximate_rank(h, f) for f in (0.5, 0.8, 0.95, 1.0)]
    assert counts == [1, 2, 3, 4]


def test_weight_magnitude_by_hand():
    """Every parameter counts once, whatever leaf it is in."""
    params = {"w": -2.0 * jnp.ones((3, 2)), "b": [jnp.array(4.0), jnp.zeros(1)]}
    assert metrics.weight_magnitude(params) == 2.0  # (6 * 2 + 4 + 0) / 8


def test_names_of_rank_agree_where_singular_values_do():
    h = orthogonal(3, 7)
    for metric in RANKS:
        np.testing.assert_allclose(metric(h), 7, rtol=1e-5)


@every
def test_all_zero(metric):
    expected = {metrics.dead_fraction: 1, metrics.dormant_fraction: 1}.get(metric, 0)
    assert metric(jnp.zeros((5, 3))) == expected


@every
@settings(max_examples=15)
@given(seeds, shapes)
def test_within_bounds(metric, seed, shape):
    value = metric(drawn(seed, shape, zeros=0.3))
    assert 0 <= value <= (1 if metric in FRACTIONS else min(shape) * (1 + 1e-5))


@every_rank
@settings(max_examples=15)
@given(seeds, shapes, st.integers(-100, 100))
def test_ranks_do_not_depend_on_scale(metric, seed, shape, power):
    h = drawn(seed, shape)
    scaled = (h * 2.0**power).astype(np.float32)
    np.testing.assert_allclose(metric(scaled), metric(h), rtol=1e-4)


@every_rank
@settings(max_examples=15)
@given(seeds, shapes)
def test_ranks_do_not_depend_on_rotation(metric, seed, shape):
    """Singular values are the same in every orthonormal basis of examples or units."""
    h = drawn(seed, shape)
    turned = orthogonal(seed, shape[0]) @ h @ orthogonal(seed + 1, shape[1])
    np.testing.assert_allclose(metric(turned), metric(h), rtol=1e-3)


@settings(max_examples=15)
@given(seeds, shapes)
def test_order_of_ranks(seed, shape):
    """Small singular values weigh less squared: the squared ranks are the smaller."""
    h = drawn(seed, shape)
    assert metrics.approximate_rank(h) <= metrics.absolute_approximate_rank(h)
    assert metrics.stable_rank(h) <= metrics.effective_rank(h) * (1 + 1e-4)


@settings(max_examples=30)
@given(seeds, shapes, st.floats(0, 3))
def test_dead_units_are_dormant_at_any_threshold(seed, shape, threshold):
    h = drawn(seed, shape, zeros=0.5)
    dead = metrics.dead_fraction(h)
    assert dead == np.mean(~h.any(axis=0))
    assert dead <= metrics.dormant_fraction(h, threshold)


@every
def test_leading_axes_are_examples(metric):
    h = drawn(0, (12, 4), zeros=0.3)
    expected = metric(h)
    np.testing.assert_allclose(metric(h.reshape(3, 2, 2, 4)), expected, rtol=1e-6)
    assert np.shape(metric(h[0])) == ()


@every
def test_bfloat16(metric):
    """Half precision costs the input's rounding, and none in the computation."""
    h = jnp.asarray(drawn(1, (8, 4), zeros=0.3), jnp.bfloat16)
    assert metric(h) == metric(h.astype(jnp.float32))


@every
def test_under_jit_and_vmap(metric):
    h = np.stack([drawn(seed, (6, 4), zeros=0.3) for seed in range(5)])
    one_by_one = [metric(x) for x in h]
    np.testing.assert_allclose([jax.jit(metric)(x) for x in h], one_by_one, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(metric)(h), one_by_one, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@every
def test_features_that_are_not_finite_are_flagged(metric, bad):
    """A broken network never looks like one without dead or dormant units."""
    h = drawn(2, (6, 4))
    h[3, 1] = bad
    value = metric(h)
    assert value == -1 if metric in INTEGER_RANKS else np.isnan(value)


@pytest.mark.parametrize("metric", INTEGER_RANKS)
def test_integer_ranks_are_integers(metric):
    assert metric(jnp.eye(3)).dtype == jnp.int32


def test_thresholds_may_be_traced():
    h = drawn(4, (6, 4))
    for metric in (metrics.dormant_fraction, metrics.saturated_fraction):
        values = jnp.array([0.2, 0.9, 1.5])
        found = jax.jit(jax.vmap(functools.partial(metric, h)))(values)
        np.testing.assert_allclose(found, [metric(h, v) for v in values])
