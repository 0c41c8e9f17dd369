"""The supervised learner, against NumPy, against itself, and with any kind of model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import metrics, streams, train, units

pytestmark = pytest.mark.usefixtures("quick_compile")

STREAM = streams.slowly_changing_regression(6, 2, period=8, units=20)
RATE = {"learning_rate": jnp.float32(0.05)}
CONTROL = ("loss_fresh", "loss_last")  # of a segment's end, whatever its length


def init_net(key):
    key_w, key_v = jax.random.split(key)
    w, v = 0.5 * jax.random.normal(key_w, (6, 4)), jax.random.normal(key_v, (4,))
    return {"w": w, "b": jnp.zeros(4), "v": v}


def apply(params, x):
    return jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]


def squared(output, target):
    return jnp.square(output - target)


def sgd(hparams, key):
    del key
    return optax.with_extra_args_support(optax.sgd(hparams["learning_rate"]))


def noisy(hparams, key):
    return optax.chain(optax.add_noise(0.01, 0.5, key), sgd(hparams, None))


def problem(**changes):
    model = changes.get("apply", apply)
    params = jax.eval_shape(changes.get("init", init_net), jax.random.key(0))
    groups = units.find(model, params, jnp.zeros(6))
    fields = {"stream": STREAM, "init": init_net, "apply": apply, "loss": squared}
    return train.Problem(**(fields | {"make_tx": sgd, "groups": groups} | changes))


PROBLEM = problem()


def run(problem, bins, chunks, lengths=(1,), **options):
    """``(key, hparams) -> [(state, metrics), ...]``, for segments on end."""
    segment = functools.partial(train.segment, problem, chunks=chunks, **options)

    @jax.jit
    def run(key, hparams):
        state, found = train.init(problem, key, hparams), []
        for length in lengths:
            state, values = segment(state, bins=bins * length)
            found.append((state, values))
        return found

    return run


def chunks_of(problem, state, number):
    """Learns chunk by chunk; the state and items before each, and the losses."""
    step = jax.jit(lambda state, items: train.learn(problem, state, items))
    draw, every = jax.jit(problem.stream.draw), []
    for _ in range(number):
        stream, items = draw(state.stream)
        state = state._replace(stream=stream)
        params, opt, losses = step(state, items)
        every.append((state, items, losses))
        state = state._replace(params=params, opt=opt)
    return state, every


def numbers(tree):
    """A tree with random keys as the integers they are."""
    real = lambda x: not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: x if real(x) else jax.random.key_data(x), tree)


def assert_close(found, expected, rtol=1e-4, atol=1e-5):
    close = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree.map(close, numbers(found), numbers(expected))


def test_learn_is_stochastic_gradient_descent():
    """Each loss is that of the weights before the step; NumPy takes the same steps."""
    state = train.init(PROBLEM, jax.random.key(0), RATE)
    end, ((state, items, losses),) = chunks_of(PROBLEM, state, 1)
    w, b, v = (np.asarray(state.params[name], float) for name in "wbv")
    for item, loss in zip(items, losses, strict=True):
        x, y = (np.asarray(a, float) for a in STREAM.example(state.stream, item))
        h = np.tanh(x @ w + b)
        error = h @ v - y
        np.testing.assert_allclose(loss, error**2, rtol=1e-4, atol=1e-6)
        through = 2 * error * v * (1 - h**2)
        v = v - 0.05 * 2 * error * h
        w, b = w - 0.05 * np.outer(x, through), b - 0.05 * through
    assert_close(end.params, {"w": w, "b": b, "v": v})
    assert np.ptp(losses) > 0.1


def test_unrolling_changes_nothing_but_rounding():
    state = train.init(PROBLEM, jax.random.key(0), RATE)
    _, ((state, items, losses),) = chunks_of(PROBLEM, state, 1)
    _, _, unrolled = train.learn(PROBLEM, state, items, unroll=3)
    assert_close(unrolled, losses)


def test_bins_hold_mean_losses_and_diagnostics_at_their_ends():
    state = train.init(PROBLEM, jax.random.key(1), RATE)
    ((end, found),) = run(PROBLEM, bins=3, chunks=2)(jax.random.key(1), RATE)
    for i in range(3):
        state, every = chunks_of(PROBLEM, state, 2)
        losses = np.concatenate([losses for _, _, losses in every])
        np.testing.assert_allclose(found["loss"][i], losses.mean(), rtol=1e-4)
        observed = train.observe(PROBLEM, state)
        assert observed.keys() | {"loss", *CONTROL} == found.keys()
        assert_close({name: found[name][i] for name in observed}, observed)
    assert_close(end.params, state.params)
    np.testing.assert_allclose(
        found["loss_last"], np.full(3, every[-1][2].mean()), 1e-4
    )


def test_diagnostics_are_those_of_the_probe_batch():
    """Computed anew from the hidden layer on all inputs of the task."""
    ((state, found),) = run(PROBLEM, bins=1, chunks=4)(jax.random.key(2), RATE)
    inputs, _ = STREAM.probe(state.stream)
    hidden = jnp.tanh(inputs @ state.params["w"] + state.params["b"])
    expected = {
        "dead": metrics.dead_fraction(hidden),
        "dormant": metrics.dormant_fraction(hidden),
        "effective_rank": metrics.effective_rank(hidden),
        "approximate_rank": metrics.approximate_rank(hidden),
        "absolute_approximate_rank": metrics.absolute_approximate_rank(hidden),
        "stable_rank": metrics.stable_rank(hidden),
        "weight_magnitude": metrics.weight_magnitude(state.params),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], [value], rtol=1e-4)
    moved = jax.tree.map(jnp.subtract, state.params, state.initial)
    distance = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(moved)))
    np.testing.assert_allclose(found["distance_from_init"], [distance], rtol=1e-4)
    assert distance > 0.1


def test_without_hidden_layers_only_weights_are_observed():
    linear = problem(
        init=lambda key: {"w": jax.random.normal(key, (6,))},
        apply=lambda params, x: x @ params["w"],
    )
    _, found = run(linear, bins=2, chunks=1)(jax.random.key(0), RATE)[-1]
    weights = {"weight_magnitude", "distance_from_init"}
    assert found.keys() == {"loss", *CONTROL} | weights


def test_one_long_segment_equals_two_short_ones():
    """All but the key of what is still to be drawn, from which the control comes."""
    key, task = jax.random.key(3), problem(make_tx=noisy)
    ((whole, long),) = run(task, 2, 2, lengths=(2,))(key, RATE)
    (_, first), (half, second) = run(task, 2, 2, lengths=(1, 1))(key, RATE)
    assert_close(whole._replace(key=half.key), half)
    for name in long.keys() - set(CONTROL):
        both = np.concatenate([first[name], second[name]])
        np.testing.assert_allclose(long[name], both, rtol=1e-4, atol=1e-5)


def test_control_is_a_fresh_network_on_the_last_chunk():
    """Its loss is what a run starting anew has there, with a key of its own."""
    start = train.init(PROBLEM, jax.random.key(4), RATE)
    ((end, found),) = run(PROBLEM, bins=2, chunks=2)(jax.random.key(4), RATE)
    _, every = chunks_of(PROBLEM, start, 4)
    at_last, items, _ = every[-1]
    new = jax.jit(functools.partial(train.init, PROBLEM))
    fresh = new(jax.random.split(start.key)[1], RATE)._replace(stream=at_last.stream)
    _, _, losses = train.learn(PROBLEM, fresh, items)
    np.testing.assert_allclose(found["loss_fresh"], np.full(2, losses.mean()), 1e-4)
    assert not np.allclose(fresh.params["w"], start.params["w"])
    # The next segment has another fresh network.
    assert np.any(jax.random.key_data(end.key) != jax.random.key_data(start.key))


def test_control_does_not_depend_on_what_was_learned():
    segment = jax.jit(lambda state: train.segment(PROBLEM, state, 2, 1)[1])
    state = train.init(PROBLEM, jax.random.key(5), RATE)
    wild = state._replace(params=jax.tree.map(lambda x: 7 * x + 1, state.params))
    one, other = segment(state), segment(wild)
    np.testing.assert_array_equal(one["loss_fresh"], other["loss_fresh"])
    assert np.all(one["loss_last"] != other["loss_last"])


def test_runs_side_by_side_equal_runs_one_by_one():
    """Over keys and settings, with a transformation that draws random numbers."""
    run_one = run(problem(make_tx=noisy), bins=2, chunks=1)
    keys = jax.random.split(jax.random.key(6), 3)
    hparams = {"learning_rate": jnp.array([0.01, 0.05, 0.1])}
    ((states, found),) = jax.vmap(run_one)(keys, hparams)
    assert np.unique(found["loss"], axis=0).shape == (3, 2)
    for i, key in enumerate(keys):
        rate = {"learning_rate": hparams["learning_rate"][i]}
        ((state, alone),) = run_one(key, rate)
        assert_close({name: values[i] for name, values in found.items()}, alone)
        assert_close({k: v[i] for k, v in states.params.items()}, state.params)


def test_other_numbers_need_no_other_program():
    traced = []

    def make_tx(hparams, key):
        traced.append(hparams)
        return sgd(hparams, key)

    run_one = run(problem(make_tx=make_tx), bins=1, chunks=1)
    ((_, one),) = run_one(jax.random.key(0), RATE)
    before = len(traced)
    ((_, other),) = run_one(jax.random.key(0), {"learning_rate": jnp.float32(0.2)})
    assert len(traced) == before > 0
    assert one["loss"] != other["loss"]


def test_a_diverging_run_leaves_its_neighbours_alone():
    run_one = run(PROBLEM, bins=3, chunks=4)
    rates = {"learning_rate": jnp.array([0.05, 1e20, 0.05])}
    keys = jnp.broadcast_to(jax.random.key(7), 3)
    ((_, found),) = jax.vmap(run_one)(keys, rates)
    ((_, alone),) = run_one(jax.random.key(7), RATE)
    assert not np.isfinite(found["loss"][1, -1])
    for i in (0, 2):
        assert_close({name: values[i] for name, values in found.items()}, alone)
        assert all(np.isfinite(values[i]).all() for values in found.values())


def test_an_equinox_model_learns():
    equinox = pytest.importorskip("equinox")
    make = lambda key: equinox.nn.MLP(6, "scalar", 5, 1, key=key)
    static = equinox.partition(make(jax.random.key(0)), equinox.is_array)[1]
    task = problem(
        init=lambda key: equinox.filter(make(key), equinox.is_array),
        apply=lambda params, x: _map(equinox.combine(params, static), x),
    )
    ((_, found),) = run(task, bins=2, chunks=50)(jax.random.key(0), RATE)
    assert [group.size for group in task.groups] == [5]
    assert all(np.isfinite(values).all() for values in found.values())
    assert np.all(found["distance_from_init"] > 0)


def _map(model, x):
    """Equinox models take one example at a time."""
    return model(x) if x.ndim == 1 else jax.vmap(model)(x)
