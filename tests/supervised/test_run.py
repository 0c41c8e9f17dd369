"""The supervised learner, against NumPy, against itself, and with any kind of model."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import streams, supervised, units
from loplax.supervised import tasks
from loplax.supervised.problem import Keeper, Network, Problem, TrainState, stateless

pytestmark = pytest.mark.usefixtures("quick_compile")

rng = np.random.default_rng(0)
DATA = rng.normal(size=(64, 6)).astype(np.float32), rng.normal(size=64, scale=2)
RATE, STILL = ({"learning_rate": jnp.float32(rate)} for rate in (0.05, 0))
CONTROL = {"loss_first", "loss_fresh"}  # of a segment, whatever its length


def make_stream(data):
    """Rows of a table, 8 to a chunk; targets change their sign every 3 chunks.

    Four rows at a time are held out, of which the first four do not count.
    """
    table, targets = (jnp.asarray(array, jnp.float32) for array in data)
    task = lambda position: (position - 8) // 24
    sign = lambda position: 1 - 2.0 * (task(position) % 2)
    rows = lambda position, items: (table[items], sign(position) * targets[items])
    four = lambda i: 4 * i + jnp.arange(4)
    return streams.Stream(
        init=lambda key: jnp.int32(0),
        draw=lambda position: (position + 8, (position + jnp.arange(8)) % 64),
        example=rows,
        probe=lambda position: rows(position, (2 * position + jnp.arange(16)) % 64),
        chunk=8,
        task=task,
        test=streams.HeldOut(
            lambda position, i: (*rows(position, four(i)), jnp.full(4, i > 0) * 1.0), 3
        ),
    )


def in_batches(stream, size):
    """The same stream in minibatches."""

    def draw(state):
        state, items = stream.draw(state)
        return state, items.reshape(-1, size)

    return stream._replace(draw=draw, chunk=stream.chunk // size)


def init_net(key):
    drawn = jax.random.normal(key, (7, 4))
    return {"w": 0.5 * drawn[:6], "b": jnp.zeros(4), "v": drawn[6]}


def apply(params, x):
    return jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]


def squared(output, target):
    return jnp.square(output - target)


def sgd(hparams, key):
    del key
    return optax.with_extra_args_support(optax.sgd(hparams["learning_rate"]))


STREAM = make_stream(DATA)._replace(test=None)
NETWORK = stateless(init_net, apply)


def builder(make_tx=sgd, network=NETWORK, **changes):
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    groups = units.find(network.apply, *shapes, jnp.zeros(6), has_aux=True)
    fields = {"stream": STREAM, "network": network, "loss": squared, "groups": groups}
    fields |= {"observe": ()} | changes

    def build(hparams, key, data):
        made = Problem(tx=make_tx(hparams, key), **fields)
        return made._replace(stream=make_stream(data)) if data else made

    return build


BUILD = builder()
PROBLEM = BUILD(RATE, jax.random.key(0), ())
OBSERVED = builder(observe=("weights", "features", "step"))


@functools.cache
def programs(build):
    """How a run starts, and how it learns from its next chunk."""

    def chunk(state, data):
        problem = build(state.hparams, state.key_tx, data)
        stream, items = problem.stream.draw(state.stream)
        before = state._replace(stream=stream)
        after, found = supervised.learn(problem, before, items)
        return after, (before, items, found["loss"])

    return jax.jit(functools.partial(supervised.init, build)), jax.jit(chunk)


def start(build, seed=0, hparams=RATE, data=()):
    return programs(build)[0](jax.random.key(seed), hparams, data)


def chunks_of(build, state, number, data=()):
    """Learns chunk by chunk; the state and items before each, and the losses."""
    every = []
    for _ in range(number):
        state, chunk = programs(build)[1](state, data)
        every.append(chunk)
    return state, every


@functools.cache
def segments(build, bins, chunks, **options):
    """``(state, data) -> (state, metrics)``."""
    options |= {"bins": bins, "chunks": chunks}
    segment = jax.jit(functools.partial(supervised.segment, build, **options))
    return lambda state, data=(): segment(state, data)


def numbers(tree):
    """A tree as NumPy arrays, random keys as the integers that they are."""
    real = lambda x: not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(
        lambda x: np.asarray(x if real(x) else jax.random.key_data(x)), tree
    )


def assert_close(found, expected, rtol=1e-4, atol=1e-5):
    close = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree.map(close, numbers(found), numbers(expected))


@pytest.mark.parametrize("size", [None, 4])
def test_learn_is_stochastic_gradient_descent(size):
    """Each loss is that of the weights before the step; NumPy takes the same steps."""
    build = builder(stream=in_batches(STREAM, size)) if size else BUILD
    end, ((state, items, losses),) = chunks_of(build, start(build), 1)
    w, b, v = (np.asarray(state.params[name], float) for name in "wbv")
    assert len(losses) == 8 // (size or 1)
    for rows, loss in zip(items.reshape(len(losses), -1), losses, strict=True):
        x, y = DATA[0][rows], DATA[1][rows]
        h = np.tanh(x @ w + b)
        error = h @ v - y
        np.testing.assert_allclose(loss, np.mean(error**2), rtol=1e-4, atol=1e-6)
        through = 2 * error[:, None] * v * (1 - h**2) / len(x)
        v = v - 0.05 * 2 * error @ h / len(x)
        w, b = w - 0.05 * x.T @ through, b - 0.05 * through.sum(axis=0)
    assert_close(end.params, {"w": w, "b": b, "v": v})
    assert np.ptp(losses) > 0.1


def test_unrolling_changes_nothing_but_rounding():
    _, ((state, items, losses),) = chunks_of(BUILD, start(BUILD), 1)
    unroll = jax.jit(functools.partial(supervised.learn, PROBLEM, unroll=3))
    assert_close(unroll(state, items)[1]["loss"], losses)


def test_bins_hold_mean_losses_and_at_their_ends_diagnostics_of_what_comes_next():
    problem, state = OBSERVED(RATE, jax.random.key(0), ()), start(BUILD, 1)
    initial = state.params
    end, found = segments(OBSERVED, 3, 2)(state)

    @jax.jit
    def observe(state):
        stream, items = STREAM.draw(state.stream)
        step = lambda state: supervised.step(problem, state, items[0])
        return supervised.observe(problem, state._replace(stream=stream), step)

    for i in range(3):
        before = state.params
        state, every = chunks_of(BUILD, state, 2)
        losses = np.concatenate([losses for _, _, losses in every])
        np.testing.assert_allclose(found["loss"][i], losses.mean(), rtol=1e-4)
        observed = observe(state)
        others = {"loss", "task", "weight_change", *CONTROL}
        assert observed.keys() | others == found.keys()
        assert_close({name: found[name][i] for name in observed}, observed)
        moved = jax.tree.map(lambda a, b: np.abs(a - b).sum(), state.params, before)
        np.testing.assert_allclose(
            found["weight_change"][i], sum(jax.tree.leaves(moved)), rtol=1e-4
        )
    assert_close(end.params, state.params)
    assert_close(end.initial, initial)
    assert all(values.shape == (3,) for values in found.values())


def test_without_hidden_layers_only_weights_are_observed():
    init = lambda key: {"w": jax.random.normal(key, (6,))}
    linear = stateless(init, lambda params, x: x @ params["w"])
    build = builder(network=linear, observe=("weights", "features"))
    _, found = segments(build, 2, 1, fresh=False)(start(build))
    observed = {"weight_magnitude", "distance_from_init"}
    assert found.keys() == {"loss", "task", "weight_change"} | observed


def test_other_measures_are_reported_beside_the_loss():
    """They do not change what is learned."""
    measures = {"error": lambda output, target: jnp.abs(output - target)}
    end, found = segments(builder(measures=measures), 1, 1)(start(BUILD))
    expected, ((_, _, losses),) = chunks_of(BUILD, start(BUILD), 1)
    np.testing.assert_allclose(found["error"], [np.mean(np.sqrt(losses))], rtol=1e-4)
    assert {"error_first", "error_fresh"} <= found.keys()
    assert_close(end.params, expected.params)


def test_control_is_a_fresh_network_on_the_first_chunk():
    """Its loss is what a run starting anew has there, with a key of its own."""
    before, _ = segments(BUILD, 2, 2)(start(BUILD, 4))
    after, found = segments(BUILD, 2, 2)(before)
    _, ((_, items, losses),) = chunks_of(BUILD, before, 1)
    np.testing.assert_allclose(found["loss_first"], np.full(2, losses.mean()), 1e-4)
    fresh = programs(BUILD)[0](jax.random.split(before.key_fresh)[1], RATE, ())
    fresh = fresh._replace(stream=before.stream)
    _, ((_, same, losses),) = chunks_of(BUILD, fresh, 1)
    np.testing.assert_array_equal(items, same)
    np.testing.assert_allclose(found["loss_fresh"], np.full(2, losses.mean()), 1e-4)
    assert not np.allclose(fresh.params["w"], start(BUILD, 4).params["w"])
    # The next segment has another fresh network.
    assert np.any(numbers(after.key_fresh) != numbers(before.key_fresh))


def test_what_the_control_keeps_begins_where_the_stream_is():
    """Such as outputs for what a buffer holds, before the first chunk is drawn."""
    where = Keeper("where", lambda state: jnp.float32(state.stream))
    pull = lambda state, seen: 1e-2 * state.memory["where"] * state.params["b"].sum()
    build = builder(keepers=(where,), objective=pull)
    before, _ = segments(build, 2, 1)(start(build))
    assert int(before.stream) == 16 and before.memory["where"] == 0
    _, found = segments(build, 1, 1)(before)
    fresh = programs(build)[0](jax.random.split(before.key_fresh)[1], RATE, ())
    fresh = fresh._replace(stream=before.stream, memory={"where": jnp.float32(16)})
    _, ((*_, losses),) = chunks_of(build, fresh, 1)
    np.testing.assert_allclose(found["loss_fresh"], [losses.mean()], 1e-4)


def test_control_does_not_depend_on_what_was_learned():
    state = start(BUILD, 5)
    wild = state._replace(params=jax.tree.map(lambda x: 7 * x + 1, state.params))
    (_, one), (_, other) = (segments(BUILD, 2, 2)(s) for s in (state, wild))
    np.testing.assert_array_equal(one["loss_fresh"], other["loss_fresh"])
    assert np.all(one["loss_first"] != other["loss_first"])


def test_other_numbers_need_no_other_program():
    traced = []

    def make_tx(hparams, key):
        traced.append(hparams)
        return sgd(hparams, key)

    build = builder(make_tx)
    _, one = segments(build, 1, 1)(start(build))
    before = len(traced)
    other = {"learning_rate": jnp.float32(0.2)}
    _, other = segments(build, 1, 1)(start(build, hparams=other))
    assert len(traced) == before > 0
    assert one["loss"] != other["loss"]


def test_a_diverging_run_leaves_its_neighbours_alone():
    state = start(BUILD, 7)
    rates = {"learning_rate": jnp.array([0.05, 1e20, 0.05])}
    segment = functools.partial(supervised.segment, OBSERVED, bins=3, chunks=2)
    many = lambda rates: jax.vmap(lambda r: segment(state._replace(hparams=r)))(rates)
    _, found = jax.jit(many)(rates)
    _, alone = segments(OBSERVED, 3, 2)(state)
    assert not np.isfinite(found["loss"][1, -1])
    for i in (0, 2):
        assert_close({name: values[i] for name, values in found.items()}, alone)
        assert all(np.isfinite(values[i]).all() for values in found.values())


class Watched(NamedTuple):
    """What a transformation was given."""

    features: Any


def watching(hparams, key):
    """Keeps the features of the last step."""
    inner = sgd(hparams, key)

    def update(grads, state, params, *, features):
        del state
        updates, _ = inner.update(grads, inner.init(params), params)
        return updates, Watched(features["w"])

    init = lambda params: Watched(jnp.zeros(4))
    return optax.GradientTransformationExtraArgs(init, update)


def test_the_transformation_is_given_the_features_of_the_example():
    """Of the last of the chunk, before the step."""
    build = builder(watching)
    end, ((_, items, _),) = chunks_of(build, start(build, hparams=STILL), 1)
    params = numbers(end.params)
    expected = np.tanh(DATA[0][items[-1]] @ params["w"] + params["b"])
    np.testing.assert_allclose(end.opt.features, expected, rtol=1e-4)


def test_a_problem_may_give_features_of_its_own():
    def forward(params, stats, x):
        return (apply(params, x), stats), {"w": jnp.arange(4.0)}

    build = builder(watching, forward=forward)
    end, _ = chunks_of(build, start(build), 1)
    np.testing.assert_array_equal(end.opt.features, range(4))


# A network with a running mean of its hidden layer.


def init_running(key):
    drawn = jax.random.normal(key, (7, 5))
    return {"w": drawn[:6], "output": {"v": drawn[6]}}, jnp.zeros(5)


def predict_running(params, mean, x):
    return jnp.tanh(x @ params["w"] - mean) @ params["output"]["v"]


def apply_running(params, mean, x):
    mean = 0.9 * mean + 0.1 * x @ params["w"]
    return predict_running(params, mean, x), mean


RUNNING = Network(
    init=init_running,
    apply=apply_running,
    predict=predict_running,
    restart=lambda mean, replaced: jnp.where(replaced["w"], 0.0, mean),
)


class Chosen(NamedTuple):
    """State of a transformation that replaces units."""

    count: jax.Array
    replaced: dict[str, jax.Array]


def replacing(hparams, key):
    """Says to have replaced unit t at step t."""
    inner = sgd(hparams, key)

    def update(grads, state, params, **_):
        updates, _ = inner.update(grads, inner.init(params), params)
        replaced = {"w": jnp.arange(5) == state.count}
        return updates, Chosen(state.count + 1, replaced)

    init = lambda params: Chosen(jnp.int32(0), {"w": jnp.zeros(5, bool)})
    return optax.GradientTransformationExtraArgs(init, update)


@pytest.mark.parametrize("make_tx", [sgd, replacing])
def test_statistics_follow_the_examples_and_restart_with_replaced_units(make_tx):
    build = builder(make_tx, RUNNING)
    end, ((state, items, _),) = chunks_of(build, start(build, hparams=STILL), 1)
    mean, w = np.zeros(5), np.asarray(state.params["w"])
    for step, row in enumerate(items):
        mean = 0.9 * mean + 0.1 * DATA[0][row] @ w
        if make_tx is replacing and step < 5:
            mean[step] = 0
    np.testing.assert_allclose(end.stats, mean, rtol=1e-4, atol=1e-6)


def test_tests_use_the_statistics_at_the_end_of_the_bin():
    """And they leave them alone; the first four rows do not count."""
    build = builder(network=RUNNING)
    state = start(build, data=DATA)
    end, found = segments(build, 1, 2, fresh=False)(state, DATA)
    params, mean = numbers(end.params), numbers(end.stats)
    outputs = np.tanh(DATA[0][4:12] @ params["w"] - mean) @ params["output"]["v"]
    expected = np.mean((outputs - DATA[1][4:12]) ** 2)
    np.testing.assert_allclose(found["test_loss"], [expected], rtol=1e-4)
    assert np.abs(mean).max() > 0.1
    assert_close(end.stats, chunks_of(build, state, 2, DATA)[0].stats)


WEIGHTS = np.array([[1, 0, 2, 1], [0, 0, 0, 0], [0, 3, 1, 0]], np.float32)


def evaluator(log=lambda: None):
    """Evaluates on the batches that are used, bool ``[3]``.

    The losses are 0 to 11, and infinite where there is no weight.
    """
    values = jnp.where(WEIGHTS > 0, jnp.arange(12.0).reshape(3, 4), jnp.inf)
    weights = jnp.asarray(WEIGHTS)

    def predict(params, stats, x):
        jax.debug.callback(log)
        return x

    problem = PROBLEM._replace(
        network=NETWORK._replace(predict=predict),
        loss=lambda outputs, targets: outputs,
        measures={"twice": lambda outputs, targets: 2 * outputs},
    )
    held_out = streams.HeldOut(
        lambda used, i: (values[i], jnp.zeros(4), weights[i] * used[i]), 3
    )
    empty = TrainState(*[()] * len(TrainState._fields))
    return lambda used: supervised.evaluate(
        problem, empty._replace(stream=used), held_out
    )


def test_evaluation_is_a_weighted_mean_that_skips_what_has_no_weight():
    runs = []
    evaluate = jax.jit(evaluator(lambda: runs.append(1)))
    for used in ([True] * 3, [True, True, False]):
        runs.clear()
        found = evaluate(np.array(used))
        weights = WEIGHTS * np.array(used)[:, None]
        expected = np.average(np.arange(12.0).reshape(3, 4), weights=weights)
        np.testing.assert_allclose(found["loss"], expected, rtol=1e-6)
        np.testing.assert_allclose(found["twice"], 2 * expected, rtol=1e-6)
        jax.effects_barrier()
        assert len(runs) == np.any(weights > 0, axis=1).sum()


def test_evaluations_side_by_side_may_use_different_batches():
    used = np.array([[True, True, True], [True, True, False], [False, True, True]])
    together, evaluate = jax.jit(jax.vmap(evaluator()))(used), jax.jit(evaluator())
    alone = [evaluate(each) for each in used]
    for name, values in together.items():
        np.testing.assert_allclose(values, [each[name] for each in alone], rtol=1e-6)
    assert np.isfinite(together["loss"]).all()


def test_on_task_acts_before_every_task_but_the_first():
    """Without learning, the outputs are 0 from the second task on."""
    init = lambda key: (init_net(key), {"tasks": 0, "drawn": jnp.float32(0)})

    def on_task(state, key):
        stats = {"tasks": state.stats["tasks"] + 1, "drawn": jax.random.uniform(key)}
        params = jax.tree.map(jnp.zeros_like, state.params)
        return state._replace(params=params, stats=stats)

    build = builder(network=NETWORK._replace(init=init), on_task=(on_task,))
    states, counts, drawn = [start(build, hparams=STILL)], [], []
    for chunk in range(9):
        state, found = segments(build, 1, 1, fresh=False)(states[-1])
        states.append(state)
        counts.append(int(state.stats["tasks"]))
        drawn.append(float(state.stats["drawn"]))
        targets = DATA[1][(8 * chunk + np.arange(8)) % 64]
        zero = np.isclose(found["loss"][0], np.mean(targets**2), rtol=1e-5)
        assert zero == (chunk >= 3)
    assert counts == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert drawn == [drawn[i] for i in (0, 0, 0, 3, 3, 3, 6, 6, 6)]
    assert len(set(drawn)) == 3
    # Side by side, tasks may begin at different chunks.
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    before = jax.tree.map(lambda leaf: leaf[:-1], states)
    segment = functools.partial(
        supervised.segment, build, bins=1, chunks=1, fresh=False
    )
    after, _ = jax.jit(jax.vmap(segment))(before)
    assert_close(after, jax.tree.map(lambda leaf: leaf[1:], states))


def test_a_keeper_acts_after_every_chunk_on_what_was_learned():
    """This one keeps the parameters after every chunk, and halves them."""
    halve = functools.partial(jax.tree.map, lambda x: x / 2)
    keeper = Keeper(
        name="every",
        init=lambda state: [state.params] * 3,
        on_chunk=lambda state: state._replace(
            memory={"every": [*state.memory["every"][1:], state.params]},
            params=halve(state.params),
        ),
    )
    build, first = builder(keepers=(keeper,)), start(BUILD)
    end, _ = segments(build, 1, 2, fresh=False)(start(build))
    one, _ = chunks_of(BUILD, first, 1)
    two, _ = chunks_of(BUILD, one._replace(params=halve(one.params)), 1)
    assert_close(end.memory["every"], [first.params, one.params, two.params])
    assert_close(end.params, halve(two.params))


def noisy(hparams, key):
    return optax.chain(optax.add_noise(0.01, 0.5, key), sgd(hparams, None))


def towards_the_mean():
    """A keeper that moves the parameters halfway to those that it keeps."""

    def on_chunk(state):
        kept = state.memory["mean"]
        mean = jax.tree.map(lambda a, b: (a + b) / 2, state.params, kept)
        return state._replace(params=mean, memory={"mean": mean})

    return Keeper("mean", lambda state: state.params, on_chunk=on_chunk)


# All at once: noise, statistics, a new head at new tasks, a keeper, tests.
LIVELY = builder(
    noisy,
    RUNNING,
    on_task=(tasks.reset_head(PROBLEM._replace(network=RUNNING), zero=False),),
    keepers=(towards_the_mean(),),
    observe=("weights",),
)


def test_one_long_segment_equals_two_short_ones():
    """Over the beginnings of two tasks; but for the control of each segment."""
    half, first = segments(LIVELY, 2, 2)(start(LIVELY, 3, data=DATA), DATA)
    half, second = segments(LIVELY, 2, 2)(half, DATA)
    whole, long = segments(LIVELY, 4, 2, fresh=False)(start(LIVELY, 3, data=DATA), DATA)
    assert_close(whole._replace(key_fresh=half.key_fresh), half)
    observed = {"weight_magnitude", "distance_from_init"}
    assert long.keys() == {"loss", "task", "test_loss", "weight_change"} | observed
    assert first.keys() == long.keys() | CONTROL
    for name in long:
        both = np.concatenate([first[name], second[name]])
        np.testing.assert_allclose(long[name], both, rtol=1e-4, atol=1e-5)


def test_runs_side_by_side_equal_runs_one_by_one():
    """Over keys and settings."""
    rates = {"learning_rate": np.float32([0.01, 0.05, 0.1])}
    keys = jax.random.split(jax.random.key(6), 3)

    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def run(key, hparams, data):
        state = supervised.init(LIVELY, key, hparams, data)
        return supervised.segment(LIVELY, state, data, bins=2, chunks=2)

    together = numbers(jax.jit(run)(keys, rates, DATA))
    assert np.unique(together[1]["loss"], axis=0).shape == (3, 2)
    for i, rate in enumerate(rates["learning_rate"]):
        state = programs(LIVELY)[0](keys[i], {"learning_rate": rate}, DATA)
        alone = segments(LIVELY, 2, 2)(state, DATA)
        assert_close(jax.tree.map(lambda x, i=i: x[i], together), alone)


def test_an_equinox_model_learns():
    equinox = pytest.importorskip("equinox")
    make = lambda key: equinox.nn.MLP(6, "scalar", 5, 1, key=key)
    static = equinox.partition(make(jax.random.key(0)), equinox.is_array)[1]
    network = stateless(
        lambda key: equinox.filter(make(key), equinox.is_array),
        lambda params, x: _map(equinox.combine(params, static), x),
    )
    build = builder(network=network, observe=("weights", "features"))
    _, found = segments(build, 2, 50, fresh=False)(start(build))
    assert [g.size for g in build(RATE, jax.random.key(0), ()).groups] == [5]
    assert all(np.isfinite(values).all() for values in found.values())
    assert np.all(found["distance_from_init"] > 0)


def _map(model, x):
    """Equinox models take one example at a time."""
    return model(x) if x.ndim == 1 else jax.vmap(model)(x)
