"""Units of binarised networks: replaced, or released in place of that."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loplax import optim, units

pytestmark = pytest.mark.usefixtures("quick_compile")

X = jax.random.normal(jax.random.key(0), (12, 5))
TARGET = jax.random.normal(jax.random.key(1), (12, 3))
SHAPES = {"w0": (5, 8), "s": (8,), "b": (8,), "w1": (8, 6), "w2": (6, 3)}
PARAMS = {
    name: 0.1 * jax.random.normal(jax.random.key(i), shape)
    for i, (name, shape) in enumerate(SHAPES.items())
}
FREE, BOUND = 1e-3, 5.0


@jax.custom_jvp
def sign(w):
    return jnp.sign(w)


sign.defjvps(lambda tangent, out, w: tangent)


def apply(p, x):
    h = jnp.tanh(x @ sign(p["w0"]) * p["s"] + p["b"])
    return jnp.tanh(h @ sign(p["w1"])) @ sign(p["w2"])


GROUPS = units.find(apply, PARAMS, X)
INCOMING, OUTGOING = {"w0": "w0", "w1": "w1"}, {"w0": "w1", "w1": "w2"}


def loss(params):
    output, features = units.tap(apply)(params, X)
    return jnp.mean((output - TARGET) ** 2), features


def wrapped(inner, **options):
    options = {"replacement_rate": 0.3, "maturity_threshold": 0, **options}
    return optim.continual_backprop(inner, GROUPS, key=jax.random.key(2), **options)


def step(tx, params, state, rate=0.0):
    """One step, and the parameters after the inner optimiser's part of it."""
    grads, features = jax.grad(loss, has_aux=True)(params)
    updates, state = tx.update(grads, state, params, features=features)
    inner = jax.tree.map(lambda p, g: p - rate * g, params, grads)
    return optax.apply_updates(params, updates), state, inner


@functools.cache
def sgd_step():
    def run(params, state, release, rate):
        tx = wrapped(optax.sgd(rate), release=release, max_replacements=4)
        return step(tx, params, state, rate)

    return jax.jit(run)


@given(
    release=st.sampled_from([1e-6, FREE, 0.3]),
    rate=st.sampled_from([0.0, 0.05, 3.0]),
    size=st.sampled_from([1e-4, 0.05, 40.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_released_units_compute_what_they_did(release, rate, size, seed):
    """Exactly: every sign is what the inner optimiser's step made it, 0 too."""
    rng = np.random.default_rng(seed)
    draw = lambda x: np.float32(
        size * rng.normal(size=x.shape) * rng.integers(0, 2, x.shape)
    )
    params = PARAMS | {name: draw(PARAMS[name]) for name in ("w0", "w1", "w2")}
    state = wrapped(optax.sgd(0.0), release=FREE, max_replacements=4).init(params)
    new, state, inner = sgd_step()(params, state, release, rate)
    for name in ("w0", "w1", "w2"):
        np.testing.assert_array_equal(np.sign(new[name]), np.sign(inner[name]))
    np.testing.assert_array_equal(apply(new, X), apply(inner, X))
    for name in ("s", "b"):
        np.testing.assert_array_equal(new[name], inner[name])
    assert sum(int(released.sum()) for released in state.released.values()) > 0


def test_released_weights_are_small_and_no_others():
    """The weights of the released units alone, incoming and outgoing."""
    params = PARAMS | {n: BOUND * np.sign(PARAMS[n]) for n in ("w0", "w1", "w2")}
    tx = wrapped(optax.sgd(0.0), release=FREE)
    new, state, _ = jax.jit(functools.partial(step, tx))(params, tx.init(params))
    free = {name: np.zeros(PARAMS[name].shape, bool) for name in params}
    for group in GROUPS:
        released = np.asarray(state.released[group.name])
        assert 0 < released.sum() < group.size
        free[INCOMING[group.name]][:, released] = True
        free[OUTGOING[group.name]][released] = True
    for name in ("w0", "w1", "w2"):
        size = np.abs(new[name])
        np.testing.assert_allclose(size[free[name]], FREE, 1e-3)
        np.testing.assert_array_equal(size[~free[name]], BOUND)


def test_half_precision_is_as_small():
    """What is lost in the float32 difference from the old weight is all."""
    cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tree)
    params = cast(PARAMS | {n: BOUND * np.sign(PARAMS[n]) for n in ("w0", "w1", "w2")})
    tx = wrapped(optax.sgd(0.0), release=FREE)
    new, _, _ = jax.jit(functools.partial(step, tx))(params, tx.init(params))
    smallest = min(np.abs(np.float32(new[n])).min() for n in ("w0", "w1", "w2"))
    np.testing.assert_allclose(smallest, FREE, 2**-8)


def test_released_units_are_no_replaced_ones():
    """Running statistics go on; ages and the inner state begin anew."""
    inner = optim.adam(1e-3, GROUPS)
    tx = wrapped(inner, release=FREE)
    run = jax.jit(functools.partial(step, tx))
    params, before, _ = run(PARAMS, tx.init(PARAMS))
    _, after, _ = run(params, before)
    grads = jax.jit(jax.grad(loss, has_aux=True))(params)[0]
    assert before.replaced == {} and optim.newly_replaced(before, after) == {}
    for group in GROUPS:
        ages = np.asarray(before.units[group.name].age)
        released = np.asarray(before.released[group.name])
        np.testing.assert_array_equal(ages, np.where(released, 0, 1))
        # The next update forgets what the inner optimiser knew of them, then counts.
        moments = optax.tree.get(after.inner, "mu")[INCOMING[group.name]]
        now = 0.1 * grads[INCOMING[group.name]]
        assert released.any()
        np.testing.assert_allclose(moments[:, released], now[:, released], 1e-4, 1e-9)


def test_replaced_units_say_nothing():
    """Without a release: the network is what it was without them, whatever is drawn."""
    tx = wrapped(optax.sgd(0.0))
    new, state, _ = jax.jit(functools.partial(step, tx))(PARAMS, tx.init(PARAMS))
    without = dict(PARAMS)
    for group in GROUPS:
        replaced = np.asarray(state.replaced[group.name])
        assert replaced.any() and state.released == {}
        outgoing = OUTGOING[group.name]
        without[outgoing] = np.where(replaced[:, None], 0, without[outgoing])
        assert np.any(new[INCOMING[group.name]] != PARAMS[INCOMING[group.name]])
    np.testing.assert_array_equal(apply(new, X), apply(without, X))
    assert np.any(apply(new, X) != apply(PARAMS, X))


def test_bad_releases():
    """Sizes that are none, weights that enter as they are, a transfer."""
    for none in (0.0, -1.0):
        with pytest.raises(ValueError, match=rf"release must be in \(0, .*got {none}"):
            wrapped(optax.sgd(0.1), release=none)
    with pytest.raises(ValueError, match="release loses nothing"):
        wrapped(optax.sgd(0.1), release=0.1, bias_transfer=True)
    smooth = lambda p, x: jnp.tanh(x @ sign(p["w0"])) @ jnp.tanh(p["w1"])
    found = units.find(smooth, PARAMS, X)
    with pytest.raises(ValueError, match="'w1' of layer 'w0' enters by more than"):
        optim.continual_backprop(
            optax.sgd(0.1),
            found,
            replacement_rate=0.1,
            release=0.1,
            key=jax.random.key(0),
        )


def test_no_transfer_through_a_function():
    """Weight times mean activation is not what the next layer loses."""
    read = lambda p, x: jnp.tanh(x @ p["w0"]) @ sign(p["w1"]) + p["b"]
    found = units.find(read, PARAMS | {"b": jnp.zeros(6)}, X)
    assert found[0].outgoing[0].bias == "b"
    with pytest.raises(ValueError, match="bias_transfer: 'w1' enters through"):
        optim.continual_backprop(
            optax.sgd(0.1),
            found,
            replacement_rate=0.1,
            bias_transfer=True,
            key=jax.random.key(0),
        )
