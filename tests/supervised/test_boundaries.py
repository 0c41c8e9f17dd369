"""What transformations are told at the end of a task, and when."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim, streams, supervised
from loplax.supervised import boundaries, losses

pytestmark = pytest.mark.usefixtures("quick_compile")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)).astype(np.float32)
Y = (np.arange(20) % 3).astype(np.int32)
OWN = np.repeat([0, 1], [11, 9])
NETWORK = supervised.stateless(
    lambda key: {"w": jax.random.normal(key, (4, 3))},
    lambda params, x: x @ params["w"],
)
EWC = optim.elastic_weight_consolidation(0.1)


def problem(keepers, tx=EWC, network=NETWORK):
    split = streams.given(OWN, OWN)
    how = {"classes": 3, "steps": 2, "batch": 4, "test_batch": 3}
    stream = streams.sessions((X, Y), (X, Y), split, **how)
    made = supervised.Problem(
        stream, network, losses.cross_entropy, optax.chain(tx, optax.sgd(0.1)), ()
    )
    return made._replace(observe=(), keepers=keepers(made))


def states(made):
    """The state after each of the two sessions, and before."""
    build = lambda *_: made
    state = supervised.init(build, jax.random.key(0), {}, ())
    segment = functools.partial(supervised.segment, build, bins=1, fresh=False)
    run = jax.jit(lambda state: segment(state, ())[0])
    found = [state]
    for _ in range(2):
        found.append(run(found[-1]))
    return found


def ewc(examples, of=boundaries.fisher):
    return lambda made: (
        boundaries.consolidating(made, "ewc", EWC.consolidate, of(made, examples)),
    )


def slopes(w, of):
    """One gradient after the other, in NumPy's precision."""
    grad = jax.grad(of)
    return lambda places: [np.asarray(grad(w, X[i], Y[i]), float) for i in places]


@pytest.mark.parametrize("examples", [0, 6])
def test_importance_is_of_the_task_that_ends(examples):
    before, first, second = states(problem(ewc(examples)))
    assert not before.opt[0].importance["w"].any()
    loss = lambda w, x, y: losses.cross_entropy((x @ w)[None], y[None])[0]
    total = 0
    for state, places in ((first, np.arange(11)), (second, np.arange(11, 20))):
        places = places[:examples] if examples else places
        w = state.params["w"]
        total = total + np.mean(np.square(slopes(w, loss)(places)), axis=0)
        found = state.opt[0].importance["w"]
        np.testing.assert_allclose(found, total, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(first.opt[0].anchor["w"], first.params["w"])


def test_sensitivity_is_of_the_outputs():
    _, first, _ = states(problem(ewc(0, boundaries.sensitivity)))
    square = lambda w, x, y: jnp.sum(jnp.square(x @ w))
    found = np.abs(slopes(first.params["w"], square)(range(11))).mean(axis=0)
    np.testing.assert_allclose(first.opt[0].importance["w"], found, rtol=1e-4)


def test_what_needs_no_importance_is_told_as_well():
    tx = optim.synaptic_intelligence(optax.sgd(0.1), strength=0.1)
    made = problem(lambda made: (boundaries.consolidating(made, "si", tx.consolidate),))
    before, first, _ = states(made._replace(tx=tx))
    assert not before.opt.importance["w"].any() and first.opt.importance["w"].any()
    np.testing.assert_array_equal(first.opt.anchor["w"], first.params["w"])
    assert not first.opt.path["w"].any()


def test_what_cannot_be_is_refused():
    alone = NETWORK._replace(per_example=False)
    with pytest.raises(ValueError, match="statistics of a batch"):
        problem(ewc(0), network=alone)
    made = problem(lambda made: ())
    for field, part in (("task_ends", "no task_ends"), ("session", "no session")):
        lacking = made._replace(stream=made.stream._replace(**{field: None}))
        with pytest.raises(ValueError, match=part):
            ewc(0)(lacking)
