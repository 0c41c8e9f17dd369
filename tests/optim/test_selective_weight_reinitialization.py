"""selective_weight_reinitialization: the least useful weights start again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

SHAPES = {"conv": (2, 3, 4), "w": (4, 10), "b": (10,)}
FRESH = {"conv": 7.0, "w": 8.0}
INITIALIZER = {k: jax.nn.initializers.constant(v) for k, v in FRESH.items()}
SGD = optax.sgd(0.1, momentum=0.5)


def draw(seed):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=s).astype(np.float32) for k, s in SHAPES.items()}


@functools.cache
def compiled(utility="gradient", pruning="proportional", initializer="constant"):
    """Jitted ``(params, other, grads, seed, **numbers) -> updates, state``.

    The state is that of ``params``, the step begins at ``other``.
    """
    own = INITIALIZER if initializer == "constant" else None

    @functools.partial(jax.jit, static_argnames="steps")
    def go(params, other, grads, seed=0, steps=1, **numbers):
        tx = optim.selective_weight_reinitialization(
            SGD,
            utility=utility,
            pruning=pruning,
            initializer=own,
            key=jax.random.key(seed),
            **numbers,
        )
        step = lambda state, _: tx.update(grads, state, other)[::-1]
        state, updates = jax.lax.scan(step, tx.init(params), length=steps)
        return updates, state.inner

    return go


def chosen(update, other, grads):
    """Which weights start again, from a first step; the others make SGD's step."""
    found = {}
    for name, value in FRESH.items():
        plain = -0.1 * grads[name]
        found[name] = np.isclose(update[name] + other[name], value, atol=1e-5)
        rest = ~found[name]
        np.testing.assert_allclose(update[name][rest], plain[rest], rtol=1e-5)
    return found


@pytest.mark.parametrize("utility", ["gradient", "magnitude"])
def test_proportional(utility):
    """In each tensor the lowest fraction, by gradient and weight after the step."""
    first, other, grads = draw(0), draw(1), draw(2)
    updates, inner = compiled(utility)(first, other, grads, factor=0.25, period=1)
    update = jax.tree.map(lambda u: u[0], updates)
    for name, found in chosen(update, other, grads).items():
        after = other[name] - 0.1 * grads[name]
        useful = np.abs(after * (grads[name] if utility == "gradient" else 1))
        expected = np.sort(useful, axis=None)[useful.size // 4 - 1]
        np.testing.assert_array_equal(found, useful <= expected)
    # Two or three of ten biases return to where they began.
    returned = np.isclose(update["b"] + other["b"], first["b"], atol=1e-5)
    assert returned.sum() in (2, 3)
    jax.tree.map(np.testing.assert_array_equal, inner[0].trace, grads)


def test_threshold():
    """In each tensor those below a fraction of its mean utility."""
    first, other, grads = draw(0), draw(1), draw(2)
    go = compiled(pruning="threshold")
    updates, _ = go(first, other, grads, factor=0.2, period=1)
    update = jax.tree.map(lambda u: u[0], updates)
    for name, found in chosen(update, other, grads).items():
        useful = np.abs((other[name] - 0.1 * grads[name]) * grads[name])
        np.testing.assert_array_equal(found, useful <= 0.2 * useful.mean())
        assert 0 < found.sum() < found.size


def test_equal_utilities():
    """Of weights that are all useless only the wanted number starts again."""
    params = draw(0)
    grads = jax.tree.map(np.zeros_like, params)
    updates, _ = compiled()(params, params, grads, factor=0.25, period=1)
    update = jax.tree.map(lambda u: u[0], updates)
    for found in chosen(update, params, grads).values():
        assert found.sum() == found.size // 4


def test_fixed_factor():
    """A factor that is not traced chooses alike."""
    params, grads = draw(0), draw(2)
    make = functools.partial(optim.selective_weight_reinitialization, SGD, period=1)
    tx = make(factor=0.25, initializer=INITIALIZER, key=jax.random.key(0))
    fixed = jax.jit(lambda: tx.update(grads, tx.init(params), params)[0])()
    updates, _ = compiled()(params, params, grads, factor=0.25, period=1)
    traced = jax.tree.map(lambda u: u[0], updates)
    jax.tree.map(np.testing.assert_array_equal, fixed, traced)


def test_lost_gradients():
    """A utility that is not a number is never the lowest, not even to one weight."""
    params, grads = {"w": jnp.ones((1, 4))}, {"w": jnp.array([[np.nan, 3, 2, 4]])}
    make = functools.partial(
        optim.selective_weight_reinitialization, SGD, initializer=INITIALIZER
    )

    @jax.jit
    @jax.vmap
    def updates(seed):
        tx = make(factor=0.2, period=1, key=jax.random.key(seed))
        return tx.update(grads, tx.init(params), params)[0]["w"]

    fresh = np.isclose(updates(jnp.arange(20)) + params["w"], FRESH["w"])
    number = fresh.sum(axis=(0, 1))
    np.testing.assert_array_equal(number > 0, [False, False, True, False])
    assert 10 < number[2] < 20


def test_fractions_and_keys():
    """A fraction of a weight is one weight that often; each key draws anew."""
    params, grads = draw(0), draw(2)
    go = jax.vmap(
        functools.partial(compiled(), factor=0.03, period=1), (None,) * 3 + (0,)
    )
    updates, _ = go(params, params, grads, jnp.arange(200))
    for name, value in FRESH.items():
        found = np.isclose(updates[name][:, 0] + params[name], value, atol=1e-5)
        number = found.reshape(200, -1).sum(axis=1)
        mean = 0.03 * params[name].size
        assert set(number) == {int(mean), int(mean) + 1}
        assert abs(number.mean() - mean) < 4 * 0.5 / np.sqrt(200)


def test_draws_and_period():
    """Only at multiples of the period; he_uniform draws, new for each and tensor."""
    params, grads = draw(0), jax.tree.map(np.zeros_like, draw(0))
    go = compiled("magnitude", initializer=None)
    updates, _ = go(params, params, grads, steps=4, factor=0.99, period=2)
    draws = []
    for name in FRESH:
        np.testing.assert_array_equal(updates[name][::2], 0)
        again = updates[name][1::2] != 0
        assert again.mean() > 0.9
        bound = np.sqrt(6 / np.prod(params[name].shape[:-1]))
        draws.extend((updates[name][1::2] + params[name])[again] / bound)
    assert 0.9 < np.max(np.abs(draws)) < 1.00001
    assert len(np.unique(np.round(draws, 5))) == len(draws)


def test_wrong_arguments():
    make = functools.partial(
        optim.selective_weight_reinitialization, SGD, period=1, key=jax.random.key(0)
    )
    with pytest.raises(ValueError, match=r"factor must be in \[0, 1\), got 1"):
        make(factor=1.0)
    make(factor=1.0, pruning="threshold")
    with pytest.raises(ValueError, match="did you mean 'magnitude'"):
        make(factor=0.1, utility="magnitudes")
    tx = make(factor=0.1, initializer={"w": jax.nn.initializers.he_normal()})
    with pytest.raises(ValueError, match=r"initializer: nothing for 'conv'"):
        tx.init(draw(0))


def test_random_utility():
    """Every weight starts again equally often, whatever it and its gradient are."""
    params = {"w": jnp.arange(20.0).reshape(4, 5)}

    @jax.jit
    @jax.vmap
    def fresh(seed):
        tx = optim.selective_weight_reinitialization(
            SGD,
            factor=0.25,
            period=1,
            utility="random",
            initializer=jax.nn.initializers.constant(-1.0),
            key=jax.random.key(seed),
        )
        updates, _ = tx.update(params, tx.init(params), params)
        return jnp.isclose(params["w"] + updates["w"], -1)

    found = np.asarray(fresh(jnp.arange(400)))
    np.testing.assert_array_equal(found.sum(axis=(1, 2)), 5)
    error = np.sqrt(0.25 * 0.75 / 400)
    np.testing.assert_allclose(found.mean(axis=0), 0.25, atol=4 * error)


def averages(grads, decay_rate, period=100):
    """State and update after each step, of weights that stay 1."""
    params = {"w": jnp.ones(np.shape(grads)[1:])}

    @jax.jit
    def run(grads, decay_rate):
        tx = optim.selective_weight_reinitialization(
            optax.sgd(0.0),
            factor=0.25,
            period=period,
            decay_rate=decay_rate,
            initializer=jax.nn.initializers.constant(7.0),
            key=jax.random.key(0),
        )

        def step(state, grad):
            updates, state = tx.update({"w": grad}, state, params)
            return state, (state.average, updates["w"])

        return jax.lax.scan(step, tx.init(params), grads)[1]

    return run(jnp.asarray(grads, jnp.float32), decay_rate)


def test_averaged_utility():
    """The mean since the last re-initialisation of the tensor decides, with weights."""
    grads = np.random.default_rng(3).normal(size=(6, 4, 10)).astype(np.float32)
    found, updates = averages(grads, 0.8, period=3)
    for start in (0, 3):
        total = weight = 0.0
        for t in range(start, start + 3):
            total, weight = 0.8 * total + np.abs(grads[t]), 0.8 * weight + 1
            if t < start + 2:
                np.testing.assert_allclose(found.total["w"][t, 0], total, rtol=1e-5)
                np.testing.assert_allclose(found.weight["w"][t], weight, rtol=1e-5)
        lowest = total <= np.sort(total, axis=None)[9]
        np.testing.assert_array_equal(updates[start + 2] == 6, lowest)
        assert not np.any(found.total["w"][start + 2]) and not found.weight["w"][t]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_utility_is_left_out_of_the_average(bad):
    """A constant with one bad value, first or later, has the constant as its mean."""
    for place in (0, 2):
        grads = np.full((5, 2, 2), 3.0)
        grads[place, 0, 1] = bad
        found, _ = averages(grads, 0.9)
        mean = found.total["w"][-1, 0] / found.weight["w"][-1]
        np.testing.assert_allclose(mean, 3, rtol=1e-6)


def test_half_precision():
    """Utilities do not underflow, and a new weight is what was drawn."""
    grads = np.full((1, 2, 4), 1e-4) * np.arange(1, 9).reshape(2, 4)
    for value, dtype in ((1e-4, jnp.float16), (1024, jnp.bfloat16)):
        params = {"w": jnp.full((2, 4), value, dtype)}
        tx = optim.selective_weight_reinitialization(
            optax.sgd(0.0),
            factor=0.25,
            period=1,
            initializer=jax.nn.initializers.constant(0.01),
            key=jax.random.key(0),
        )
        grad = {"w": jnp.asarray(grads[0], dtype)}
        updates, _ = tx.update(grad, tx.init(params), params)
        after = optax.apply_updates(params, updates)["w"]
        again = np.arange(8).reshape(2, 4) < 2
        expected = np.where(again, jnp.asarray(0.01, dtype), params["w"])
        assert after.dtype == dtype
        np.testing.assert_array_equal(after, expected)


def test_averages_of_random_utilities_are_refused():
    for decay_rate in (0.5, 1.0):
        with pytest.raises(ValueError, match=f"decay_rate .*{decay_rate}"):
            optim.selective_weight_reinitialization(
                SGD,
                factor=0.1,
                period=1,
                utility="random",
                decay_rate=decay_rate,
                key=jax.random.key(0),
            )
