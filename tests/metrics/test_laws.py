"""What every diagnostic of features promises, whatever it measures."""

import functools

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
    metrics.rarely_active_fraction,
    metrics.saturated_fraction,
)
FLOAT_RANKS = (metrics.effective_rank, metrics.stable_rank)
INTEGER_RANKS = (metrics.approximate_rank, metrics.absolute_approximate_rank)
RANKS = FLOAT_RANKS + INTEGER_RANKS
EVERY = FRACTIONS + RANKS

every = pytest.mark.parametrize("metric", EVERY)
seeds = st.integers(0, 2**32 - 1)
# Few shapes, since each is compiled: wide, tall, a row, a column.
shapes = st.sampled_from([(3, 5), (6, 4), (1, 4), (4, 1)])


@every
def test_all_zero(metric):
    silent = (
        metrics.dead_fraction,
        metrics.dormant_fraction,
        metrics.rarely_active_fraction,
    )
    assert metric(jnp.zeros((5, 3))) == (metric in silent)


@every
@settings(max_examples=15)
@given(seed=seeds, shape=shapes)
def test_within_bounds(metric, drawn, seed, shape):
    value = metric(drawn(seed, shape, zeros=0.3))
    assert 0 <= value <= (1 if metric in FRACTIONS else min(shape) * (1 + 1e-5))


@every
def test_order_of_units_and_examples_is_of_no_account(metric, drawn):
    h = drawn(3, (12, 6), zeros=0.3)
    rng = np.random.default_rng(0)
    shuffled = rng.permuted(h, axis=0)  # every unit by itself: no rank survives that
    assert metric in RANKS or metric(shuffled) == metric(h)
    shuffled = h[rng.permutation(12)][:, rng.permutation(6)]
    np.testing.assert_allclose(metric(shuffled), metric(h), rtol=1e-5)


@every
def test_leading_axes_are_examples(metric, drawn):
    h = drawn(0, (12, 4), zeros=0.3)
    expected = metric(h)
    np.testing.assert_allclose(metric(h.reshape(3, 2, 2, 4)), expected, rtol=1e-6)
    assert np.shape(metric(h[0])) == ()


@every
def test_bfloat16(metric, drawn):
    """Half precision costs the input's rounding, and none in the computation."""
    h = jnp.asarray(drawn(1, (8, 4), zeros=0.3), jnp.bfloat16)
    assert metric(h) == metric(h.astype(jnp.float32))


@every
def test_double_precision(metric, drawn):
    """The same numbers in double precision: no more than rounding differs."""
    h = drawn(1, (8, 4), zeros=0.3)
    expected = metric(h)
    with jax.enable_x64(True):
        found = metric(jnp.asarray(h, jnp.float64))
        assert found.dtype == jnp.int32 or metric not in INTEGER_RANKS
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@every
def test_under_jit_and_vmap(metric, drawn):
    h = np.stack([drawn(seed, (6, 4), zeros=0.3) for seed in range(5)])
    one_by_one = [metric(x) for x in h]
    np.testing.assert_allclose([jax.jit(metric)(x) for x in h], one_by_one, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(metric)(h), one_by_one, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@every
def test_features_that_are_not_finite_are_flagged(metric, drawn, bad):
    """A broken network never looks like one without dead or dormant units."""
    h = drawn(2, (6, 4))
    h[3, 1] = bad
    value = metric(h)
    assert value == -1 if metric in INTEGER_RANKS else np.isnan(value)


@pytest.mark.parametrize("metric", INTEGER_RANKS)
def test_integer_ranks_are_integers(metric):
    assert metric(jnp.eye(3)).dtype == jnp.int32


@pytest.mark.parametrize("metric", FRACTIONS[1:])
def test_thresholds_may_be_traced(metric, drawn):
    h = drawn(4, (6, 4), zeros=0.3)
    values = jnp.array([0.2, 0.9, 1.5])
    found = jax.jit(jax.vmap(functools.partial(metric, h)))(values)
    np.testing.assert_allclose(found, [metric(h, v) for v in values])
