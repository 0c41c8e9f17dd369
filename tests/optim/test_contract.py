"""What every transformation of loplax.optim promises, whatever it does."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim
from tests.optim import pairs

STEPS = 7
CONSTANT = jax.nn.initializers.constant(0.5)


class Case(NamedTuple):
    """A transformation, and two values of each number that it can be swept over."""

    make: Callable  # (groups, key, **numbers) -> transformation
    numbers: dict
    needs_params: bool = True
    needs_features: bool = False
    must_be_last: bool = False
    draws_weights: bool = False
    half: bool = True  # whether it takes weights of half precision

    def fixed(self):
        """The first value of each number."""
        return {name: pair[0] for name, pair in self.numbers.items()}

    def traced(self, index=0):
        """The first or second value of each number, as arrays."""
        return {name: jnp.float32(pair[index]) for name, pair in self.numbers.items()}


def make_continual_backprop(groups, key, **numbers):
    inner, make = optax.sgd(0.1, momentum=0.9), optim.continual_backprop
    return make(inner, groups, key=key, max_replacements=2, **numbers)


def make_redo(groups, key, **numbers):
    return optim.redo(optax.adam(0.1), groups, key=key, **numbers)


def make_regrama(groups, key, **numbers):
    return optim.regrama(optax.adam(0.1), groups, key=key, **numbers)


def make_self_normalized_resets(groups, key, **numbers):
    return optim.self_normalized_resets(optax.adam(0.1), groups, key=key, **numbers)


def make_ccbp(groups, key, **numbers):
    return optim.ccbp(optax.adam(0.1), groups, key=key, **numbers)


def make_shrink_and_perturb(groups, key, **numbers):
    return optim.shrink_and_perturb(optax.sgd(0.1), key=key, **numbers)


def make_l2_init(groups, key, **numbers):
    return optax.chain(optim.l2_init(**numbers), optax.sgd(0.1))


def make_a_gem(groups, key, **numbers):
    tx = optax.chain(optim.a_gem(), optim.l2_init(**numbers), optax.sgd(0.1))

    def update(grads, state, params=None, **extra):
        reference = jax.tree.map(lambda g: -(g + 0.3), grads)
        return tx.update(grads, state, params, reference=reference, **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def make_in_sessions(groups, key, **numbers):
    tx = optim.frozen(optim.one_cycle(optax.sgd(0.1, 0.9), **numbers))

    def update(grads, state, params=None, **extra):
        first = jax.tree.map(lambda g: jnp.arange(g.shape[-1]) == 0, grads)
        return tx.update(grads, state, params, progress=0.4, frozen=first, **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def make_adam(groups, key, **numbers):
    return optim.adam(units=groups, **numbers)


def make_upgd(groups, key, **numbers):
    return optim.upgd(key=key, **numbers)


def make_wrappers(groups, key, kappa, **numbers):
    inner = optim.hare_tortoise(optax.sgd(0.1, momentum=0.9), **numbers)
    return optim.weight_clipping(optim.normalize_and_project(inner), kappa=kappa)


def make_selective_weight_reinitialization(groups, key, **numbers):
    make = optim.selective_weight_reinitialization
    return make(optax.sgd(0.1), initializer=CONSTANT, key=key, **numbers)


def make_regularizers(groups, key, exponent, scale, **strength):
    return optax.chain(
        optim.spectral_regularization(exponent=exponent, **strength),
        optim.parseval_regularization(scale=scale, **strength),
        optim.wasserstein_regularization(**strength),
        optax.sgd(0.1),
    )


def make_metaplastic(groups, key, learning_rate, m):
    inner = optim.adam(learning_rate, groups, eps_hat=True)
    return optax.chain(inner, optim.metaplastic(m))


def make_mesu(groups, key, **numbers):
    return pairs.of_means(optim.mesu(**numbers))


def make_consolidating(groups, key, strength, decay):
    """Two of them, after a task that left all weights where they begin."""
    parts = (
        optim.elastic_weight_consolidation(strength, decay=decay),
        optim.elastic_weight_consolidation(strength, through=jnp.sign),
        optim.memory_aware_synapses(strength),
    )
    tx = optax.chain(*parts, optax.sgd(0.1))

    def init(params):
        ones = jax.tree.map(jnp.ones_like, params)
        *mine, last = tx.init(params)
        pairs = zip(parts, mine, strict=True)
        return (*(p.consolidate(state, params, ones) for p, state in pairs), last)

    return optax.GradientTransformationExtraArgs(init, tx.update)


def make_synaptic_intelligence(groups, key, **numbers):
    tx = optim.synaptic_intelligence(optax.sgd(0.1), path=jnp.sign, **numbers)

    def init(params):
        state = tx.init(params)
        ones = jax.tree.map(jnp.ones_like, state.path)
        return tx.consolidate(state._replace(path=ones), params)

    return optax.GradientTransformationExtraArgs(init, tx.update)


CASES = {
    "continual_backprop": Case(
        make_continual_backprop,
        {
            "replacement_rate": (0.4, 0.1),
            "maturity_threshold": (0, 3),
            "decay_rate": (0.9, 0.3),
        },
        needs_features=True,
        must_be_last=True,
        draws_weights=True,
    ),
    "redo": Case(
        make_redo,
        {"threshold": (0.9, 0.5), "period": (2, 3), "decay_rate": (0.0, 0.9)},
        needs_features=True,
        must_be_last=True,
        draws_weights=True,
    ),
    "regrama": Case(
        make_regrama,
        {"threshold": (0.9, 0.5), "period": (2, 3), "decay_rate": (0.0, 0.9)},
        must_be_last=True,
        draws_weights=True,
    ),
    "self_normalized_resets": Case(
        make_self_normalized_resets,
        {
            "rejection_threshold": (0.2, 0.5),
            "initial_threshold": (2, 4),
            "period": (3, 2),
        },
        needs_features=True,
        must_be_last=True,
        draws_weights=True,
    ),
    "ccbp": Case(
        make_ccbp,
        {
            "replacement_rate": (0.5, 0.2),
            "sharpness": (16.0, 4.0),
            "threshold": (1.0, 0.5),
            "decay_rate": (0.5, 0.9),
            "period": (2, 3),
        },
        must_be_last=True,
        draws_weights=True,
    ),
    "shrink_and_perturb": Case(
        make_shrink_and_perturb,
        {"shrink": (0.5, 0.9), "perturb_scale": (0.1, 0.3), "period": (1, 3)},
        must_be_last=True,
    ),
    "l2_init": Case(make_l2_init, {"weight_decay": (0.1, 0.9)}),
    "a_gem": Case(make_a_gem, {"weight_decay": (0.1, 0.9)}),
    "in_sessions": Case(
        make_in_sessions,
        {
            "pct_start": (0.5, 0.3),
            "div_factor": (25.0, 5.0),
            "final_div_factor": (10.0, 2.0),
        },
        needs_params=False,
    ),
    "adam": Case(
        make_adam,
        {"learning_rate": (0.1, 0.01), "b1": (0.9, 0.5), "b2": (0.999, 0.9)},
        needs_params=False,
    ),
    "upgd": Case(
        make_upgd,
        {
            "learning_rate": (0.1, 0.01),
            "noise_scale": (0.1, 0.3),
            "weight_decay": (0.1, 0.5),
            "decay_rate": (0.9, 0.3),
        },
    ),
    "wrappers": Case(
        make_wrappers,
        {"momentum": (0.9, 0.5), "period": (2, 3), "kappa": (0.7, 0.3)},
        must_be_last=True,
    ),
    "selective_weight_reinitialization": Case(
        make_selective_weight_reinitialization,
        {"factor": (0.3, 0.1), "period": (2, 3), "decay_rate": (0.5, 0.9)},
        must_be_last=True,
    ),
    "regularizers": Case(
        make_regularizers,
        {"strength": (0.01, 0.03), "exponent": (2, 1), "scale": (2, 1)},
    ),
    "metaplastic": Case(
        make_metaplastic,
        {"learning_rate": (0.1, 0.01), "m": (0.5, 2.0)},
        must_be_last=True,
        half=False,
    ),
    "mesu": Case(
        make_mesu,
        {
            "window": (10.0, 100.0),
            "prior_mean": (0.0, 1.0),
            "prior_deviation": (1.0, 0.5),
            "clip": (0.2, 0.4),
        },
        half=False,
    ),
    "consolidating": Case(
        make_consolidating, {"strength": (0.5, 0.1), "decay": (0.9, 0.5)}
    ),
    "synaptic_intelligence": Case(
        make_synaptic_intelligence,
        {"strength": (0.5, 0.1), "xi": (1.0, 0.2)},
        must_be_last=True,
    ),
}
# Those whose course is not random, and those that draw other numbers in bfloat16.
WITHOUT_KEY = {"a_gem", "in_sessions", "l2_init", "adam", "wrappers", "regularizers"}
WITHOUT_KEY |= {"metaplastic", "mesu", "consolidating", "synaptic_intelligence"}
NOISY = {"shrink_and_perturb", "ccbp", "upgd", "selective_weight_reinitialization"}
# All other numbers enter the computation beside one of these.
SWEEPS = [
    ("continual_backprop", "replacement_rate"),
    ("continual_backprop", "maturity_threshold"),
    ("redo", "threshold"),
    ("redo", "period"),
    ("self_normalized_resets", "rejection_threshold"),
    ("ccbp", "period"),
    ("shrink_and_perturb", "perturb_scale"),
    ("shrink_and_perturb", "period"),
    ("l2_init", "weight_decay"),
    ("adam", "learning_rate"),
    ("metaplastic", "m"),
    ("mesu", "window"),
    ("consolidating", "strength"),
]
each_case = pytest.mark.parametrize("name", CASES)


def assert_same(actual, expected):
    """Decisions exactly, numbers to rounding."""

    def check(a, b):
        assert a.dtype == b.dtype and a.shape == b.shape
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
        else:
            np.testing.assert_array_equal(a, b)

    jax.tree.map(check, actual, expected)


def differ(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(np.any(np.asarray(x) != np.asarray(y)) for x, y in leaves)


def stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def pick(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def open_keys(tree):
    """Typed keys as plain numbers."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def apply_step(tx, params, state, grads, features, **extra):
    updates, state = tx.update(grads, state, params, features=features, **extra)
    return optax.apply_updates(params, updates), state


class Bench:
    """Compiled functions of each case, shared by the tests."""

    def __init__(self, net):
        self.net = net
        self.params = net.random(0)
        self.grads, self.features = net.random(1, (STEPS,)), net.features(2, (STEPS,))
        # One unit fires at the third step only.
        fires = (jnp.arange(STEPS) == 2)[:, None]
        self.features["a"] = self.features["a"].at[..., 1].multiply(fires)

    def simulate(self, tx, *, change=lambda x: x):
        """Parameters and states of all steps, stacked; ``change`` alters all data."""
        data = (self.params, self.grads, self.features)
        params, *inputs = jax.tree.map(change, data)

        def step(carry, inputs):
            carry = apply_step(tx, *carry, *inputs)
            return carry, carry

        stacked = jax.lax.scan(step, (params, tx.init(params)), inputs)[1]
        return open_keys(stacked)

    @functools.cache  # noqa: B019
    def run(self, name, **settings):
        """Jitted ``(seed, numbers) -> (params, state)``; data, too, are the seed's."""

        def run(seed, numbers):
            key, make = jax.random.key(seed), CASES[name].make
            tx = make(self.net.groups, key, **numbers, **settings)
            return self.simulate(tx, change=lambda x: x * (1 + 0.1 * seed))

        return jax.jit(run)

    @functools.cache  # noqa: B019
    def step(self, name):
        """The transformation and its jitted step, which counts its compilations."""
        tx = CASES[name].make(self.net.groups, jax.random.key(0), **CASES[name].fixed())
        traced = []

        def step(*args):
            traced.append(1)
            return apply_step(tx, *args)

        return tx, jax.jit(step), traced


@pytest.fixture(scope="module")
def bench(net):
    return Bench(net)


@pytest.mark.parametrize(("name", "number"), SWEEPS)
def test_vmap_over_one_number(bench, name, number):
    """A sweep over one traced number is each run alone; nothing else is batched."""
    values = jnp.asarray(CASES[name].numbers[number], jnp.float32)
    numbers = lambda value: CASES[name].traced() | {number: value}
    # Units whose new weights are not random compile faster.
    plain = {"initializer": CONSTANT} if CASES[name].draws_weights else {}
    run = bench.run(name, **plain)
    swept = jax.jit(jax.vmap(lambda value: run(0, numbers(value))))(values)
    alone = [run(0, numbers(value)) for value in values]
    assert_same(swept, stack(alone))
    assert differ(alone[0][0], alone[1][0])


@each_case
def test_nested_vmap(bench, name):
    """Vmaps over seeds and, inside, over all numbers at once are each run alone.

    The seeds come with keys, parameters, gradients and features of their own.
    """
    run, numbers = bench.run(name), [CASES[name].traced(0), CASES[name].traced(1)]
    table = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
    swept = jax.jit(table)(jnp.arange(3), stack(numbers))
    assert_same(swept, stack([stack([run(i, n) for n in numbers]) for i in range(3)]))


@each_case
def test_compiles_once_and_scan_is_the_loop(bench, name):
    """Later calls do not compile again, and a scan makes the same run."""
    tx, step, traced = bench.step(name)
    params, state = bench.params, tx.init(bench.params)
    for i in range(STEPS):
        params, state = step(params, state, *pick((bench.grads, bench.features), i))
        if i == 0:
            traced.clear()
    assert traced == []
    whole = bench.run(name)(0, CASES[name].traced())
    assert_same(pick(whole, -1), (params, open_keys(state)))


@each_case
def test_chain(bench, name):
    """In a chain it takes the previous updates and passes on its own.

    Extra arguments that it does not know change nothing.
    """
    tx, step, _ = bench.step(name)
    last = () if CASES[name].must_be_last else (optax.scale(-2.0),)
    chain = optax.chain(optax.clip(0.3), tx, *last)
    grads, features = pick((bench.grads, bench.features), 0)
    unknown = {"value": 1.0, "loss": None, "batch": {"x": jnp.ones(3)}}
    chained = jax.jit(
        lambda p, g: chain.update(g, chain.init(p), p, features=features, **unknown)
    )
    updates, states = chained(bench.params, grads)
    clipped = jax.tree.map(lambda g: jnp.clip(g, -0.3, 0.3), grads)
    after, state = step(bench.params, tx.init(bench.params), clipped, features)
    scale = -2.0 if last else 1.0
    expected = jax.tree.map(lambda p, q: scale * (q - p), bench.params, after)
    assert_same(updates, expected)
    assert_same(open_keys(states[1]), open_keys(state))


@each_case
def test_missing_arguments(bench, name):
    """Forgetting params or features is an error in words."""
    case, (tx, *_) = CASES[name], bench.step(name)
    grads, features = pick((bench.grads, bench.features), 0)
    state = jax.eval_shape(tx.init, bench.params)

    def shape(params, **features):
        return jax.eval_shape(lambda s: tx.update(grads, s, params, **features), state)

    if case.needs_params:
        with pytest.raises(ValueError, match="needs params, got None"):
            shape(None, features=features)
    if case.needs_features:
        with pytest.raises(ValueError, match="needs features=.*units.tap"):
            shape(bench.params)
    else:
        shape(bench.params)


@pytest.mark.parametrize("traced", [False, True], ids=["fixed", "traced"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed", "float64"])
@each_case
def test_dtypes_and_structure(net, name, dtype, traced):
    """The state keeps structure and dtypes; updates have each parameter's, or more.

    A weight that is set to a value moves by a difference that half precision would
    round, so it comes in float32; the parameters keep their dtype all the same.
    """
    case = CASES[name]
    with jax.enable_x64(dtype == "float64"):
        params = net.random(0, dtype="float32" if dtype == "mixed" else dtype)
        if dtype == "mixed":
            params["w1"] = params["w1"].astype(jnp.bfloat16)
        features = jax.tree.map(lambda h: h.astype(params["w1"].dtype), net.features(1))

        def step(params, numbers):
            numbers = numbers if traced else case.fixed()
            tx = case.make(net.groups, jax.random.key(0), **numbers)
            state = tx.init(params)
            return state, tx.update(params, state, params, features=features)

        if dtype in ("bfloat16", "mixed") and not case.half:
            with pytest.raises(ValueError, match="need float32 or more, got bfloat16"):
                jax.eval_shape(step, params, case.traced())
            return
        before, (updates, after) = jax.eval_shape(step, params, case.traced())
        of = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
        assert of(after) == of(before)
        moved = jax.eval_shape(optax.apply_updates, params, updates)
        assert of(moved) == of(params)
        # A float32 array as learning rate makes float32 updates, as in optax.adam.
        free = case.must_be_last or (name in ("adam", "upgd") and traced)
        for update, param in zip(*map(jax.tree.leaves, (updates, params)), strict=True):
            wide = jnp.promote_types(param.dtype, jnp.float32)
            assert update.dtype in ((param.dtype, wide) if free else (param.dtype,))


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].half])
def test_bfloat16_run(bench, name):
    """A bfloat16 network stays bfloat16 and replaces as many units at each step."""
    case = CASES[name]
    tx = case.make(bench.net.groups, jax.random.key(0), **case.fixed())
    half = lambda x: x.astype(jnp.bfloat16)
    params, state = jax.jit(lambda: bench.simulate(tx, change=half))()
    wide, wide_state = bench.run(name)(0, case.traced())
    for leaf in jax.tree.leaves(params):
        assert leaf.dtype == jnp.bfloat16 and np.all(np.isfinite(leaf))
        assert np.any(leaf[0] != leaf[-1])
    if hasattr(state, "replaced"):
        count = lambda state: jax.tree.map(lambda x: np.sum(x, axis=1), state.replaced)
        jax.tree.map(np.testing.assert_array_equal, count(state), count(wide_state))
        assert any(np.any(x) for x in state.replaced.values())
    elif name not in NOISY:
        close = functools.partial(np.testing.assert_allclose, rtol=0.05, atol=0.05)
        jax.tree.map(lambda a, b: close(np.asarray(a, np.float32), b), params, wide)


@each_case
def test_derivatives(bench, name):
    """Forward and reverse derivatives of a run of updates exist, as in optax."""
    tx = CASES[name].make(bench.net.groups, jax.random.key(0), **CASES[name].fixed())

    def loss(params):
        state = tx.init(params)
        for t in range(2):
            inputs = pick((bench.grads, bench.features), t)
            params, state = apply_step(tx, params, state, *inputs)
        return sum(jnp.sum(x) for x in jax.tree.leaves(params))

    jax.eval_shape(jax.grad(loss), bench.params)
    jax.eval_shape(lambda p: jax.jvp(loss, (p,), (p,)), bench.params)


@each_case
def test_the_key_decides(bench, name):
    """One key, one run; the state keeps the key as it was given."""
    run, numbers = bench.run(name), CASES[name].traced()
    assert not differ(run(0, numbers), run(0, numbers))
    if name not in WITHOUT_KEY:
        kept = optax.tree.get(run(1, numbers)[1], "key")
        np.testing.assert_array_equal(kept[-1], jax.random.key_data(jax.random.key(1)))


@each_case
def test_map_params(bench, name):
    """optax.tree.map_params finds its way through the state, as wrappers need it."""
    tx, *_ = bench.step(name)
    state = jax.eval_shape(tx.init, bench.params)
    same = optax.tree.map_params(tx, lambda leaf: leaf, state)
    assert jax.tree.leaves(same) == jax.tree.leaves(state)


@each_case
def test_inside_multi_steps(bench, name):
    """Under optax.MultiSteps it moves at every second step and rests in between.

    What reads features is refused, as MultiSteps passes on those of one minibatch.
    """
    tx, *_ = bench.step(name)
    multi = optax.MultiSteps(tx, 2).gradient_transformation()
    if CASES[name].needs_features:
        with pytest.raises(ValueError, match=r"wrapper\(optax.MultiSteps\(inner, k\)"):
            jax.eval_shape(lambda: bench.simulate(multi))
        return
    # MultiSteps selects between the old and the new state, so with the same key twice.
    with jax.debug_key_reuse(False):
        params, _ = jax.jit(lambda: bench.simulate(multi))()
    for before, after in zip(
        jax.tree.leaves(bench.params), jax.tree.leaves(params), strict=True
    ):
        moved = np.diff(np.concatenate([before[None], after]), axis=0) != 0
        moved = moved.reshape(STEPS, -1).any(axis=1)
        np.testing.assert_array_equal(moved, np.arange(STEPS) % 2 == 1)
