"""What every transformation of loplax.optim promises, whatever it does."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

STEPS = 7
KEY_SEED = 3


class Case(NamedTuple):
    """A transformation, and two values for each number it can be swept over."""

    make: object  # (groups, key, **numbers) -> transformation
    numbers: dict
    needs_params: bool = True
    needs_features: bool = False


def continual_backprop(groups, key, **numbers):
    inner = optax.sgd(0.1, momentum=0.9)
    make = optim.continual_backprop
    return make(inner, groups, key=key, max_replacements=2, **numbers)


CASES = {
    "continual_backprop": Case(
        continual_backprop,
        {
            "replacement_rate": (0.4, 0.1),
            "maturity_threshold": (0, 3),
            "decay_rate": (0.9, 0.3),
        },
        needs_features=True,
    ),
    "redo": Case(
        lambda groups, key, **numbers: optim.redo(
            optax.adam(0.1), groups, key=key, **numbers
        ),
        {"threshold": (0.9, 0.5), "period": (2, 3), "decay_rate": (0.0, 0.9)},
        needs_features=True,
    ),
    "shrink_and_perturb": Case(
        lambda groups, key, **numbers: optim.shrink_and_perturb(
            optax.sgd(0.1), key=key, **numbers
        ),
        {"shrink": (0.5, 0.9), "perturb_scale": (0.1, 0.3), "period": (1, 3)},
    ),
    "l2_init": Case(
        lambda groups, key, **numbers: optax.chain(
            optim.l2_init(**numbers), optax.sgd(0.1)
        ),
        {"weight_decay": (0.1, 0.9)},
    ),
    "adam": Case(
        lambda groups, key, **numbers: optim.adam(units=groups, **numbers),
        {"learning_rate": (0.1, 0.01), "b1": (0.9, 0.5), "b2": (0.999, 0.9)},
        needs_params=False,
    ),
}
SWEEPS = [(name, number) for name, case in CASES.items() for number in case.numbers]


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


def start(case, index=0):
    """The case's numbers: the first or the second of each pair, as traced floats."""
    return {name: jnp.float32(pair[index]) for name, pair in case.numbers.items()}


@pytest.fixture
def data(net):
    grads = net.random(1, (STEPS,))
    return net.random(0), grads, net.features(2, (STEPS,))


def simulate(case, groups, data, key, numbers):
    """Runs the transformation; returns all parameters and states, stacked over time."""
    params, grads, features = data
    tx = case.make(groups, key, **numbers)

    def step(carry, inputs):
        params, state = carry
        grads, features = inputs
        updates, state = tx.update(grads, state, params, features=features)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state)

    return jax.lax.scan(step, (params, tx.init(params)), (grads, features))[1]


def assert_same(actual, expected):
    """Decisions exactly, numbers to rounding, keys by their data."""

    def check(a, b):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype and a.shape == b.shape
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
        else:
            np.testing.assert_array_equal(a, b)

    jax.tree.map(check, actual, expected)


def key_of(seed):
    return jax.random.key(seed)


@pytest.mark.parametrize(("name", "number"), SWEEPS)
def test_vmap_over_one_number(net, data, name, number):
    """A sweep over one traced number is each run by itself; nothing else is batched."""
    case = CASES[name]
    others = {key: value for key, value in start(case).items() if key != number}

    @jax.jit
    def run(value):
        numbers = {**others, number: value}
        return simulate(case, net.groups, data, jax.random.key(KEY_SEED), numbers)

    values = jnp.asarray(case.numbers[number], jnp.float32)
    swept = jax.jit(jax.vmap(run))(values)
    alone = [run(value) for value in values]
    assert_same(swept, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))
    assert any(jnp.any(leaf[0] != leaf[1]) for leaf in jax.tree.leaves(swept[0]))


def test_vmap_over_keys_and_numbers(net, data, case):
    """Two nested vmaps, over seeds and over all numbers at once, are each run alone."""

    @jax.jit
    def run(seed, numbers):
        key = jax.random.key(seed)
        return simulate(case, net.groups, data, key, numbers)

    numbers = [start(case, 0), start(case, 1)]
    stack = lambda *leaves: jnp.stack(leaves)
    seeds = jnp.arange(3)
    rows = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
    swept = jax.jit(rows)(seeds, jax.tree.map(stack, *numbers))
    alone = [
        jax.tree.map(stack, *(run(seed, setting) for setting in numbers)) for seed in seeds
    ]
    assert_same(swept, jax.tree.map(stack, *alone))


def test_state_can_be_mapped_from_outside(net, data, case):
    """A batch of parameters and states steps as each would; the numbers are fixed."""
    numbers = {name: pair[0] for name, pair in case.numbers.items()}
    tx = case.make(net.groups, jax.random.key(0), **numbers)
    _, grads, features = jax.tree.map(lambda x: x[0], data[1:]), data[1], data[2]
    params = net.random(5, (3,))
    step = jax.jit(
        lambda p, s, g, h: tx.update(g, s, p, features=h),
    )
    take = lambda tree, i: jax.tree.map(lambda x: x[i], tree)
    grads, features = take(grads, slice(3)), take(features, slice(3))
    states = jax.vmap(tx.init)(params)
    swept = jax.jit(jax.vmap(step))(params, states, grads, features)
    alone = [
        step(take(params, i), tx.init(take(params, i)), take(grads, i), take(features, i))
        for i in range(3)
    ]
    assert_same(swept, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))


def test_compiled_once_and_the_same_in_scan(net, data, case):
    """Later calls do not compile again, and a scan is the same run."""
    numbers = {name: pair[0] for name, pair in case.numbers.items()}
    tx = case.make(net.groups, jax.random.key(KEY_SEED), **numbers)
    traced = []

    @jax.jit
    def step(params, state, grads, features):
        traced.append(1)
        updates, state = tx.update(grads, state, params, features=features)
        return optax.apply_updates(params, updates), state

    params, grads, features = data
    state = jax.jit(tx.init)(params)
    for i in range(STEPS):
        inputs = jax.tree.map(lambda x, i=i: x[i], (grads, features))
        params, state = step(params, state, *inputs)
    assert len(traced) == 1 and step._cache_size() == 1

    run = functools.partial(simulate, case, net.groups)
    whole = jax.jit(lambda data: run(data, jax.random.key(KEY_SEED), numbers))(data)
    assert_same(jax.tree.map(lambda x: x[-1], whole), (params, state))


def test_chain(net, data, case):
    """In a chain it receives the previous updates and passes on its own."""
    numbers = {name: pair[0] for name, pair in case.numbers.items()}
    tx = case.make(net.groups, jax.random.key(0), **numbers)
    chain = optax.chain(optax.clip(0.3), tx, optax.scale(-2.0))
    params, grads, features = data[0], *jax.tree.map(lambda x: x[0], data[1:])

    @jax.jit
    def both(params, grads, features):
        clipped = jax.tree.map(lambda g: jnp.clip(g, -0.3, 0.3), grads)
        alone, state = tx.update(clipped, tx.init(params), params, features=features)
        chained, states = chain.update(
            grads, chain.init(params), params, features=features, unknown="ignored"
        )
        return jax.tree.map(lambda u: -2.0 * u, alone), state, chained, states[1]

    alone, state, chained, chained_state = both(params, grads, features)
    assert_same((chained, chained_state), (alone, state))


def test_unknown_extra_args_change_nothing(net, data, case):
    """Arguments meant for other transformations are ignored."""
    numbers = {name: pair[0] for name, pair in case.numbers.items()}
    tx = case.make(net.groups, jax.random.key(0), **numbers)
    params, grads, features = data[0], *jax.tree.map(lambda x: x[0], data[1:])
    step = jax.jit(
        lambda **extra: tx.update(grads, tx.init(params), params, features=features, **extra)
    )
    assert_same(step(value=1.0, loss_fn=None, batch={"x": jnp.ones(3)}), step())


def test_missing_arguments(net, data, case):
    """Forgetting params or features is an error in words."""
    numbers = {name: pair[0] for name, pair in case.numbers.items()}
    tx = case.make(net.groups, jax.random.key(0), **numbers)
    params, grads, features = data[0], *jax.tree.map(lambda x: x[0], data[1:])
    state = jax.eval_shape(tx.init, params)
    if case.needs_params:
        with pytest.raises(ValueError, match="needs params, got None"):
            jax.eval_shape(lambda s: tx.update(grads, s, features=features), state)
    if case.needs_features:
        with pytest.raises(TypeError, match="features"):
            jax.eval_shape(lambda s: tx.update(grads, s, params), state)


@pytest.mark.parametrize("traced", [False, True], ids=["fixed", "traced"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed", "float64"])
def test_dtypes_and_structure(net, case, dtype, traced):
    """Updates keep each parameter's dtype; the state keeps structure and dtypes."""
    with jax.enable_x64(dtype == "float64"):
        params = net.random(0, dtype=jnp.float32 if dtype == "mixed" else dtype)
        if dtype == "mixed":
            params["w1"] = params["w1"].astype(jnp.bfloat16)
        numbers = {
            name: jnp.float32(pair[0]) if traced else pair[0]
            for name, pair in case.numbers.items()
        }
        features = jax.tree.map(lambda h: h.astype(params["w1"].dtype), net.features(1))

        def step(params, numbers):
            tx = case.make(net.groups, jax.random.key(0), **numbers)
            state = tx.init(params)
            return state, tx.update(params, state, params, features=features)

        if not traced:
            step = functools.partial(step, numbers=numbers)
            before, (updates, after) = jax.eval_shape(step, params)
        else:
            before, (updates, after) = jax.eval_shape(step, params, numbers)
        of = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
        assert of(updates) == of(params)
        assert of(after) == of(before)


def test_bfloat16_network(net, data, case):
    """In bfloat16 the run stays finite and moves, with all decisions as in float32."""
    half = lambda tree: jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)
    run = functools.partial(simulate, case, net.groups)
    numbers = {name: pair[0] for name, pair in case.numbers.items()}
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), half(data))
    both = jax.jit(lambda data: run(data, jax.random.key(0), numbers))
    params, state = both((half(data[0]), half(data[1]), half(data[2])))
    wide, wide_state = both(exact)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))
    if case.needs_features:
        jax.tree.map(
            np.testing.assert_array_equal, state.replaced, wide_state.replaced
        )
    first = lambda tree: jax.tree.map(lambda x: np.asarray(x[0], np.float32), tree)
    if not case.needs_features:  # new weights of another dtype are other numbers
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0.03, atol=0.03),
            first(params),
            first(wide),
        )


def test_same_key_same_run(net, data, case):
    """The key decides everything random, and the given key itself is kept."""
    run = jax.jit(
        lambda seed: simulate(case, net.groups, data, jax.random.key(seed), start(case))
    )
    first, again = run(0), run(0)
    assert_same(first, again)
    keys = [x for x in jax.tree.leaves(first[1]) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    assert all(jnp.all(key == jax.random.key(0)) for key in keys)
    if keys:
        other = run(1)[0]
        assert any(
            bool(jnp.any(a != b))
            for a, b in zip(jax.tree.leaves(first[0]), jax.tree.leaves(other), strict=True)
        )


def test_inside_multi_steps(net, data, case):
    """Under optax.MultiSteps it moves at every second step and rests in between."""
    numbers = {name: pair[0] for name, pair in case.numbers.items()}
    tx = case.make(net.groups, jax.random.key(0), **numbers)
    multi = optax.MultiSteps(tx, 2).gradient_transformation()
    wrapped = case._replace(make=lambda groups, key, **numbers: multi)
    run = jax.jit(lambda: simulate(wrapped, net.groups, data, jax.random.key(0), {}))
    params, _ = run()
    params = jax.tree.map(lambda p, p0: jnp.concatenate([p0[None], p]), params, data[0])
    moved = jax.tree.map(lambda p: np.any(p[1:] != p[:-1], axis=tuple(range(1, p.ndim))), params)
    for moves in jax.tree.leaves(moved):
        np.testing.assert_array_equal(moves, np.arange(STEPS) % 2 == 1)
