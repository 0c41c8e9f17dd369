"""What happens where tasks begin and end, against plain Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim, streams, supervised
from loplax.supervised import losses, tasks
from loplax.supervised.problem import Network, Problem

pytestmark = pytest.mark.usefixtures("quick_compile")

rng = np.random.default_rng(1)
INPUTS, LABELS = rng.normal(size=(48, 4)).astype(np.float32), rng.integers(0, 3, 48)
HELD_OUT = np.arange(30, 48).reshape(3, 6)
EPOCHS, TASKS = 4, 5  # an epoch has two chunks of five examples
ONE_CHUNK = {"bins": 1, "chunks": 1, "fresh": False}


def chunk_number(position):
    return position // 5 - 1


def labels_of(position, items):
    """Every task names the classes differently."""
    return (jnp.asarray(LABELS)[items] + chunk_number(position) // (2 * EPOCHS)) % 3


def rows(position, items):
    return jnp.asarray(INPUTS)[items], labels_of(position, items)


STREAM = streams.Stream(
    init=lambda key: jnp.int32(0),
    draw=lambda position: (position + 5, (position + jnp.arange(5)) % 30),
    example=rows,
    probe=lambda position: rows(position, jnp.arange(4)),
    chunk=5,
    task=lambda position: chunk_number(position) // (2 * EPOCHS),
    validation=streams.HeldOut(
        lambda position, i: (*rows(position, jnp.asarray(HELD_OUT)[i]), jnp.ones(6)), 3
    ),
    epoch_ends=lambda position: chunk_number(position) % 2 == 1,
    task_ends=lambda position: chunk_number(position) % (2 * EPOCHS) == 2 * EPOCHS - 1,
)


def init(key):
    key_w, key_v = jax.random.split(key)
    head = {"kernel": jax.random.normal(key_v, (5, 3)), "bias": jnp.ones(3)}
    return {"w": jax.random.normal(key_w, (4, 5)), "top": {"output": head}}, jnp.zeros(
        5
    )


def predict(params, mean, x):
    head = params["top"]["output"]
    return jnp.tanh(x @ params["w"] - mean) @ head["kernel"] + head["bias"]


def apply(params, mean, x):
    mean = 0.9 * mean + 0.1 * x @ params["w"]
    return predict(params, mean, x), mean


NETWORK = Network(init, apply, predict)


def build(hparams, key, data, **changes):
    del key, data
    problem = Problem(
        stream=STREAM,
        network=NETWORK,
        loss=losses.cross_entropy,
        tx=optax.with_extra_args_support(optax.sgd(hparams["learning_rate"], 0.9)),
        groups=(),
        measures={"accuracy": losses.accuracy},
        observe=(),
    )
    return problem._replace(**changes)


def problem(**changes):
    return build({"learning_rate": 0.1}, None, None, **changes)


def stopping(hparams, key, data):
    problem = build(hparams, key, data)
    return problem._replace(keepers=(tasks.early_stopping(problem),))


@functools.cache
def started():
    """A state after some steps: its parameters, statistics, momentum have moved."""

    def run(key, hparams):
        state = supervised.init(build, key, hparams)
        return supervised.segment(build, state, **ONE_CHUNK)[0]

    return jax.jit(run)(jax.random.key(0), {"learning_rate": 0.3})


def numbers(tree):
    real = lambda x: not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(
        lambda x: np.asarray(x if real(x) else jax.random.key_data(x)), tree
    )


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, numbers(found), numbers(expected))


@pytest.mark.parametrize("head", ["output", "top/output", "top"])
@pytest.mark.parametrize("zero", [True, False])
def test_a_new_head_leaves_all_else_as_it_is(head, zero):
    """Named by any part of its path; the optimiser keeps what it knows."""
    state, key = started(), jax.random.key(1)
    new = tasks.reset_head(problem(head=head), zero=zero)(state, key)
    expected = NETWORK.init(key)[0]["top"]
    if zero:
        expected = jax.tree.map(np.zeros_like, expected)
    assert_same(new.params["top"], expected)
    params = state.params | {"top": new.params["top"]}
    assert_same(new, state._replace(params=params))
    assert np.all(np.abs(state.params["top"]["output"]["kernel"]) > 0)


def test_an_unknown_head_is_refused():
    for head in ("out", "outputs", "kernel/output", ""):
        with pytest.raises(ValueError, match="'top/output/kernel'"):
            tasks.reset_head(problem(head=head), zero=True)


def test_everything_starts_again():
    """But not what diagnostics and streams remember, nor the time of a schedule."""
    key, tx = jax.random.key(1), optax.adam(lambda count: 0.1 / count)
    params, stats = NETWORK.init(key)
    adam, schedule = jax.tree.map(lambda x: x + 3, tx.init(params))
    state = started()._replace(opt=(adam, schedule))
    new = tasks.reset_all(problem(tx=tx))(state, key)
    opt = tx.init(params)[0], schedule
    assert_same(new, state._replace(params=params, stats=stats, opt=opt))
    assert int(schedule.count) == 3
    assert np.any(np.asarray(new.params["w"]) != np.asarray(state.initial["w"]))


def validation_accuracy(state):
    params, mean = numbers((state.params, state.stats))
    outputs, head = np.tanh(INPUTS[HELD_OUT] @ params["w"] - mean), params["top"]
    logits = outputs @ head["output"]["kernel"] + head["output"]["bias"]
    labels = (LABELS[HELD_OUT] + int(chunk_number(state.stream)) // (2 * EPOCHS)) % 3
    return np.mean(np.argmax(logits, axis=-1) == labels)


def test_early_stopping_ends_tasks_with_the_weights_of_the_best_epoch():
    """The first of the best, statistics included, but not the optimiser's state."""
    hparams = {"learning_rate": jnp.float32(0.3)}
    state, plain = (
        jax.jit(functools.partial(supervised.init, each))(jax.random.key(0), hparams)
        for each in (stopping, build)
    )
    kept, every, states = None, [], [state]
    stop, go = (
        jax.jit(functools.partial(supervised.segment, each, **ONE_CHUNK))
        for each in (stopping, build)
    )
    for chunk in range(TASKS * EPOCHS * 2):
        (state, _), (plain, _) = stop(state), go(plain)
        if chunk % 2 == 1:
            accuracy = validation_accuracy(plain)
            if kept is None or accuracy > kept[0]:
                kept = accuracy, plain.params, plain.stats
            every.append(accuracy)
        if (chunk + 1) % (2 * EPOCHS) == 0:
            plain = plain._replace(params=kept[1], stats=kept[2])
            kept = None
        assert_same(state._replace(memory={}), plain)
        states.append(state)
    accuracies = np.reshape(every, (TASKS, EPOCHS))
    best = accuracies.max(axis=1)
    # It is a test: tasks end worse than at their best, and the best do not only grow.
    assert np.sum(best > accuracies[:, -1]) >= 2
    assert np.any(np.diff(best) < 0)
    # Side by side, epochs may end at different chunks.
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    before = jax.tree.map(lambda leaf: leaf[:-1], states)
    after = jax.tree.map(lambda leaf: leaf[1:], states)
    many = jax.vmap(functools.partial(supervised.segment, stopping, **ONE_CHUNK))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, numbers(jax.jit(many)(before)[0]), numbers(after))


def test_early_stopping_needs_something_to_stop_by():
    stream = streams.slowly_changing_regression()
    problem = Problem(stream, None, None, None, ())
    with pytest.raises(ValueError, match="validation.*accuracy"):
        tasks.early_stopping(problem)


def test_only_the_optimiser_starts_again_with_a_session():
    """What stands around it remembers, and draws on."""
    inner = optim.restartable(optax.adam(0.1))
    tx = optax.with_extra_args_support(
        optax.chain(inner, optax.scale_by_schedule(lambda count: 1.0))
    )
    state = started()._replace(opt=None)
    opt = jax.tree.map(lambda x: x + 3, tx.init(state.params))
    new = tasks.reset_optimizer(problem(tx=tx))(state._replace(opt=opt), None).opt
    assert_same(new, (inner.init(state.params), opt[1]))
