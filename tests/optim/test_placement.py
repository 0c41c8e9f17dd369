"""Which wrappers of optax may stand around one that replaces units."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

STEPS = 6


def make(net, inner=None, rate=0.25):
    return optim.continual_backprop(
        optax.sgd(0.1) if inner is None else inner,
        net.groups,
        replacement_rate=rate,
        maturity_threshold=1,
        utility="contribution",
        initializer=jax.nn.initializers.constant(0.5),
        key=jax.random.key(0),
    )


def run(net, tx, *, bad=()):
    """Parameters after ``STEPS`` steps, and the replacements of each."""
    params, features = net.random(0), net.features(2)
    grads = net.random(1, (STEPS,))
    grads = jax.tree.map(lambda g: g.at[jnp.array(bad, int)].set(jnp.nan), grads)

    def step(carry, grads):
        params, before = carry
        updates, state = tx.update(grads, before, params, features=features)
        events = optim.newly_replaced(before, state)
        return (optax.apply_updates(params, updates), state), events

    # Some wrappers of optax select between an old and a new state with one key.
    with jax.debug_key_reuse(False):
        carry = params, tx.init(params)
        (params, _), events = jax.jit(lambda: jax.lax.scan(step, carry, grads))()
    return jax.tree.map(np.asarray, (params, events))


WEIGHTS = {"b0": "a", "b1": "a", "b2": "a", "w0": "a", "w1": "a", "w2": "a"}
OUTSIDE = {
    "last of a chain": lambda tx: optax.chain(optax.clip(1e9), tx),
    "last of a named chain": lambda tx: optax.named_chain(
        ("clip", optax.clip(1e9)), ("cbp", tx)
    ),
    "chain in a chain": lambda tx: optax.chain(optax.clip(1e9), optax.chain(tx)),
    "masked": lambda tx: optax.masked(tx, True),
    "partition": lambda tx: optax.partition({"a": tx}, WEIGHTS),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
}


@pytest.fixture(scope="module")
def alone(net):
    return run(net, make(net))


@pytest.mark.parametrize("name", OUTSIDE)
def test_these_may_stand_outside(net, alone, name):
    """The run is the one without them."""
    params, events = run(net, OUTSIDE[name](make(net)))
    jax.tree.map(np.testing.assert_allclose, params, alone[0])
    jax.tree.map(np.testing.assert_array_equal, events, alone[1])
    assert np.any(events["a"])


REFUSED = {
    "scaled afterwards": (
        lambda tx: optax.chain(tx, optax.scale(0.5)),
        "come scale after",
    ),
    "averaged afterwards": (
        lambda tx: optax.chain(optax.chain(tx), optax.ema(0.9), optax.scale(1)),
        "come ema, scale after",
    ),
    "named": (
        lambda tx: optax.named_chain(("cbp", tx), ("s", optax.scale(0.5))),
        "come 's': scale after",
    ),
    "MultiSteps": (lambda tx: optax.MultiSteps(tx, 2), "last minibatch"),
    "schedule_free": (
        lambda tx: optax.contrib.schedule_free(tx, 0.1),
        r"wrapper\(schedule_free",
    ),
    "mechanize": (lambda tx: optax.contrib.mechanize(tx), r"wrapper\(mechanize"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_these_are_refused(net, name):
    """What changes the updates afterwards would change the new weights."""
    around, words = REFUSED[name]
    tx = around(make(net))
    params, features = net.random(0), net.features(2)

    def update(params):
        state = tx.init(params)
        return tx.update(params, state, params, features=features)

    with pytest.raises(ValueError, match=words):
        jax.eval_shape(update, params)


def test_sam_takes_no_features(net):
    """Neither outside nor inside: the error names it and what it does not take."""
    params, features, sam = net.random(0), net.features(2), optax.contrib.sam
    for tx in (
        make(net, sam(optax.sgd(0.1), optax.sgd(0.1))),
        sam(make(net), optax.sgd(0.1)),
    ):
        state = tx.init(params)
        with pytest.raises(TypeError, match="sam.* 'features'"):
            tx.update(params, state, params, features=features)


def test_lookahead_is_refused(net):
    """It passes on no features, and its parameters are pairs."""
    pair, grads = optax.LookaheadParams.init_synced(net.random(0)), net.random(1)
    tx = optax.lookahead(make(net), 5, 0.5)
    with pytest.raises(TypeError, match="'features'"):
        tx.update(grads, tx.init(pair), pair, features=net.features(2))
    without_features = optim.regrama(optax.sgd(0.1), net.groups, key=jax.random.key(0))
    tx = optax.lookahead(without_features, 5, 0.5)
    with pytest.raises(ValueError, match=r"wrapper\(lookahead"):
        tx.update(grads, tx.init(pair), pair)


SKIPPING = {
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "conditionally_mask": lambda tx: optax.transforms.conditionally_mask(
        tx, lambda step: step > 1
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SKIPPING)
def test_what_skips_steps_selects_between_equal_types(net, name, dtype):
    """New weights of half precision need updates in float32, so they are refused."""
    tx, params = SKIPPING[name](make(net)), net.random(0, dtype=dtype)
    features = net.features(2)
    update = lambda: tx.update(params, tx.init(params), params, features=features)
    if dtype == "float32":
        jax.eval_shape(update)
    else:
        with pytest.raises(ValueError, match=rf"wrapper\({name}"):
            jax.eval_shape(update)


def test_events_of_a_batch_of_states(net):
    """Each run of a sweep has its own: here the first alone has made an update."""
    tx, params = make(net, rate=1.0), net.random(0)
    step = lambda state: tx.update(params, state, params, features=net.features(2))[1]
    begun = step(step(tx.init(params)))
    after = step(begun)
    many = lambda *states: jax.tree.map(
        lambda *x: jnp.stack(x), *(state._replace(key=()) for state in states)
    )
    events = optim.newly_replaced(many(*[begun] * 4), many(after, *[begun] * 3))
    assert begun.replaced["a"].any()  # which tells of the step before
    first, *others = events["a"].tolist()
    assert first == after.replaced["a"].tolist() and not np.any(others)


INSIDE = {
    "MultiSteps": optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
    "schedule_free": optax.contrib.schedule_free_sgd(0.1),
    "inject_hyperparams": optax.inject_hyperparams(optax.sgd)(0.1),
    "apply_if_finite": optax.apply_if_finite(optax.sgd(0.1), 3),
    "chain": optax.chain(optax.clip(1.0), optax.sgd(0.1), optax.scale(0.5)),
}


@pytest.mark.parametrize("name", INSIDE)
def test_these_may_stand_inside(net, alone, name):
    """Replaced weights are what they should be, and nothing inside brings back the old.

    Not even what keeps a copy of the parameters, as ``schedule_free`` does: without
    gradients new weights stay what they are.
    """
    params, features = net.random(0), net.features(2)

    @jax.jit
    def step(params, state, grads, rate):
        tx = make(net, INSIDE[name], rate)
        updates, state = tx.update(grads, state, params, features=features)
        return optax.apply_updates(params, updates), state

    state = make(net, INSIDE[name]).init(params)
    for _ in range(2):
        params, state = step(params, state, net.random(1), 0.5)
    a, b = (np.asarray(state.replaced[name]) for name in "ab")
    assert np.any(a) and np.any(b)
    still = jax.tree.map(jnp.zeros_like, params)
    for _ in range(3):
        np.testing.assert_allclose(params["w2"][b], 0, atol=1e-6)
        np.testing.assert_allclose(params["w0"][:, a], 0.5, rtol=1e-6)
        np.testing.assert_allclose(params["w1"][:, b], 0.5, rtol=1e-6)
        np.testing.assert_allclose(params["w1"][a][:, ~b], 0, atol=1e-6)
        params, state = step(params, state, still, 0.0)


def test_a_replacement_is_one_event(net):
    """While ``apply_if_finite`` skips steps, `replaced` stays, but nothing happens."""
    tx = optax.apply_if_finite(make(net), 9)
    _, events = run(net, tx, bad=(3, 4))
    total = sum(x.sum(axis=1) for x in events.values())
    assert np.all(total[[3, 4]] == 0)
    _, undisturbed = run(net, make(net))
    before = {name: x[:3] for name, x in undisturbed.items()}
    jax.tree.map(
        np.testing.assert_array_equal, {n: x[:3] for n, x in events.items()}, before
    )
    assert total[:3].sum() > 0 and total[5] > 0


def test_paths_unknown_in_update(net):
    """The same words as in ``init``."""
    tx, params = make(net), net.random(0)
    other = {name.replace("w1", "w1x"): value for name, value in params.items()}
    for call in (
        lambda: tx.init(other),
        lambda: tx.update(other, tx.init(params), other, features=net.features(2)),
    ):
        with pytest.raises(ValueError, match="no parameter 'w1'; nearest known: 'w1x'"):
            call()


AROUND = {
    "one_cycle": lambda tx: optim.one_cycle(tx),
    "shrink_and_perturb": lambda tx: optim.shrink_and_perturb(
        tx, shrink=0.5, key=jax.random.key(0)
    ),
    "hare_tortoise": lambda tx: optim.hare_tortoise(tx, period=2, reset_inner=False),
    "normalize_and_project": lambda tx: optim.normalize_and_project(tx),
    "weight_clipping": lambda tx: optim.weight_clipping(tx, kappa=1.0),
    "frozen": lambda tx: optim.frozen(tx),
}
EXACT = {
    "replaces units": lambda net, inner: make(net, inner),
    "replaces weights": lambda net, inner: optim.selective_weight_reinitialization(
        inner, factor=0.5, period=1, key=jax.random.key(0)
    ),
    "reads the steps": lambda net, inner: optim.synaptic_intelligence(
        inner, strength=1.0
    ),
}


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize("exact", EXACT)
def test_what_changes_updates_stands_inside(net, exact, name):
    """Outside it is refused, whatever is between, and forgotten afterwards."""
    params, features = net.random(0), net.features(2)
    more = {"features": features, "progress": 0.5, "frozen": False}

    def update(tx):
        state = tx.init(params)
        return tx.update(params, state, params, **more)

    wrap, hold = AROUND[name], lambda inner: EXACT[exact](net, inner)
    for tx in (wrap(hold(optax.sgd(0.1))), wrap(optax.chain(hold(optax.sgd(0.1))))):
        with pytest.raises(ValueError, match=rf"Put it inside: wrapper\({name}"):
            jax.eval_shape(lambda tx=tx: update(tx))
    jax.eval_shape(lambda: update(hold(wrap(optax.sgd(0.1)))))


BEFORE = {
    "l2_init": optim.l2_init(0.1),
    "spectral": optim.spectral_regularization(0.1),
    "parseval": optim.parseval_regularization(0.1),
    "wasserstein": optim.wasserstein_regularization(0.1),
    "ewc": optim.elastic_weight_consolidation(0.1),
    "mas": optim.memory_aware_synapses(0.1),
    "a_gem": optim.a_gem(),
}


@pytest.mark.parametrize("name", BEFORE)
def test_what_changes_gradients_comes_before_the_optimiser(net, name):
    """Behind it, it would be added to the weights, without a step size."""
    tx, sgd, params = BEFORE[name], optax.sgd(0.1), net.random(0)

    def update(tx):
        tx = optax.with_extra_args_support(tx)
        return tx.update(params, tx.init(params), params, reference=params)

    decoupled = optax.chain(optax.scale_by_adam(), tx, optax.scale(-0.1))
    for good in (tx, optax.chain(tx, sgd), optax.chain(optax.chain(tx), sgd)):
        jax.eval_shape(lambda good=good: update(good))
    jax.eval_shape(lambda: update(decoupled))
    jax.eval_shape(lambda: update(optax.chain(optim.l2_init(0.1), tx)))
    for bad in (
        optax.chain(optax.adam(0.1), tx),
        optax.chain(sgd, optax.chain(tx)),
        optax.named_chain(("sgd", sgd), ("it", tx)),
        optim.weight_clipping(optax.chain(sgd, tx), kappa=1.0),
    ):
        with pytest.raises(ValueError, match="must come before the optimiser"):
            jax.eval_shape(lambda bad=bad: update(bad))


def test_what_shrinks_weights_is_the_last_link():
    """Adam would normalise it away."""
    noise = {"shrink": 0.9, "key": jax.random.key(0)}
    tx = optim.shrink_and_perturb(optax.identity(), **noise)
    tx, params = optax.chain(tx, optax.adam(0.1)), jnp.ones((2, 2))
    with pytest.raises(ValueError, match=r"come chain\(scale_by_adam, scale\) after"):
        tx.update(params, tx.init(params), params)
