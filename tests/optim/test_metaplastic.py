"""metaplastic: updates towards 0 are multiplied by 1 - tanh(m |w|)^2, others kept."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loplax import optim

NUMBERS = st.floats(-8, 8, width=32)


@jax.jit
def descend(m, weights, grads):
    """One step of gradient descent at rate 1."""
    tx = optax.chain(optax.sgd(1.0), optim.metaplastic(m))
    return tx.update(grads, tx.init(weights), weights)[0]


@settings(max_examples=50, deadline=None)
@given(m=st.floats(0, 4, width=32), w=NUMBERS, g=NUMBERS)
def test_one_step(m, w, g):
    """In closed form, in both signs of weight and gradient, and in 0."""
    toward = w * g > 0  # descent goes against the gradient
    expected = -g * (1 - np.tanh(m * abs(w)) ** 2 if toward else 1)
    found = descend(jnp.float32(m), jnp.full((1, 1), w), jnp.full((1, 1), g))
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-4, atol=1e-6)
    if not toward:
        assert found[0, 0] == -g


@pytest.mark.parametrize("w", [0.01, 1.0, 9.5, 40.0])
def test_a_sure_weight_still_moves(w):
    """By 1 / cosh^2, also where tanh is 1 in float32; at last not at all."""
    step = lambda w: descend(1.0, jnp.full((1, 1), w), jnp.ones((1, 1)))[0, 0]
    np.testing.assert_allclose(step(w), -(np.cosh(w) ** -2), rtol=1e-5)
    assert step(1e30) == 0


def both(net, tx, inner):
    params, grads = net.random(0), net.random(1)
    run = lambda tx: tx.update(grads, tx.init(params), params)[0]
    return jax.jit(lambda: (run(tx), run(inner)))()


def test_at_zero_it_is_the_optimiser(net):
    """To the bit, also with weights at 0 and gradients that are not finite."""
    inner = optax.adam(0.1)
    found, expected = both(net, optax.chain(inner, optim.metaplastic(0)), inner)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    grads = jnp.array([[jnp.nan, jnp.inf, 1.0]])
    np.testing.assert_array_equal(descend(0.0, jnp.zeros((1, 3)), grads), -grads)


def test_biases_and_masked_weights_are_left_alone(net):
    """To the bit, whatever their sizes; the others are not."""
    mask = {name: name != "w1" for name in net.shapes}
    tx = optax.chain(optax.sgd(0.1), optim.metaplastic(1.0, mask=mask))
    found, plain = both(net, tx, optax.sgd(0.1))
    same = {name: bool(np.all(found[name] == plain[name])) for name in net.shapes}
    assert same == {name: name not in ("w0", "w2") for name in net.shapes}


def test_each_weight_has_its_own_number(net):
    """By a mapping or a function of the path: each is as with its number alone."""
    numbers = {"w0": 0.0, "w1": 0.5, "w2": 3.0}
    of = lambda m: optax.chain(optax.sgd(0.1), optim.metaplastic(m))
    by_mapping, by_path = both(net, of(numbers), of(lambda path: numbers[path]))
    jax.tree.map(np.testing.assert_array_equal, by_mapping, by_path)
    for name, m in numbers.items():
        alone, _ = both(net, of(m), of(m))
        np.testing.assert_allclose(by_mapping[name], alone[name], rtol=1e-6)


def the_authors(params, grads, *, m, weight_decay, rate=0.005, eps=1e-8):
    """Their optimiser in NumPy, as a loop over tensors; parameters after all steps."""
    params = dict(params)
    first = {name: np.zeros_like(p) for name, p in params.items()}
    second = {name: np.zeros_like(p) for name, p in params.items()}
    for t in range(1, len(grads["w0"]) + 1):
        size = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        for name, w in params.items():
            g = grads[name][t - 1] + weight_decay * w
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g * g
            moment = first[name]
            if w.ndim > 1:
                factor = 1 - np.tanh(m * np.abs(w)) ** 2
                shrinks = np.sign(w) * moment > 0
                moment = np.where(shrinks, factor * moment, moment)
            params[name] = w - size * moment / (np.sqrt(second[name]) + eps)
    return params


def learn(tx, params, grads):
    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), grads)[0][0]


def every_update(m):
    """The factor without the test of signs."""

    def update(updates, state, params):
        factor = lambda w: 1 if w.ndim == 1 else 1 - jnp.tanh(m * w) ** 2
        return jax.tree.map(lambda u, w: factor(w) * u, updates, params), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def test_the_authors_optimiser(net):
    """To 1e-12 over 200 steps with gradients as small as eps; no other form is it.

    Neither Adam with its eps elsewhere, nor the factor on all updates or on none.
    """
    rng = np.random.default_rng(3)
    decay, meta = optax.add_decayed_weights(1e-7), optim.metaplastic(1.35)
    adam = optim.adam(5e-3, None, eps_hat=True)
    theirs = optax.chain(decay, adam, meta)
    others = (
        optax.chain(decay, optax.adam(5e-3), meta),
        optax.chain(decay, adam, every_update(1.35)),
        optax.chain(decay, adam),
    )
    with jax.enable_x64(True):
        params, grads = {}, {}
        for name in ("w0", "b0", "w1"):
            params[name] = 0.1 * net.random(0, dtype="float64")[name]
            grads[name] = net.random(1, (200,), "float64")[name]
            grads[name] *= 10 ** rng.uniform(-7, -3, size=grads[name].shape)
        run = lambda: [learn(tx, params, grads) for tx in (theirs, *others)]
        found, params, grads = jax.device_get((jax.jit(run)(), params, grads))
    expected = the_authors(params, grads, m=1.35, weight_decay=1e-7)
    apart = [
        max(np.max(np.abs(one[name] - expected[name])) for name in expected)
        for one in found
    ]
    assert apart[0] < 1e-12 and min(apart[1:]) > 1e-4, apart


def test_it_must_be_last(net):
    """A rate that comes later would turn the sign round that it asks for."""
    params = net.random(0)
    tx = optax.chain(optim.metaplastic(1.0), optax.sgd(0.1))
    with pytest.raises(ValueError, match="last link of its chain; in optax.chain"):
        tx.update(params, tx.init(params), params)


def test_integers_are_left_alone(net):
    """A table of whole numbers, with an update or without."""
    params = net.random(0) | {"n": jnp.ones((2, 2), jnp.int32)}
    tx = optim.metaplastic(1.0)
    for extra in (params["n"], None):
        updates, _ = tx.update(net.random(1) | {"n": extra}, (), params)
        assert updates["n"] is extra


MISTAKES = {
    "m must be in": lambda: optim.metaplastic(-1.0),
    "m must be in .* got nan": lambda: optim.metaplastic({"w0": float("nan")}),
    "no weight 'w00' among .*did you mean 'w0'": lambda: optim.metaplastic({"w00": 1}),
    "m of 'w1' must be in": lambda: optim.metaplastic(
        lambda path: 2.0 - 3 * (path > "w0")
    ),
    "no weight 'b0'": lambda: optim.metaplastic({"b0": 1.0}),
    "nothing for 'w1'; give it one": lambda: optim.metaplastic({"w0": 1.0, "w2": 0.0}),
}


def test_updates_that_lack_a_weight(net):
    params = net.random(0)
    with pytest.raises(ValueError, match=r"updates must have 'w1', .* got nothing"):
        optim.metaplastic(1.0).update(params | {"w1": None}, (), params)


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes(net, words):
    """Are errors in words, before anything is computed."""
    params = net.random(0)
    with pytest.raises(ValueError, match=words):
        MISTAKES[words]().update(params, (), params)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_latent_weights_of_half_precision(net, dtype):
    """Are refused with the reason; biases may be what they like."""
    params = net.random(0)
    half = lambda *names: params | {n: params[n].astype(dtype) for n in names}
    tx = optim.metaplastic(1.0)
    with pytest.raises(ValueError, match=f"got {dtype} for 'w1': .*rounds away"):
        tx.update(params, tx.init(params), half("w1"))
    jax.eval_shape(lambda p: tx.update(p, tx.init(p), p), half("b0", "b1"))


def test_inside_what_replaces_units(net):
    """New weights are the initialiser's; all others move as without replacement."""
    inner = optax.chain(optax.sgd(0.1), optim.metaplastic(1.0))
    tx = optim.continual_backprop(
        inner,
        net.groups,
        replacement_rate=0.5,
        maturity_threshold=0,
        initializer=jax.nn.initializers.constant(0.5),
        key=jax.random.key(0),
    )
    params, grads = net.random(0), net.random(1)
    step = jax.jit(lambda s: tx.update(grads, s, params, features=net.features(2)))
    updates, state = step(tx.init(params))
    plain, _ = jax.jit(inner.update)(grads, inner.init(params), params)
    replaced = jax.tree.map(np.asarray, state.replaced)
    assert any(flags.any() for flags in replaced.values())
    for name, mine in net.owned(replaced).items():
        np.testing.assert_allclose(updates[name][~mine], plain[name][~mine], rtol=1e-5)
    new = np.asarray(params["w0"] + updates["w0"])
    np.testing.assert_allclose(new[:, replaced["a"]], 0.5, rtol=1e-6)
