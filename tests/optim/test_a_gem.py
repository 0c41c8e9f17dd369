"""a_gem: gradients that do not oppose a reference, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loplax import optim

SEEDS = st.integers(0, 2**31 - 1)


@functools.cache
def projected():
    """Many gradients at once, each with its own reference."""
    tx = optim.a_gem()
    update = lambda g, r: tx.update(g, tx.init(g), g, reference=r)[0]
    return jax.jit(jax.vmap(update))


def drawn(net, seed):
    """Gradients, and references of which about half oppose them."""
    return net.random(seed, (16,)), net.random(seed + 1, (16,))


def flat(tree):
    """A batch of trees as a batch of vectors."""
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


@given(seed=SEEDS)
def test_what_opposes_the_reference_is_taken_away(net, seed):
    """All parameters are one vector."""
    grads, reference = drawn(net, seed)
    found = flat(projected()(grads, reference))
    g, r = flat(grads), flat(reference)
    product, square = np.sum(g * r, axis=1), np.sum(r * r, axis=1)
    assert 0 < np.sum(product < 0) < 16
    share = (np.minimum(product, 0) / square)[:, None]
    np.testing.assert_allclose(found, g - share * r, rtol=1e-4, atol=1e-5)
    lengths = np.linalg.norm(g, axis=1) * np.sqrt(square)
    assert (np.sum(found * r, axis=1) >= -1e-6 * lengths).all()
    np.testing.assert_array_equal(found[product > 0], g[product > 0])


@given(seed=SEEDS, exponent=st.integers(-100, 100))
def test_the_size_of_the_reference_does_not_count(net, seed, exponent):
    """Also where its square is no number."""
    grads, reference = drawn(net, seed)
    scaled = jax.tree.map(lambda r: r * 2.0**exponent, reference)
    found = projected()(grads, scaled)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(near, found, projected()(grads, reference))


def test_twice_is_once(net):
    grads, reference = drawn(net, 0)
    once = projected()(grads, reference)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(near, projected()(once, reference), once)


def test_without_a_memory_nothing_is_projected(net):
    grads, reference = drawn(net, 0)
    found = projected()(grads, jax.tree.map(jnp.zeros_like, reference))
    jax.tree.map(np.testing.assert_array_equal, found, grads)


@pytest.mark.parametrize("compatible", [True, False])
def test_of_a_part_it_sees_that_part(compatible):
    """Whether or not the reference is masked as well."""
    grads = {"a": jnp.array([1.0, 0.0]), "b": jnp.array(5.0)}
    reference = {"a": jnp.array([-1.0, 0.0]), "b": jnp.array(9.0)}
    options = {"mask_compatible_extra_args": compatible}
    tx = optax.masked(optim.a_gem(), {"a": True, "b": False}, **options)
    updates, _ = tx.update(grads, tx.init(grads), grads, reference=reference)
    np.testing.assert_array_equal(updates["a"], 0)
    assert updates["b"] == 5
    whole, _ = optim.a_gem().update(grads, optax.EmptyState(), reference=reference)
    jax.tree.map(np.testing.assert_array_equal, whole, grads)


@pytest.mark.parametrize(
    ("reference", "match"),
    [
        (None, r"update needs reference=\.\.\."),
        ({"a": jnp.ones(2), "c": jnp.ones(())}, r"must have 'b', \(\), got nothing"),
        ({"a": jnp.ones(3), "b": jnp.ones(())}, r"must have 'a', \(2,\), got \(3,\)"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(reference, match):
    grads = {"a": jnp.ones(2), "b": jnp.ones(())}
    with pytest.raises(ValueError, match=match):
        optim.a_gem().update(grads, optax.EmptyState(), reference=reference)
