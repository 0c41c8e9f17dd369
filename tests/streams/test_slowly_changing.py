"""Slowly-changing regression: its targets, its inputs, and when they change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import streams

pytestmark = pytest.mark.usefixtures("quick_compile")

make = streams.slowly_changing_regression
flips = pytest.mark.parametrize("flip", ["all", "one"])


def target(state, x, beta):
    """The published formula for one example, unit by unit."""
    hidden, output = np.asarray(state.hidden, float), np.asarray(state.output, float)
    m, y = len(x), output[-1]
    for i in range(hidden.shape[1]):
        w, b = hidden[:-1, i], hidden[-1, i]
        theta = beta * (m + 1) - (m - w.sum() + b) / 2
        y += output[i] * float(w @ x + b > theta)
    return y


@pytest.fixture(scope="module")
def walk(walker):
    """``(stream, seed, draws) -> (states, items, (inputs, targets))``, stacked."""
    return lambda stream, seed, draws: walker(stream, draws)(jax.random.key(seed))


@pytest.mark.parametrize(("flip", "beta"), [("all", 0.7), ("one", 0.7), ("all", 0.3)])
def test_targets_are_those_of_the_published_network(walk, flip, beta):
    stream = make(6, 3, period=10, flip=flip, units=30, beta=beta)
    states, _, (inputs, targets) = walk(stream, 0, 4)
    state = states._replace(hidden=states.hidden[0], output=states.output[0])
    inputs, targets = np.reshape(inputs, (-1, 6)), np.ravel(targets)
    assert list(targets) == [target(state, x, beta) for x in inputs]
    assert len(set(targets)) > 3  # the target does vary


def test_default_problem_agrees_too(walk):
    states, _, (inputs, targets) = walk(make(), 3, 2)
    state = states._replace(hidden=states.hidden[0], output=states.output[0])
    inputs, targets = np.asarray(inputs)[:, :100], np.asarray(targets)[:, :100]
    for x, y in zip(inputs.reshape(-1, 20), targets.ravel(), strict=True):
        assert y == target(state, x, 0.7)


def test_weights_of_the_target_network_are_signs():
    state = make(units=500).init(jax.random.key(0))
    assert state.hidden.shape == (21, 500)
    assert state.output.shape == (501,)
    for weights in (state.hidden, state.output):
        assert set(np.unique(weights)) == {-1.0, 1.0}
        assert abs(np.mean(weights)) < 4 / np.sqrt(weights.size)


@flips
def test_target_network_never_changes(walk, flip):
    states, _, _ = walk(make(6, 3, period=5, flip=flip), 0, 6)
    for weights in (states.hidden, states.output):
        assert np.all(weights == weights[0])


@flips
@pytest.mark.parametrize("period", [4, 25_000])
def test_slow_bits_change_at_multiples_of_the_period_only(walk, flip, period):
    """The first period has them as drawn at the start; 25,000 takes four chunks."""
    stream = make(20, 15, period=period, flip=flip, units=3)
    assert period % stream.chunk == 0
    assert stream.chunk <= 10_000
    per_period = period // stream.chunk
    states, _, _ = walk(stream, 1, 8 * per_period)
    bits = np.asarray(states.slow).reshape(8, per_period, 15)
    task = np.reshape(jax.vmap(stream.task)(states), (8, per_period))
    np.testing.assert_array_equal(task.T - np.arange(8), 0)
    assert np.all(bits == bits[:, :1])
    assert np.all(bits[0] == stream.init(jax.random.key(1)).slow)
    changed = np.sum(bits[1:, 0] != bits[:-1, 0], axis=1)
    if flip == "one":
        assert np.all(changed == 1)
    else:
        assert np.all(changed > 1)  # each has probability 16 / 2**15 of failing
        assert 5 < changed.mean() < 10  # 7.5 expected, deviation 0.7


def test_single_flips_reach_every_bit(walk):
    states, _, _ = walk(make(6, 4, period=2, flip="one"), 0, 100)
    flipped = np.diff(np.asarray(states.slow), axis=0) != 0
    np.testing.assert_allclose(flipped.mean(axis=0), 0.25, atol=0.2)


def test_redrawn_bits_are_fair_and_independent(walk):
    states, _, _ = walk(make(8, 5, period=1), 0, 2000)
    bits = np.asarray(states.slow)
    np.testing.assert_allclose(bits.mean(axis=0), 0.5, atol=0.05)
    correlations = np.corrcoef(np.concatenate([bits[1:], bits[:-1]], axis=1).T)
    assert np.abs(correlations - np.eye(10)).max() < 0.1  # deviation 0.022


def test_inputs_are_slow_bits_then_fast_bits(walk):
    stream = make(7, 3, period=50)
    states, _, (x, y) = walk(stream, 5, 2)
    assert x.shape == (2, 50, 7)
    assert x.dtype == y.dtype == jnp.float32
    assert set(np.unique(x)) == {0.0, 1.0}
    assert np.all(x[:, :, :3] == np.asarray(states.slow)[:, None])
    assert np.all(np.std(x[:, :, 3:], axis=1) > 0)


@pytest.mark.parametrize("fast", [5, 8])
def test_fast_bits_are_uniform(walk, fast):
    stream = make(fast + 2, 2, units=3)
    _, items, _ = walk(stream, 0, 4)
    counts = np.bincount(np.ravel(items), minlength=2**fast)
    assert counts.size == 2**fast
    expected = 40_000 / 2**fast
    chi_square, cells = np.sum((counts - expected) ** 2) / expected, 2**fast - 1
    assert abs(chi_square - cells) < 4 * np.sqrt(2 * cells)
    # Nor does one say anything of the next.
    correlation = np.corrcoef(np.ravel(items)[1:], np.ravel(items)[:-1])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(40_000)


def test_probe_holds_the_examples_of_the_task(walk):
    stream = make(7, 3, period=64)
    states, items, (x, y) = walk(stream, 2, 3)
    inputs, targets = jax.vmap(stream.probe)(states)
    for i in range(3):
        assert np.unique(inputs[i], axis=0).shape == (16, 7)
        np.testing.assert_array_equal(x[i], inputs[i][items[i]])
        np.testing.assert_array_equal(y[i], targets[i][items[i]])


@flips
def test_streams_side_by_side_equal_streams_one_by_one(assert_alike_side_by_side, flip):
    assert_alike_side_by_side(make(6, 3, period=8, flip=flip), 3)


def test_same_key_same_stream(walker, numbers):
    walk_one = walker(make(6, 3, period=20), 3)
    one, same, other = (numbers(walk_one(jax.random.key(k))) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert np.any(one[1] != other[1])
    assert np.any(one[0].hidden != other[0].hidden)


@flips
def test_state_keeps_its_types(assert_state_keeps_its_types, flip):
    assert_state_keeps_its_types(make(flip=flip))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"slow": 0}, "slow"),
        ({"slow": 20}, "slow"),
        ({"slow": -1}, "slow"),
        ({"inputs": 40, "slow": 20}, "inputs"),  # a table of 2**20 inputs
        ({"period": 0}, "period"),
        ({"units": 0}, "units"),
        ({"flip": "two"}, "'two'"),
        ({"beta": float("nan")}, "beta"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=named):
        make(**arguments)
