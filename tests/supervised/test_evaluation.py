"""What is measured when, and of which examples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from loplax import streams, supervised
from loplax.studies import results, sweep
from loplax.supervised.problem import Keeper, Problem, TrainState, stateless

pytestmark = pytest.mark.usefixtures("quick_compile")

rng = np.random.default_rng(4)
INPUTS = rng.normal(size=(64, 3)).astype(np.float32)
TARGETS = rng.normal(size=64).astype(np.float32)
SUBSETS = ("old", "new", "all")
PER_TASK = 24  # items
TESTED = np.arange(40, 64)  # eight rows for each of three tasks


def make_stream(chunk, test=True):
    """Rows of a table, all but the last; the sign changes from task to task."""
    task = lambda position: (position - chunk) // PER_TASK
    sign = lambda position: 1 - 2.0 * (task(position) % 2)
    rows = lambda position, items: (
        jnp.asarray(INPUTS)[items],
        sign(position) * jnp.asarray(TARGETS)[items],
    )

    def tested(position, i):
        """A batch per task: nothing is old in the first, nothing new in the others."""
        now = task(position)
        belongs = jnp.stack([i < now, i == now, i <= now]).astype(jnp.float32)
        inputs, targets = rows(position, jnp.asarray(TESTED).reshape(3, 8)[i])
        return inputs, targets, jnp.broadcast_to(belongs, (8, 3))

    return streams.Stream(
        init=lambda key: jnp.int32(0),
        draw=lambda position: (
            position + chunk,
            1 + (position + jnp.arange(chunk)) % 39,
        ),
        example=rows,
        probe=lambda position: rows(position, jnp.arange(4)),
        chunk=chunk,
        task=task,
        test=streams.HeldOut(tested, 3, SUBSETS) if test else None,
    )


NETWORK = stateless(
    lambda key: {"w": jax.random.normal(key, (3,))}, lambda p, x: x @ p["w"]
)


def squared(output, target):
    return jnp.square(output - target)


def to_zero(state, key):
    return state._replace(params=jax.tree.map(jnp.zeros_like, state.params))


def builder(chunk=8, **changes):
    fields = {
        "stream": make_stream(chunk),
        "network": NETWORK,
        "loss": squared,
        "tx": optax.with_extra_args_support(optax.sgd(0.05, 0.9)),
        "groups": (),
        "observe": (),
        "on_task": (to_zero,),
        "test_starts": True,
    }
    problem = Problem(**(fields | changes))
    return lambda hparams, key, data: problem


BUILD = builder()


@functools.cache
def segments(build, **options):
    options = {"fresh": False} | options
    return jax.jit(functools.partial(supervised.segment, build, **options))


@functools.cache
def start(build=BUILD):
    return jax.jit(functools.partial(supervised.init, build))(jax.random.key(1), {})


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], 1e-4, 1e-5, err_msg=name)


def evaluator(batches, subsets):
    """Evaluates with the weights that it is given, ``[batches, 4, *subsets]``."""
    values = jnp.arange(4.0 * batches).reshape(batches, 4)
    problem = BUILD({}, None, ())._replace(
        network=NETWORK._replace(predict=lambda params, stats, x: x),
        loss=lambda outputs, targets: outputs,
    )
    batch = lambda weights, i: (values[i], jnp.zeros(4), weights[i])
    held_out = streams.HeldOut(batch, batches, subsets)
    empty = TrainState(*[()] * len(TrainState._fields))
    return jax.jit(
        lambda weights: supervised.evaluate(
            problem, empty._replace(stream=weights), held_out
        )["loss"]
    )


APART, ALONE = evaluator(3, SUBSETS), evaluator(3, ())


@given(hnp.arrays(np.float32, (3, 4, 3), elements=st.sampled_from([0, 1, 2.5])))
def test_subsets_are_measured_as_each_would_be_alone(weights):
    """And one without examples has no value; they may overlap."""
    expected = [ALONE(weights[..., i]) for i in range(3)]
    np.testing.assert_allclose(APART(weights), expected, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(expected), weights.sum((0, 1)) == 0)


@pytest.mark.parametrize(
    ("subsets", "shape"), [((), (3, 4, 2)), (SUBSETS, (3, 4)), (SUBSETS, (3, 4, 2))]
)
def test_there_are_as_many_weights_as_subsets(subsets, shape):
    with pytest.raises(ValueError, match="weights must be"):
        evaluator(3, subsets)(np.ones(shape))


def test_bins_know_their_task_and_what_was_tested_when_it_began():
    """Tasks of three chunks in bins of two; from the second on they begin at 0."""
    end, found = segments(BUILD, bins=4, chunks=2)(start())
    np.testing.assert_array_equal(found["task"], [0, 1, 1, 2])
    w = np.asarray(start().params["w"])
    sign = lambda task: 1 - 2 * (task % 2)

    def losses(w, task):
        errors = INPUTS[TESTED] @ w - sign(task) * TARGETS[TESTED]
        each = np.mean(errors.reshape(3, 8) ** 2, axis=1)
        old = each[:task].mean() if task else np.nan
        return old, each[task], each[: task + 1].mean()

    none = [np.nan] * 3
    expected = [losses(w, 0), losses(0 * w, 1), none, losses(0 * w, 2)]
    np.testing.assert_allclose(found["test_loss_start"], expected, rtol=1e-5)
    np.testing.assert_allclose(
        found["test_loss"][-1], losses(np.asarray(end.params["w"]), 2), rtol=1e-4
    )


def test_a_bin_with_several_tasks_has_the_start_of_its_last():
    _, found = segments(BUILD, bins=1, chunks=5)(start())
    _, each = segments(BUILD, bins=5, chunks=1)(start())
    expected = each["test_loss_start"][3]
    np.testing.assert_allclose(found["test_loss_start"][0], expected, rtol=1e-5)
    np.testing.assert_array_equal(found["task"], [1])


def test_nothing_is_tested_at_starts_unless_asked_for():
    _, found = segments(builder(test_starts=False), bins=1, chunks=1)(start())
    assert found.keys() == {"loss", "task", "test_loss", "weight_change"}


def test_bins_of_a_chunk_are_as_if_the_stream_drew_so_few_at_a_time():
    """Down to single steps, with the diagnostics of the item that comes next."""
    whole, small = (builder(size, observe=("weights", "step")) for size in (8, 1))
    end, found = segments(whole, bins=32, bins_per_chunk=8)(start(whole))
    same, expected = segments(small, bins=32)(start(small))
    assert_close(found, expected)
    np.testing.assert_allclose(end.params["w"], same.params["w"], rtol=1e-5)
    assert found["test_loss"].shape == (32, 3)
    starts = np.isfinite(found["test_loss_start"][:, 2])
    np.testing.assert_array_equal(np.flatnonzero(starts), [0, 24])


def halving():
    """Counts the steps, and halves the weights after every chunk."""

    def on_step(state, seen):
        return state._replace(memory={"steps": state.memory["steps"] + 1})

    def on_chunk(state):
        half = jax.tree.map(lambda x: x / 2, state.params)
        return state._replace(params=half)

    return Keeper("steps", lambda state: jnp.int32(0), on_step, on_chunk)


def test_how_a_chunk_is_divided_changes_nothing_that_is_learned():
    """Not what happens once per chunk either, nor the control; in runs out of step."""
    build = builder(keepers=(halving(),), observe=("weights",))
    states = [start(build)]
    for _ in range(3):
        states.append(segments(build, bins=1, chunks=1)(states[-1])[0])
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    run = lambda **options: jax.jit(
        jax.vmap(functools.partial(supervised.segment, build, **options))
    )(states)
    end, found = run(bins=2, chunks=1)
    same, apart = run(bins=8, bins_per_chunk=4)
    np.testing.assert_allclose(end.params["w"], same.params["w"], rtol=1e-5)
    np.testing.assert_array_equal(same.memory["steps"], 16 + 8 * np.arange(4))
    in_chunks = lambda values: np.reshape(values, (4, 2, 4, *values.shape[2:]))
    for name in ("test_loss", "weight_magnitude", "task"):
        last = in_chunks(apart[name])[:, :, -1]
        np.testing.assert_allclose(last, found[name], rtol=1e-4, err_msg=name)
    begun = in_chunks(apart["test_loss_start"])
    np.testing.assert_allclose(begun[:, :, 0], found["test_loss_start"], rtol=1e-5)
    assert np.isnan(begun[:, :, 1:]).all()
    np.testing.assert_allclose(
        in_chunks(apart["loss"]).mean(axis=2), found["loss"], rtol=1e-4
    )


def test_the_control_learns_whole_chunks():
    _, found = segments(BUILD, bins=2, chunks=1, fresh=True)(start())
    _, apart = segments(BUILD, bins=8, bins_per_chunk=4, fresh=True)(start())
    for name in ("loss_first", "loss_fresh"):
        np.testing.assert_allclose(apart[name], np.repeat(found[name], 4), rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"bins": 0}, "bins must be"),
        ({"bins": 1, "chunks": 1.5}, "chunks must be a whole number"),
        ({"bins": 2, "bins_per_chunk": 0}, "bins_per_chunk must be"),
        ({"bins": 3, "bins_per_chunk": 3}, "divide the 8 items"),
        ({"bins": 3, "bins_per_chunk": 2}, "and the 3 bins"),
        ({"bins": 2, "bins_per_chunk": 2, "chunks": 2}, "chunks must be 1, got 2"),
    ],
)
def test_bins_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        supervised.segment(BUILD, start(), **sizes)


@pytest.mark.parametrize("drawn", [7, 9])
def test_a_chunk_of_another_length_than_the_stream_says_is_refused(drawn):
    draw = lambda state: (state, {"x": jnp.zeros([8, 2]), "y": jnp.zeros([drawn])})

    def build(hparams, key, data):
        problem = BUILD(hparams, key, data)
        return problem._replace(stream=problem.stream._replace(draw=draw))

    with pytest.raises(ValueError, match=rf"chunk is 8, but .* shape \({drawn},\)"):
        jax.eval_shape(functools.partial(supervised.segment, build, bins=2), start())


def averaging():
    """A mean of the weights, tested in their place."""

    def on_step(state, seen):
        middle = lambda mean, w: 0.9 * mean + 0.1 * w
        mean = jax.tree.map(middle, state.memory["mean"], state.params)
        return state._replace(memory={"mean": mean})

    return {
        "keepers": (Keeper("mean", lambda state: state.params, on_step),),
        "evaluated": {"test": lambda state: (state.memory["mean"], state.stats)},
    }


def test_every_update_of_a_study_is_tested_on_every_subset(tmp_path):
    """Two methods, of which one averages, in two settings, from sweep to results."""

    def method(**changes):
        def build(hparams, key, data):
            tx = optax.with_extra_args_support(optax.sgd(hparams["learning_rate"]))
            return builder(**changes)({}, None, ())._replace(tx=tx)

        segment = functools.partial(
            supervised.segment, build, bins=16, bins_per_chunk=8, fresh=False
        )
        init = functools.partial(supervised.init, build)
        learner = sweep.Learner(init, segment, SUBSETS)
        return sweep.Method(learner, {"learning_rate": 0.01})

    sweep.run(
        tmp_path,
        {"plain": method(), "averaged": method(**averaging())},
        key=jax.random.key(0),
        num_seeds=2,
        num_segments=2,
        steps_per_segment=16,
        settings={"learning_rate": [0.0, 0.01]},
        progress=False,
    )
    found = results.load(tmp_path)
    assert found["test_loss"].dims == ("arm", "seed", "bin", "subset")
    assert found["loss"].dims == found["task"].dims == ("arm", "seed", "bin")
    assert found["subset"].values.tolist() == list(SUBSETS)
    np.testing.assert_array_equal(found["step"], 1 + np.arange(32))
    # Tasks of 24 updates; the first has nothing old.
    np.testing.assert_array_equal(found["task"][0, 0], np.arange(32) // 24)
    old = found["test_loss"].sel(subset="old")
    np.testing.assert_array_equal(np.isnan(old[0, 0]), np.arange(32) < 24)
    starts = found["test_loss_start"].sel(subset="new").notnull()
    np.testing.assert_array_equal(np.flatnonzero(starts[0, 0]), [0, 24])
    everything = found["test_loss"].sel(subset="all")
    still, moving = (
        everything.isel(arm=found["learning_rate"].values == rate)
        for rate in (0.0, 0.01)
    )
    # Without learning, weights and their mean are alike until they become 0.
    np.testing.assert_allclose(still[0, :, :24], still[1, :, :24], rtol=1e-5)
    assert np.all(np.abs(still[0, :, 24:] - still[1, :, 24:]) > 1e-4)
    assert np.all(np.ptp(moving.values[:, :, :24], axis=2) > 0)
