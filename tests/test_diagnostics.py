"""Every family of diagnostics, against what NumPy finds for a small network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import diagnostics, streams, supervised, units
from loplax.supervised import losses
from loplax.supervised.problem import Network, Problem, TrainState

pytestmark = pytest.mark.usefixtures("quick_compile")

rng = np.random.default_rng(0)
INPUTS = rng.uniform(0, 1, (12, 3)).astype(np.float32)
LABELS = np.array([0, 1] * 6)
ITEM = 7  # a row that the next step learns from
SHIFT = 0.25  # the network's statistics; training does not use them
PARAMS = {
    "w": rng.normal(size=(3, 4)).astype(np.float32),
    "b": np.float32([-9, 0, 0, 2]),  # a dead unit, and one that never rests
    "u": 0.5 * rng.normal(size=(4, 6)).astype(np.float32),
    "v": rng.normal(size=(6, 2)).astype(np.float32),
}
PARAMS["u"][:, :2] = -np.abs(PARAMS["u"][:, :2])  # two dead units
PARAMS["u"][:, 2] = [0, 0, 0, 0.057]  # and one that is dormant, not dead


def forward(params, shift, x):
    first = jax.nn.relu(x @ params["w"] + params["b"])
    return jax.nn.relu(first @ params["u"] - shift) @ params["v"]


NETWORK = Network(
    init=lambda key: (PARAMS, jnp.float32(SHIFT)),
    apply=lambda params, shift, x: (forward(params, 0.0, x), shift),
    predict=forward,
)
STREAM = streams.Stream(
    init=lambda key: (),
    draw=None,
    example=lambda state, item: (jnp.asarray(INPUTS)[item], jnp.asarray(LABELS)[item]),
    probe=lambda state: (jnp.asarray(INPUTS), jnp.asarray(LABELS)),
    chunk=1,
    task=None,
)
PROBLEM = Problem(
    stream=STREAM,
    network=NETWORK,
    loss=losses.cross_entropy,
    tx=optax.with_extra_args_support(optax.sgd(0.1)),
    groups=units.find(NETWORK.apply, PARAMS, jnp.float32(0), INPUTS, has_aux=True),
)


def state_of(problem, params=PARAMS):
    params = jax.tree.map(jnp.asarray, params)
    state = TrainState(*[()] * len(TrainState._fields))
    return state._replace(
        params=params,
        initial=jax.tree.map(lambda x: 2 * x, params),
        stats=jnp.float32(SHIFT),
        opt=problem.tx.init(params),
    )


def observe(*families, problem=PROBLEM):
    problem = problem._replace(observe=families)
    step = lambda state: supervised.step(problem, state, ITEM)
    return jax.jit(lambda state: supervised.observe(problem, state, step))(
        state_of(problem)
    )


def layers(params=PARAMS, shift=SHIFT, x=INPUTS):
    """Both hidden layers and the logits."""
    p = {name: np.asarray(value, float) for name, value in params.items()}
    first = np.maximum(x @ p["w"] + p["b"], 0)
    second = np.maximum(first @ p["u"] - shift, 0)
    return first, second, second @ p["v"]


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def gradients(params=PARAMS, shift=SHIFT, x=INPUTS, labels=LABELS):
    """Of the mean cross entropy, by the chain rule."""
    first, second, logits = layers(params, shift, x)
    error = (softmax(logits) - np.eye(2)[labels]) / len(x)
    back = (error @ params["v"].T) * (second > 0)
    below = (back @ params["u"].T) * (first > 0)
    return {
        "w": x.T @ below,
        "b": below.sum(axis=0),
        "u": first.T @ back,
        "v": second.T @ error,
    }


def after_a_step(params=PARAMS):
    grads = gradients(params, 0.0, INPUTS[[ITEM]], LABELS[[ITEM]])
    return {name: params[name] - 0.1 * grads[name] for name in params}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, 1e-4, 1e-6, err_msg=name)
        assert found[name].dtype == jnp.float32
        assert found[name].shape == ()


def test_weights():
    """The initial parameters are twice as large."""
    flat = np.concatenate([value.ravel() for value in PARAMS.values()])
    expected = {
        "weight_magnitude": np.abs(flat).mean(),
        "distance_from_init": np.sqrt(np.sum(flat**2)),
    }
    assert_close(observe("weights"), expected)


def fractions(features):
    """Dead, dormant, rarely active and saturated, of one layer."""
    magnitude = np.abs(features).mean(axis=0)
    return {
        "dead": np.mean(np.all(features == 0, axis=0)),
        "dormant": np.mean(magnitude <= 0.1 * magnitude.mean()),
        "rarely_active": np.mean(np.mean(features != 0, axis=0) < 0.01),
        "saturated": np.mean(np.abs(features) > 0.9),
    }


def test_features():
    """As they are in evaluation; a unit of each layer counts as much as another."""
    first, second, _ = layers()
    one, two = fractions(first), fractions(second)
    expected = {name: (4 * one[name] + 6 * two[name]) / 10 for name in one}
    expected |= {"dead_1": one["dead"], "dead_2": two["dead"]}
    sigma = np.linalg.svd(second, compute_uv=False)
    shares = sigma / sigma.sum()
    up_to = lambda x: 1 + np.sum(np.cumsum(x) / x.sum() < 0.99)
    expected |= {
        "effective_rank": np.exp(-np.sum(shares * np.log(np.maximum(shares, 1e-12)))),
        "approximate_rank": up_to(sigma**2),
        "absolute_approximate_rank": up_to(sigma),
        "stable_rank": np.sum(sigma**2) / sigma[0] ** 2,
    }
    assert_close(observe("features"), expected)
    assert 0 < expected["dead_1"] < expected["dead"] < expected["dead_2"] < 1
    assert expected["dead"] < expected["dormant"] < 1 and expected["saturated"] > 0.1
    assert fractions(layers(shift=0.0)[1]) != two


def test_no_features_without_hidden_layers():
    assert observe("features", problem=PROBLEM._replace(groups=())) == {}


def test_gradients():
    flat = np.concatenate([value.ravel() for value in gradients().values()])
    expected = {
        "gradient_norm": np.sqrt(np.sum(flat**2)),
        "gradient_sparsity": np.mean(flat == 0),
    }
    assert_close(observe("gradients"), expected)
    assert expected["gradient_sparsity"] > 0.1


def test_step_of_a_classifier():
    """Learned with the statistics of training, then seen as in evaluation."""
    after = after_a_step()
    loss = lambda params: -np.log(softmax(layers(params, 0.0)[2])[ITEM, LABELS[ITEM]])
    p, q = softmax(layers()[2]), softmax(layers(after)[2])
    expected = {
        "plasticity": 1 - loss(after) / loss(PARAMS),
        "churn": np.mean(np.sum(p * np.log(p / q), axis=1)),
    }
    assert_close(observe("step"), expected)
    assert 0.01 < expected["plasticity"] < 1 and expected["churn"] > 1e-4


def test_churn_is_that_of_the_classes_that_count():
    """The others' logits, such as those of classes not seen yet, are free."""
    seen = jnp.array([True, False, True])

    def masked(function):
        def with_seen(*args):
            inputs, labels = function(*args)
            return inputs, (2 * labels, seen)

        return with_seen

    stream = STREAM._replace(example=masked(STREAM.example), probe=masked(STREAM.probe))
    loss = losses.masked(losses.cross_entropy)
    problem = PROBLEM._replace(stream=stream, loss=loss, observe=("step",))
    third = np.full((6, 1), 3, np.float32)
    state = state_of(problem, PARAMS | {"v": np.insert(PARAMS["v"], [1], third, 1)})
    step = jax.jit(lambda state: supervised.step(problem, state, ITEM))
    found = jax.jit(lambda state: supervised.observe(problem, state, step))(state)
    logits = [layers(s.params)[2][:, seen] for s in (state, step(state)[0])]
    p, q = map(softmax, logits)
    expected = np.mean(np.sum(p * np.log(p / q), axis=1))
    np.testing.assert_allclose(found["churn"], expected, rtol=1e-3)
    assert expected > 1e-4


def test_step_of_a_regressor():
    """With one number as output the churn is a mean square."""
    first = lambda function: lambda *args: function(*args)[..., 0]
    network = NETWORK._replace(
        predict=first(forward),
        apply=lambda params, shift, x: (first(forward)(params, 0.0, x), shift),
    )
    problem = PROBLEM._replace(
        network=network, loss=lambda output, target: jnp.square(output - target)
    )
    step = lambda state: supervised.step(problem, state, ITEM)
    after, _ = jax.jit(step)(state_of(problem))
    outputs = lambda params: layers(params)[2][:, 0]
    expected = np.mean((outputs(after.params) - outputs(PARAMS)) ** 2)
    found = observe("step", problem=problem)
    np.testing.assert_allclose(found["churn"], expected, rtol=1e-3)
    assert expected > 1e-6


def test_curvature():
    """Of a linear model with a squared loss, which both ranks can be counted for."""
    inputs = np.zeros((80, 3), np.float32)
    inputs[:2], inputs[-1] = [[4, 0, 0], [0, 1, 0]], [0, 0, 1]
    predict = lambda params, stats, x: x @ params["v"]
    problem = PROBLEM._replace(
        network=NETWORK._replace(predict=predict),
        stream=STREAM._replace(probe=lambda state: (jnp.asarray(inputs), jnp.ones(80))),
        loss=lambda output, target: jnp.square(output - target),
        groups=(),
        observe=("curvature",),
    )
    state = state_of(problem, {"v": np.ones(3, np.float32)})
    observe = functools.partial(supervised.observe, problem, step=None)
    # Eigenvalues 16, 1 and 1 of the Hessian; the kernel sees 64 examples, not the last.
    assert_close(jax.jit(observe)(state), {"hessian_rank": 3.0, "ntk_rank": 2.0})


def test_only_what_is_asked_for_is_observed():
    assert observe() == {}
    alone = [observe("weights"), observe("gradients")]
    assert_close(observe("weights", "gradients"), alone[0] | alone[1])


def test_what_does_not_exist_is_nan():
    """Whole numbers say it by -1; all dead units have ranks of 0."""
    for value in (np.nan, np.inf):
        found = diagnostics.floats(diagnostics.of_features([jnp.full((4, 3), value)]))
        assert np.isnan([*found.values()]).all(), found
    found = diagnostics.floats(diagnostics.of_features([jnp.zeros((4, 3))]))
    ranks = [value for name, value in found.items() if name.endswith("rank")]
    assert len(ranks) == 4 and not np.any(ranks)
    assert {value.dtype for value in found.values()} == {jnp.dtype("float32")}
