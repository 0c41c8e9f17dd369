"""redo: dormant units, and only they, start again every ``period`` steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim
from loplax.optim import replacement

STEPS = 12


@functools.cache
def compiled(net, **static):
    static = {"initializer": jax.nn.initializers.constant(0.5)} | static

    @jax.jit
    def run(params, features, threshold, period, decay_rate):
        tx = optim.redo(
            optax.sgd(0.0, momentum=0.9),
            net.groups,
            threshold=threshold,
            period=period,
            decay_rate=decay_rate,
            key=jax.random.key(0),
            **static,
        )

        def step(carry, features):
            params, state = carry
            updates, state = tx.update(params, state, params, features=features)
            carry = optax.apply_updates(params, updates), state
            return carry, carry

        return jax.lax.scan(step, (params, tx.init(params)), features)[1]

    return run


def play(net, features, threshold=0.1, period=1, decay=0.0, **static):
    """All parameters and states as NumPy arrays."""
    params, state = compiled(net, **static)(
        net.random(0), features, float(threshold), period, float(decay)
    )
    return jax.tree.map(np.asarray, (params, state._replace(key=None)))


def steady(net, **layers):
    """The same activations at each step: unit ``u`` of a layer is constant over it."""
    ones = net.features(0, (STEPS,))
    return {
        name: jnp.ones_like(h) * jnp.asarray(layers.get(name, (1.0, 1.0, 1.0, 1.0)))
        for name, h in ones.items()
    }


@pytest.mark.parametrize("decay", [0.0, 0.8])
@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.1])
def test_dormant_units(net, threshold, decay):
    """mean|h| / layer mean <= threshold, of the running mean that restarts at 0."""
    features = net.features(3, (STEPS,), silent={"a": 0, "b": 3})
    features = {name: h * (-1) ** np.arange(4) for name, h in features.items()}
    _, state = play(net, features, threshold, 1, decay)
    for name in "ab":
        magnitude = np.zeros(4)
        for t in range(STEPS):
            now = np.abs(np.asarray(features[name][t], float)).mean(axis=0)
            magnitude = decay * magnitude + (1 - decay) * now
            dormant = magnitude / magnitude.mean() <= threshold
            np.testing.assert_array_equal(state.replaced[name][t], dormant)
            magnitude[dormant] = 0
            np.testing.assert_allclose(
                state.units[name].magnitude[t], magnitude, rtol=1e-5
            )
        assert state.replaced[name].any() and not state.replaced[name].all()


def test_known_scores(net):
    """Scores 0.2, 0.6, 1.2, 2.0: the threshold itself still counts as dormant."""
    features = steady(net, a=(1.0, 3.0, 6.0, 10.0))
    for threshold, dormant in (
        (0.1, 0),
        (0.2, 1),
        (0.5, 1),
        (0.6, 2),
        (1.3, 3),
        (2.0, 4),
    ):
        _, state = play(net, features, threshold * (1 + 1e-6))
        assert np.all(state.replaced["a"].sum(axis=1) == dormant)
        assert np.all(state.replaced["a"][:, :dormant])


@pytest.mark.parametrize("period", [1, 3, 5])
def test_period(net, period):
    """Units are replaced at the steps that are multiples of the period."""
    _, state = play(net, steady(net, a=(0.0, 1.0, 1.0, 1.0)), period=period)
    steps = np.arange(1, STEPS + 1)
    np.testing.assert_array_equal(state.replaced["a"][:, 0], steps % period == 0)
    assert not state.replaced["a"][:, 1:].any() and not state.replaced["b"].any()


def test_silent_layer(net):
    """Where all units are silent, all are dormant; other layers are not touched."""
    params, state = play(net, steady(net, b=(0.0, 0.0, 0.0, 0.0)), threshold=0.0)
    assert state.replaced["b"].all() and not state.replaced["a"].any()
    np.testing.assert_allclose(params["w1"], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(params["w2"], 0.0)
    np.testing.assert_array_equal(params["b1"], 0.0)
    before = net.random(0)
    for name in ("w0", "b0", "b2"):
        np.testing.assert_array_equal(params[name][-1], before[name])


def test_replaced_weights_and_momentum(net):
    """New incoming weights, no outgoing ones, and the momentum of both starts again."""
    features = steady(net, a=(1.0, 0.0, 1.0, 1.0))
    params, state = play(net, features, period=STEPS)
    own = net.owned({"a": np.arange(4) == 1, "b": np.zeros(4, bool)})
    last_params, last = jax.tree.map(
        lambda x: x[-1], (params, state._replace(key=None))
    )
    inner = optax.sgd(0.0, momentum=0.9)
    begun = replacement.reset_state(
        inner, last.inner, net.groups, last.replaced, last_params
    )  # what the next update begins with
    trace, before = optax.tree.get(begun, "trace"), net.random(0)
    for name, mask in own.items():
        np.testing.assert_array_equal(trace[name] == 0, mask)
        kept = params[name][-1][~mask]
        np.testing.assert_array_equal(kept, np.asarray(before[name])[~mask])
    np.testing.assert_allclose(params["w0"][-1][:, 1], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(params["w1"][-1][1], 0.0)
    assert params["b0"][-1][1] == 0.0
    _, kept = play(net, features, period=STEPS, reset_inner=False)
    trace = optax.tree.get(kept.inner, "trace")
    assert all(np.all(x[-1] != 0) for x in trace.values())


@pytest.mark.parametrize("reset_inner", [True, False])
def test_the_update_after_a_replacement_starts_without_momentum(net, reset_inner):
    """Of the replaced units' weights, and of them alone."""
    features = steady(net, a=(1.0, 0.0, 1.0, 1.0))
    params, state = play(net, features, period=STEPS - 1, reset_inner=reset_inner)
    own = net.owned({name: x[-2] for name, x in state.replaced.items()})
    assert own["w0"].sum() == 3 and own["w1"].sum() == 4
    for name, trace in optax.tree.get(state.inner, "trace").items():
        grads = params[name][-2]  # as played here
        first = np.isclose(trace[-1], grads, rtol=1e-6)
        np.testing.assert_array_equal(first, own[name] & reset_inner)


def test_each_replacement_draws_weights_of_its_own(net):
    """Units and steps never share them."""
    random = jax.nn.initializers.uniform(1.0)
    params, _ = play(net, steady(net), threshold=1.5, initializer=random)
    drawn = np.concatenate([params["w0"].ravel(), params["w1"].ravel()])
    assert len(np.unique(drawn)) == drawn.size


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_non_finite_unit_changes_nothing_for_the_others(net, value):
    """It is not dormant itself and does not enter the layer's mean."""
    features = steady(net, a=(0.05, 1.0, 1.0, value))
    _, state = play(net, features)
    np.testing.assert_array_equal(state.replaced["a"][-1], [True, False, False, False])
    _, state = play(net, steady(net, a=(value,) * 4))
    assert not state.replaced["a"].any()


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_one_non_finite_batch_is_forgotten(net, decay):
    """A unit that was not finite once is looked at again when it is."""
    features = steady(net, a=(0.0, 1.0, 1.0, 1.0))
    features["a"] = features["a"].at[2].set(jnp.nan)
    _, state = play(net, features, decay=decay)
    assert not state.replaced["a"][2].any()
    np.testing.assert_array_equal(state.replaced["a"][3], [True, False, False, False])
