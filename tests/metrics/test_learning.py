"""What a step does: known losses and predictions, and invariances."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loplax import metrics

pytestmark = pytest.mark.usefixtures("quick_compile")

losses = st.floats(0, 1e6, width=32)
plasticity = jax.jit(metrics.plasticity)


def logits(seed, shape=(6, 4)):
    """Normal logits."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_plasticity_by_hand():
    before = jnp.array([8.0, 8.0, 8.0, 8.0])
    after = jnp.array([2.0, 0.0, 8.0, 80.0])  # better, perfect, the same, worse
    assert plasticity(before, after).tolist() == [0.75, 1.0, 0.0, 0.0]


def test_plasticity_without_a_loss_before():
    """Nothing was left to learn: all of it was learned, unless the step spoiled it."""
    assert plasticity(0.0, 0.0) == 1.0
    assert plasticity(0.0, 1e-6) == 0.0


@settings(max_examples=50)
@given(before=losses, after=losses, power=st.integers(-20, 20))
def test_plasticity_is_a_fraction_that_scale_does_not_change(before, after, power):
    value = plasticity(before, after)
    assert 0 <= value <= 1
    scaled = plasticity(before * 2.0**power, after * 2.0**power)
    # Below float32's range a loss is 0.
    if min(before, after) > 1e-30:
        np.testing.assert_allclose(scaled, value, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_plasticity_of_a_broken_learner(bad):
    assert np.isnan(plasticity(bad, 1.0))
    assert np.isnan(plasticity(1.0, bad))
    assert np.isnan(plasticity(0.0, bad))


def test_churn_by_hand():
    p = np.array([[0.5, 0.5], [0.8, 0.2]])
    q = np.array([[0.25, 0.75], [0.8, 0.2]])
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    found = metrics.churn(jnp.log(p), jnp.log(q))
    np.testing.assert_allclose(found, (first + 0) / 2, rtol=1e-5)
    # Not symmetric: the divergence is weighted by the predictions before the step.
    first = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    found = metrics.churn(jnp.log(q), jnp.log(p))
    np.testing.assert_allclose(found, first / 2, rtol=1e-5)


def test_churn_laws():
    before, after = logits(0), logits(1)
    value = metrics.churn(before, after)
    assert value > 0
    assert metrics.churn(before, before) == 0
    # A shift of all logits of an example changes no prediction.
    shifted = metrics.churn(before + logits(2, (6, 1)), after - 100.0)
    np.testing.assert_allclose(shifted, value, rtol=1e-4)
    order = np.array([3, 0, 2, 1])
    renamed = metrics.churn(before[::-1, order], after[::-1, order])
    np.testing.assert_allclose(renamed, value, rtol=1e-5)
    reshaped = metrics.churn(before.reshape(2, 3, 4), after.reshape(2, 3, 4))
    np.testing.assert_allclose(reshaped, value, rtol=1e-5)


def test_churn_without_excluded_classes():
    """Classes that were never seen are often masked by logits of -inf."""
    seen = jnp.array([True, True, False, True])
    mask = lambda logits: jnp.where(seen, logits, -jnp.inf)
    before, after = logits(0), logits(1)
    expected = metrics.churn(before[:, seen], after[:, seen])
    np.testing.assert_allclose(
        metrics.churn(mask(before), mask(after)), expected, rtol=1e-5
    )
    # A class that was possible, and is so no more.
    assert metrics.churn(before, mask(after)) == np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_churn_of_a_broken_network(bad):
    broken = logits(0).at[2, 1].set(bad)
    assert np.isnan(metrics.churn(broken, logits(1)))
    assert np.isnan(metrics.churn(logits(1), broken))


def test_value_churn_by_hand():
    before = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    after = jnp.array([[1.0, 0.0], [3.0, 10.0]])
    assert metrics.value_churn(before, after) == 10.0  # (0 + 4 + 0 + 36) / 4


@pytest.mark.parametrize("metric", [metrics.churn, metrics.value_churn])
def test_under_jit_and_vmap(metric):
    before, after = logits(0, (3, 6, 4)), logits(1, (3, 6, 4))
    found = jax.jit(jax.vmap(metric))(before, after)
    one_by_one = [metric(before[i], after[i]) for i in range(3)]
    np.testing.assert_allclose(found, one_by_one, rtol=1e-5)


@pytest.mark.parametrize(
    "metric", [metrics.plasticity, metrics.churn, metrics.value_churn]
)
def test_different_shapes_are_refused(metric):
    """Broadcast, they would compare every example with every other."""
    with pytest.raises(ValueError, match=r"same shape, got \(3,\) and \(3, 1\)"):
        metric(jnp.ones(3), jnp.ones((3, 1)))


def test_precision():
    """Squares that half precision cannot hold; differences that double can."""
    high = jnp.full(3, 400.0, jnp.float16)
    assert metrics.value_churn(high, -high) == 800.0**2
    with jax.enable_x64(True):
        one = jnp.ones(3)
        found = metrics.value_churn(one, one + 1e-9)
    np.testing.assert_allclose(found, 1e-18, rtol=1e-5)
