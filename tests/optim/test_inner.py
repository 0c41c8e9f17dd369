"""The inner optimiser: its state starts again for replaced weights, and only there.

At step ``STEPS`` one unit of each layer is replaced. The same program with a
replacement rate of 0 says what everything else must be, to the bit.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim
from loplax.optim import replacement

STEPS = 4
DEAD = {"a": 1, "b": 2}


def triple_initial():
    """An optimiser with state per weight that starts at no constant."""

    def init(params):
        return {"first": jax.tree.map(lambda p: 3 * p, params), "count": jnp.ones(())}

    def update(grads, state, params=None):
        first = jax.tree.map(jnp.add, state["first"], grads)
        return grads, {"first": first, "count": state["count"] + 1}

    return optax.GradientTransformation(init, update)


def kernels(params):
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


WEIGHTS = {"b0": False, "b1": False, "b2": True, "w0": True, "w1": True, "w2": False}
LABELS = {"b0": "x", "b1": "x", "b2": "y", "w0": "x", "w1": "y", "w2": "x"}

# name: (optimiser, {a field of its state: the initial value of that field})
INNERS = {
    "momentum": (
        optax.sgd(optax.linear_schedule(0.1, 0.01, 10), momentum=0.9),
        {"trace": 0.0},
    ),
    "adamw": (
        optax.chain(
            optax.clip_by_global_norm(0.5),
            optax.adamw(optax.cosine_decay_schedule(0.1, 10), weight_decay=0.1),
        ),
        {"mu": 0.0, "nu": 0.0},
    ),
    "rmsprop": (optax.rmsprop(0.1, initial_scale=0.5), {"nu": 0.5}),
    "adagrad": (
        optax.adagrad(0.1, initial_accumulator_value=0.1),
        {"sum_of_squares": 0.1},
    ),
    "masked by function": (optax.masked(optax.adam(0.1), kernels), {"mu": 0.0}),
    "masked by tree": (optax.masked(optax.adam(0.1), WEIGHTS), {"mu": 0.0}),
    "partition": (
        optax.partition({"x": optax.adam(0.1), "y": optax.sgd(0.1, 0.9)}, LABELS),
        {"mu": 0.0, "nu": 0.0, "trace": 0.0},
    ),
    "multi steps": (
        optax.MultiSteps(optax.adam(0.1), 3).gradient_transformation(),
        {"mu": 0.0, "acc_grads": 0.0},
    ),
    "inject hyperparams": (
        optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
        {"mu": 0.0, "nu": 0.0},
    ),
    "muon": (optax.contrib.muon(0.1), {"mu": 0.0}),
    "own": (triple_initial(), {}),
    "perturbed": (
        optim.shrink_and_perturb(
            optax.adam(0.1), perturb_scale=0.1, key=jax.random.key(1)
        ),
        {"mu": 0.0},
    ),
}


@functools.cache
def play(net, inner, **settings):
    """Runs continual backprop around ``inner`` at rates 1/4 and 0, as one program.

    Units ``DEAD`` are replaced at step ``STEPS``, the first at which any are mature.

    Returns:
      Per rate: the last parameters, state and updates.
    """
    inputs = (net.random(1, (STEPS,)), net.features(2, (STEPS,), silent=DEAD))
    settings = settings | {
        "maturity_threshold": STEPS - 1,
        "initializer": jax.nn.initializers.constant(0.5),
        "utility": "contribution",
        "key": jax.random.key(0),
    }

    @jax.jit
    def run(rate, params, inputs):
        tx = optim.continual_backprop(
            inner, net.groups, replacement_rate=rate, **settings
        )

        def step(carry, inputs):
            params, state, _ = carry
            grads, features = inputs
            updates, state = tx.update(grads, state, params, features=features)
            return (optax.apply_updates(params, updates), state, updates), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        carry, _ = jax.lax.scan(step, (params, tx.init(params), zeros), inputs)
        params, state, updates = carry
        if settings.get("reset_inner", True):
            # What the next update begins with.
            begun = replacement.reset_state(
                inner, state.inner, net.groups, state.replaced, params
            )
            state = state._replace(inner=begun)
        return params, state, updates

    results = [run(rate, net.random(0), inputs) for rate in (0.25, 0.0)]
    return jax.tree.map(to_numpy, results)


def to_numpy(leaf):
    """As NumPy array; a key as its numbers."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def by_path(state):
    """The arrays of a state by path."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path): to_numpy(leaf) for path, leaf in leaves}


def parameter_of(path):
    """The parameter whose state this is, or None."""
    found = re.search(r"\['([wb]\d)'\]$", path)
    return found[1] if found and "hyperparams" not in path else None


@pytest.mark.parametrize("name", INNERS)
def test_only_the_replaced_weights_start_again(net, name):
    """State of a replaced weight is what the inner init gives; all else is untouched.

    The trap: slices "reset" to 0 where the optimiser's own initial value is another.
    """
    inner, initial = INNERS[name]
    (params, state, updates), (_, plain, plain_updates) = play(net, inner)
    assert {k: np.flatnonzero(v).tolist() for k, v in state.replaced.items()} == {
        "a": [DEAD["a"]],
        "b": [DEAD["b"]],
    }
    assert not any(np.any(x) for x in plain.replaced.values())
    mask = net.owned(state.replaced)
    after, before = by_path(state.inner), by_path(plain.inner)
    fresh = by_path(jax.jit(inner.init)(params))
    seen = dict.fromkeys(initial, 0)
    for path, value in after.items():
        owner = parameter_of(path)
        if owner is None:
            np.testing.assert_array_equal(value, before[path], err_msg=path)
            continue
        own = mask[owner]
        np.testing.assert_array_equal(value[own], fresh[path][own], err_msg=path)
        np.testing.assert_array_equal(value[~own], before[path][~own], err_msg=path)
        for field in initial:
            if field in path:
                np.testing.assert_array_equal(value[own], np.float32(initial[field]))
                seen[field] += np.any(before[path][own] != np.float32(initial[field]))
    assert all(seen.values()), "nothing was there to reset"
    for owner, own in mask.items():
        np.testing.assert_array_equal(updates[owner][~own], plain_updates[owner][~own])


@pytest.mark.parametrize("name", ["momentum", "rmsprop", "adagrad"])
def test_the_next_update_is_a_first_one(net, name):
    """After its replacement a unit's weights move as under a new optimiser."""
    inner = {"momentum": optax.sgd(0.1, momentum=0.9)}.get(name, INNERS[name][0])
    grads = net.random(1, (STEPS + 1,))
    features = net.features(2, (STEPS + 1,), silent=DEAD)
    tx = optim.continual_backprop(
        inner,
        net.groups,
        replacement_rate=0.25,
        maturity_threshold=STEPS - 1,
        initializer=jax.nn.initializers.constant(0.5),
        key=jax.random.key(0),
    )

    @jax.jit
    def run(params):
        def step(carry, inputs):
            params, state = carry
            grads, features = inputs
            updates, state = tx.update(grads, state, params, features=features)
            return (optax.apply_updates(params, updates), state), updates

        updates = jax.lax.scan(step, (params, tx.init(params)), (grads, features))[1]
        last = jax.tree.map(lambda g: g[-1], grads)
        fresh, _ = inner.update(last, inner.init(params), params)
        return jax.tree.map(lambda u: u[-1], updates), fresh

    updates, fresh = jax.tree.map(np.asarray, run(net.random(0)))
    own = net.owned({name: np.arange(4) == unit for name, unit in DEAD.items()})
    for path, mask in own.items():
        np.testing.assert_allclose(updates[path][mask], fresh[path][mask], rtol=1e-5)
        assert not np.any(np.isclose(updates[path][~mask], fresh[path][~mask]))


def test_initial_value_that_depends_on_the_weights(net):
    """Where init reads the parameters, it reads the new ones."""
    (params, state, _), _ = play(net, INNERS["own"][0])
    own = net.owned(state.replaced)
    for name, value in state.inner["first"].items():
        expected = 3 * np.asarray(params[name])[own[name]]
        np.testing.assert_array_equal(np.asarray(value)[own[name]], expected)


def test_l2_init_pulls_to_the_new_weights(net):
    """A replaced weight is its own anchor; the others keep the anchor they had."""
    (params, state, _), _ = play(net, optax.chain(optim.l2_init(0.5), optax.sgd(0.1)))
    own, first = net.owned(state.replaced), net.random(0)
    for name, anchor in state.inner[0].initial.items():
        mask = own[name]
        np.testing.assert_array_equal(anchor[mask], params[name][mask])
        np.testing.assert_array_equal(anchor[~mask], first[name][~mask])
        assert not np.any(np.asarray(params[name] == first[name])[~mask])


def test_reset_inner(net):
    """Without the reset the inner state is the inner optimiser's own, to the bit."""
    inner = optim.adam(0.1, net.groups)
    (_, state, _), (_, plain, _) = play(net, inner, reset_inner=False)
    assert any(np.any(x) for x in state.replaced.values())
    jax.tree.map(np.testing.assert_array_equal, state.inner, plain.inner)


def test_factored_moments_are_left_alone(net):
    """Adafactor's row and column moments belong to no single weight."""
    inner = optax.adafactor(0.1, min_dim_size_to_factor=2)
    (_, state, _), (_, plain, _) = play(net, inner)
    after, before = by_path(state.inner), by_path(plain.inner)
    rows = [path for path in after if "v_row" in path and after[path].shape != (1,)]
    assert rows
    for path in rows:
        np.testing.assert_array_equal(after[path], before[path])


@pytest.mark.parametrize("name", ["momentum", "muon"])
def test_rate_zero_is_the_inner_optimiser(net, name):
    """With nothing to replace, the wrapper moves the parameters as the inner does."""
    inner = INNERS[name][0]
    _, (params, state, _) = play(net, inner)
    alone, opt_state = net.random(0), inner.init(net.random(0))
    update = jax.jit(inner.update)
    for i in range(STEPS):
        grads = jax.tree.map(lambda g, i=i: g[i], net.random(1, (STEPS,)))
        updates, opt_state = update(grads, opt_state, alone)
        alone = optax.apply_updates(alone, updates)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
    jax.tree.map(close, (params, state.inner), (alone, opt_state))


def test_units_of_a_wrapped_wrapper(net):
    """Resets reach state per unit (PerUnit) through masks and chains."""
    inner = optax.chain(
        optax.clip(1.0), optax.masked(optim.adam(0.1, net.groups), True)
    )
    (_, state, _), _ = play(net, inner)
    counts = optax.tree.get(state.inner, "unit_count").values
    for name, unit in DEAD.items():
        np.testing.assert_array_equal(
            counts[name], np.where(np.arange(4) == unit, 0, STEPS)
        )
