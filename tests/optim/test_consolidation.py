"""Consolidation: penalties on leaving where the weights were at the ends of tasks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

TASKS = 3
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
MAKE = {
    "ewc": optim.elastic_weight_consolidation,
    "online": functools.partial(optim.elastic_weight_consolidation, decay=0.7),
    "mas": optim.memory_aware_synapses,
}


def importances(net, task):
    """Not negative, and 0 for some weights in some tasks and in all."""
    keep = lambda x: jnp.where(jnp.abs(x) > 0.5, jnp.square(x), 0).at[..., 0].set(0)
    return jax.tree.map(keep, net.random(10 + task))


def after_tasks(net, tx, state):
    for task in range(TASKS):
        state = tx.consolidate(state, net.random(task), importances(net, task))
    return state


def penalty(net, name, params, seen=lambda w: w):
    """Written plainly: a sum over tasks, or the last task with all importances."""
    total = 0.0
    for k in range(TASKS):
        decay = 0.7 ** (TASKS - 1 - k) if name == "online" else 1
        there = net.random(k if name == "ewc" else TASKS - 1)
        for path, importance in importances(net, k).items():
            square = (seen(params[path]) - seen(there[path])) ** 2
            total += 0.3 / 2 * decay * jnp.sum(importance * square)
    return total


@pytest.mark.parametrize("name", MAKE)
def test_gradient(net, name):
    """It adds the derivative of the penalty after three tasks, before them nothing."""
    tx, params, grads = MAKE[name](0.3), net.random(7), net.random(8)

    @jax.jit
    def both():
        state = after_tasks(net, tx, tx.init(net.random(9)))
        slope = jax.grad(lambda p: penalty(net, name, p))(params)
        expected = jax.tree.map(jnp.add, grads, slope)
        first, _ = tx.update(grads, tx.init(net.random(9)), params)
        return tx.update(grads, state, params)[0], expected, first

    found, expected, first = both()
    jax.tree.map(close, found, expected)
    jax.tree.map(np.testing.assert_array_equal, first, grads)


@pytest.mark.parametrize("name", MAKE)
def test_through_signs(net, name):
    """The latent gets the gradient of the penalty on its sign, as if it were that.

    After one task it is 0 or 2 strength times importance, to the bit.
    """
    tx, params = MAKE[name](0.25, through=jnp.sign), net.random(7)
    zeros = jax.tree.map(jnp.zeros_like, params)
    straight = lambda w: w + jax.lax.stop_gradient(jnp.sign(w) - w)

    @jax.jit
    def both():
        start = tx.init(net.random(9))
        once = tx.consolidate(start, net.random(0), importances(net, 0))
        more = after_tasks(net, tx, start)
        slope = jax.grad(lambda p: 0.25 / 0.3 * penalty(net, name, p, straight))
        pull = lambda state: tx.update(zeros, state, params)[0]
        return pull(once), pull(more), slope(params)

    once, more, expected = both()
    jax.tree.map(close, more, expected)
    for path, importance in importances(net, 0).items():
        apart = np.sign(params[path]) != np.sign(net.random(0)[path])
        sign = np.sign(params[path])
        np.testing.assert_array_equal(once[path], 0.5 * importance * sign * apart)


def test_a_boundary_is_found_in_any_state(net):
    """In a chain and behind a mask, under jit, for many runs at once."""
    ewc = optim.elastic_weight_consolidation(1.0)
    mask = {name: name in ("w0", "w1") for name in net.shapes}
    tx = optax.chain(optax.clip(9.0), optax.masked(ewc, mask), optax.sgd(0.1, 0.9))
    state, many = tx.init(net.random(0)), jnp.arange(1.0, 4)
    consolidate = lambda c: ewc.consolidate(
        state,
        jax.tree.map(lambda p: c * p, net.random(0)),
        jax.tree.map(lambda f: f / c, importances(net, 0)),
    )
    alone, together = jax.jit(consolidate), jax.jit(jax.vmap(consolidate))
    found = together(many)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for i, c in enumerate(many):
        jax.tree.map(close, jax.tree.map(lambda x, i=i: x[i], found), alone(c))
    mine = optax.tree.get(found, "importance")
    close(mine["w0"][1], importances(net, 0)["w0"] / 2)
    assert len(jax.tree.leaves(mine)) == 2


@pytest.mark.parametrize("name", MAKE)
def test_what_is_no_importance_changes_nothing(net, name):
    """A concrete one is refused; a traced one leaves its weight held as it was.

    So at the anchor, and with importances that together are none, no gradient is NaN.
    """
    tx, params = MAKE[name](1e3), {"w": jnp.ones(5)}
    before = tx.consolidate(tx.init(params), params, {"w": jnp.full(5, 2.0)})
    wrong = jnp.array([jnp.nan, jnp.inf, -1.0, -3.0, 3.4e38])
    both = lambda new: tx.consolidate(tx.consolidate(before, params, new), params, new)
    for bad in (*wrong[:-1], -np.inf):
        with pytest.raises(ValueError, match="importance of 'w' must be in"):
            tx.consolidate(before, params, {"w": jnp.ones(5).at[1].set(bad)})
    after = jax.jit(both)({"w": wrong})
    np.testing.assert_array_equal(after.importance["w"][:4], 2)
    assert np.isfinite(after.importance["w"]).all()
    np.testing.assert_array_equal(tx.update(params, after, params)[0]["w"], 1)


@pytest.mark.parametrize("name", MAKE)
def test_a_weight_that_is_not_finite_is_no_anchor(name):
    tx, ones = MAKE[name](1.0), {"w": jnp.ones(3)}
    state = tx.consolidate(tx.init(ones), {"w": jnp.array([jnp.nan, jnp.inf, 2])}, ones)
    np.testing.assert_array_equal(state.anchor["w"], [1, 1, 2])
    np.testing.assert_array_equal(state.importance["w"], [0, 0, 1])


def test_numbers_may_be_of_python():
    params = {"w": jnp.array(1.0), "b": 2.0}
    tx = optim.elastic_weight_consolidation(1.0)
    state = tx.consolidate(tx.init(params), params, {"w": 3.0, "b": np.float64(4)})
    assert jax.tree.map(float, state.importance) == {"w": 3, "b": 4}


@pytest.mark.parametrize("name", ["ewc", "online", "mas", "si"])
def test_inside_inject_hyperparams(net, name):
    """As without it; any instance of the same settings consolidates its state."""
    make = functools.partial(SI, xi=0.1) if name == "si" else MAKE[name]
    if name == "online":
        make = optim.elastic_weight_consolidation
    numbers = {"decay": 0.7} if name == "online" else {}
    plain, params, moved = make(strength=0.3, **numbers), net.random(0), net.random(1)
    given = () if name == "si" else (importances(net, 0),)

    def run(tx):
        _, state = tx.update(net.random(2), tx.init(params), params)
        state = plain.consolidate(state, moved, *given)
        return tx.update(net.random(2), state, net.random(3))[0]

    injected = optax.inject_hyperparams(make)(strength=0.3, **numbers)
    found, expected = jax.jit(lambda: (run(injected), run(plain)))()
    jax.tree.map(close, found, expected)
    scheduled = optax.inject_hyperparams(make)(strength=lambda count: 0.3, **numbers)
    jax.tree.map(close, jax.jit(lambda: run(scheduled))(), expected)


def test_functions_of_weights_inside_inject_hyperparams(net):
    """Are told from schedules by their name, as of any transformation."""
    make = optax.inject_hyperparams(EWC, static_args=("through",))
    tx, plain = make(0.25, through=jnp.sign), EWC(0.25, through=jnp.sign)
    params, zeros = net.random(7), jax.tree.map(jnp.zeros_like, net.random(7))

    def run(tx):
        state = plain.consolidate(tx.init(params), net.random(0), importances(net, 0))
        return tx.update(zeros, state, params)[0]

    jax.tree.map(close, *jax.jit(lambda: (run(tx), run(plain)))())


EWC, SI = MAKE["ewc"], functools.partial(optim.synaptic_intelligence, optax.sgd(1.0))


def update(tx, params):
    return tx.update(params, tx.init(params), params)


MISTAKES = {  # what is done with the parameters, a part of them, and the state
    "one ConsolidationState, got 0": lambda p, part, s: EWC(1.0).consolidate((), p, p),
    "ConsolidationState, got 2": lambda p, part, s: EWC(1.0).consolidate((s, s), p, p),
    "one SynapticIntelligenceState, got 0": lambda p, part, s: SI(
        strength=1.0
    ).consolidate(s, p),
    "importance must have 'w1', .*nothing": lambda p, part, s: EWC(1.0).consolidate(
        s, p, part
    ),
    r"params must have 'w1', .*\(2, 4\)": lambda p, part, s: EWC(1.0).consolidate(
        s, part | {"w1": p["w1"][:2]}, p
    ),
    "strength must be in": lambda p, part, s: EWC(-1.0),
    "decay must be in": lambda p, part, s: EWC(1.0, decay=1.5),
    "xi must be in": lambda p, part, s: SI(strength=1.0, xi=0.0),
    "chunk must be in": lambda p, part, s: optim.sensitivity(jnp.dot, 1.0, p, chunk=0),
    r"jax\.random\.key\(seed\)": lambda p, part, s: optim.permuted(p, 0),
    "last link of its chain": lambda p, part, s: update(
        optax.chain(SI(strength=1.0), optax.scale(2.0)), p
    ),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes(net, words):
    """Are errors in words, before anything is computed."""
    params = net.random(0)
    part = {name: p for name, p in params.items() if name != "w1"}
    with pytest.raises(ValueError, match=words):
        MISTAKES[words](params, part, EWC(1.0).init(params))


@pytest.mark.parametrize("name", ["ewc", "si"])
def test_replaced_units_are_released(net, name):
    """A new weight is held nowhere; the others are held as before."""
    ewc = optim.elastic_weight_consolidation(0.1)
    si = optim.synaptic_intelligence(optax.sgd(0.1), strength=0.1)
    inner = si if name == "si" else optax.chain(ewc, optax.sgd(0.1))
    settings = {"threshold": 0.1, "period": 2, "key": jax.random.key(0)}
    settings |= {"initializer": jax.nn.initializers.constant(0.5)}
    tx = optim.redo(inner, net.groups, **settings)
    silent = {"a": 1, "b": 2}

    @jax.jit
    def run(params, grads, features):
        state, tens = tx.init(params), jax.tree.map(lambda p: 0 * p + 10, params)
        if name == "si":  # the distance is 0 and xi .1
            ones = jax.tree.map(jnp.ones_like, params)
            state = state._replace(inner=state.inner._replace(path=ones))
            state = si.consolidate(state, params)
        else:
            state = ewc.consolidate(state, params, tens)

        def step(_, carry):
            params, state = carry
            updates, state = tx.update(grads, state, params, features=features)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 3, step, (params, state))[1]

    features = net.features(2, silent=silent)
    importance = run(net.random(0), net.random(1), features)
    importance = optax.tree.get(importance, "importance")
    mine = net.owned({name: np.arange(4) == unit for name, unit in silent.items()})
    for path, replaced in mine.items():
        np.testing.assert_array_equal(np.asarray(importance[path])[replaced], 0)
        close(np.asarray(importance[path])[~replaced], 10)


# The importances of a softmax regression, whose gradients are known.
X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
Y = np.array([0, 1, 1, 0, 1, 0, 0])
W = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
P = np.exp(X @ W) / np.exp(X @ W).sum(axis=1, keepdims=True)


def loss(w, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(x @ w, y)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 32])
def test_empirical_fisher(chunk):
    """The mean over examples of squared gradients, whatever is in memory at a time."""
    slopes = X[:, :, None] * (P - np.eye(2)[Y])[:, None, :]
    found = jax.jit(lambda: optim.fisher(loss, W, X, Y, chunk=chunk))()
    close(found, (slopes**2).mean(axis=0))


def test_fisher_of_all_labels():
    """With every label as likely as the network says, it is the Fisher information.

    That is what labels drawn by the network give in the mean.
    """
    twice, labels = np.repeat(X, 2, axis=0), np.tile([0, 1], len(X))
    found = optim.fisher(loss, W, twice, labels, weights=P.ravel())
    expected = (X**2).T @ (P * (1 - P)) / len(X)
    close(found, expected)
    many = jnp.repeat(X, 2000, axis=0)
    drawn = jax.random.categorical(jax.random.key(0), many @ W)
    sampled = jax.jit(lambda: optim.fisher(loss, W, many, drawn, chunk=2000))()
    np.testing.assert_allclose(sampled, expected, rtol=0.05)


def test_sensitivity_and_weights():
    """In closed form; what has no weight does not count, though it is not finite."""
    slopes = 2 * X[:, :, None] * (X @ W)[:, None, :]
    apply = lambda w, x: x @ w
    close(optim.sensitivity(apply, W, X), np.abs(slopes).mean(axis=0))
    weights = np.array([1.0, 0, 2, 0, 0, 0, 1], np.float32)
    broken = np.where(weights[:, None] > 0, X, np.inf)
    found = optim.sensitivity(apply, W, broken, weights=weights, chunk=2)
    close(found, np.einsum("i,ijk->jk", weights, np.abs(slopes)) / 4)
    nothing = optim.sensitivity(apply, W, broken, weights=0 * weights)
    np.testing.assert_array_equal(nothing, 0)


def test_permuted(net):
    """Each tensor has its own values at other places, and the key decides which."""
    tree = {"a": jnp.arange(60.0).reshape(3, 20), "b": jnp.arange(60.0).reshape(3, 20)}
    found, other = (optim.permuted(tree, jax.random.key(seed)) for seed in (0, 1))
    for name, leaf in tree.items():
        np.testing.assert_array_equal(np.sort(found[name].ravel()), leaf.ravel())
        assert found[name].shape == leaf.shape
        assert np.mean(found[name] == leaf) < 0.2
        assert np.mean(found[name] == other[name]) < 0.2
    assert np.mean(found["a"] == found["b"]) < 0.2


def plain_si(params, grads, *, strength, xi, path, rate):
    """In NumPy, over tasks of steps; the parameters and importances at the end."""
    w, anchor, omega = params.copy(), params.copy(), np.zeros_like(params)
    for task in grads:
        way = np.zeros_like(w)
        for g in task:
            pull = strength * omega * (path(w) - path(anchor))
            new = w - rate * (g + pull)
            way -= g * (path(new) - path(w))
            w = new
        omega = np.maximum(omega + way / ((w - anchor) ** 2 + xi), 0)
        anchor = w.copy()
    return w, omega


@pytest.mark.parametrize("path", [lambda w: w, np.sign], ids=["latent", "binary"])
def test_synaptic_intelligence(net, path):
    """Three tasks as in NumPy: paths and penalties of weights, or of their signs.

    Some weights go uphill, whose importance stays 0.
    """
    binary = path is np.sign
    seen = {"through": jnp.sign, "path": jnp.sign} if binary else {}
    numbers = {"strength": 0.3, "xi": 0.1}
    rate = np.where(np.arange(4) < 3, 0.3, -0.1)
    descent = optax.stateless(lambda grads, params: -jnp.float32(rate) * grads)
    tx = optim.synaptic_intelligence(descent, **numbers, **seen)
    grads = net.random(1, (3, 5))["w1"]

    @jax.jit
    def run(w):
        state = tx.init(w)
        for task in grads:
            for g in task:
                updates, state = tx.update(g, state, w)
                w = optax.apply_updates(w, updates)
            state = tx.consolidate(state, w)
        return w, state.importance

    start = net.random(0)["w1"]
    expected = plain_si(
        np.asarray(start, float), np.asarray(grads), path=path, rate=rate, **numbers
    )
    jax.tree.map(functools.partial(close, rtol=1e-3, atol=1e-4), run(start), expected)
    assert np.any(expected[1][:, :3] > 0) and np.all(expected[1][:, 3] == 0)


@pytest.mark.parametrize(
    "guard, bad", [(optax.zero_nans(), np.nan), (optax.clip(1.0), np.inf)]
)
def test_a_gradient_that_is_not_finite_is_no_part_of_the_path(guard, bad):
    """Where the inner optimiser survives it, the weight is held for its other steps."""
    inner = optax.chain(guard, optax.sgd(0.1))
    tx = optim.synaptic_intelligence(inner, strength=1.0)

    @jax.jit
    def run(grads):
        w, state = jnp.ones(2), tx.init(jnp.ones(2))
        for g in grads:
            updates, state = tx.update(g, state, w)
            w = optax.apply_updates(w, updates)
        return w, state.path, tx.consolidate(state, w)

    grads = jnp.ones((3, 2)).at[1, 0].set(bad)
    w, path, after = run(grads)
    close(path, [0.2, 0.3])
    close(after.importance, path / ((w - 1) ** 2 + 0.1))
    np.testing.assert_array_equal(after.anchor, w)


def test_an_importance_beyond_all_numbers_is_none():
    """Nor is a weight that is not finite an anchor."""
    tx = optim.synaptic_intelligence(optax.sgd(1.0), strength=1.0, xi=1e-30)
    state = tx.init(jnp.ones(3))._replace(path=jnp.array([1e10, 1.0, 1.0]))
    after = tx.consolidate(state, jnp.array([1.0, jnp.nan, 2.0]))
    np.testing.assert_array_equal(after.importance, [0, 0, 1])
    np.testing.assert_array_equal(after.anchor, [1, 1, 2])


def test_the_path_is_the_decrease_of_the_loss():
    """In small steps, weight by weight where the loss is a sum over weights."""
    scale, start = jnp.array([0.5, 1.0, 2.0]), jnp.array([1.0, -2.0, 3.0])
    tx = optim.synaptic_intelligence(optax.sgd(1e-3), strength=0.0)
    each = lambda w: scale * w**2 / 2

    def step(_, carry):
        w, state = carry
        updates, state = tx.update(scale * w, state, w)
        return optax.apply_updates(w, updates), state

    loop = lambda: jax.lax.fori_loop(0, 1000, step, (start, tx.init(start)))
    w, state = jax.jit(loop)()
    np.testing.assert_allclose(state.path, each(start) - each(w), rtol=2e-3)
