"""Losses and measures of classifiers, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from loplax.supervised import losses

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 3, 1, 1, 2, 0])


def test_cross_entropy_is_the_negative_log_of_the_softmax():
    found = losses.cross_entropy(LOGITS, LABELS)
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    expected = -np.log(shares[np.arange(6), LABELS])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    alone = losses.cross_entropy(LOGITS[2], LABELS[2])
    np.testing.assert_allclose(alone, expected[2], rtol=1e-5)


def test_cross_entropy_of_extreme_logits():
    """What would overflow an exponential is exact."""
    logits = jnp.array([[1e4, 0.0], [1e4, 0.0]])
    found = losses.cross_entropy(logits, jnp.array([0, 1]))
    np.testing.assert_array_equal(found, [0.0, 1e4])


def test_accuracy_is_one_where_the_largest_logit_is_the_labels():
    logits = jnp.array([[0.0, 2.0, 1.0], [3.0, -1.0, 2.0], [-5.0, -4.0, -3.0]])
    found = losses.accuracy(logits, jnp.array([1, 2, 2]))
    np.testing.assert_array_equal(found, [1.0, 0.0, 1.0])
    assert found.dtype == jnp.float32
    alone = losses.accuracy(logits[0], jnp.array(1))
    assert (alone.shape, float(alone)) == ((), 1.0)


def test_masked_measures_do_without_the_other_classes():
    """The same numbers as with the other logits cut out and the labels renamed."""
    classes = np.array([True, True, False, True])
    logits, labels = LOGITS[LABELS != 2], LABELS[LABELS != 2]
    renamed = np.array([0, 1, -1, 2])[labels]
    for measure in (losses.cross_entropy, losses.accuracy):
        found = losses.masked(measure)(logits, (labels, classes))
        expected = measure(logits[:, classes], renamed)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_masked_classes_get_no_gradient():
    targets = 1, np.array([True, True, False, False])
    loss = jax.jit(losses.masked(losses.cross_entropy))
    grads = jax.grad(loss)(LOGITS[0], targets)
    np.testing.assert_array_equal(grads[2:], 0)
    share = 1 / (1 + np.exp(LOGITS[0, 1] - LOGITS[0, 0]))
    np.testing.assert_allclose(grads[:2], [share, -share], rtol=1e-5)
