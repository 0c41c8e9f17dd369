"""A user's program: mypy reads it, strictly, and pytest runs it.

Each ``assert_type`` fails in mypy if the type that a user sees becomes another, or none
at all; what is ignored must be an error, or mypy says so. So annotations that break
users are found, and those that are too weak.
"""

from collections.abc import Callable
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import metrics, optim, streams, supervised, units

Params = dict[str, jax.Array]
X, Y = jnp.ones((8, 3)), jnp.zeros((8, 2))


def init(key: jax.Array) -> Params:
    key_in, key_out = jax.random.split(key)
    return {
        "w1": jax.random.normal(key_in, (3, 4)),
        "w2": jax.random.normal(key_out, (4, 2)),
    }


def apply(params: Params, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ params["w1"]) @ params["w2"]


def loss(params: Params) -> jax.Array:
    return jnp.mean((apply(params, X) - Y) ** 2)


PARAMS = init(jax.random.key(0))
HIDDEN = units.find(apply, PARAMS, X)


def test_units() -> None:
    assert_type(HIDDEN, units.Units)
    for group in HIDDEN:
        assert_type(group, units.UnitGroup)
        assert_type(group.incoming, tuple[units.WeightAxis, ...])
        assert_type(group.features, dict[str, tuple[int, ...]])
    assert_type(HIDDEN.select(HIDDEN.names[0]), units.Units)
    assert_type(HIDDEN.left_out, dict[str, str])
    by_hand = units.UnitGroup(
        name="w1",
        size=4,
        incoming=(units.WeightAxis("w1", 1),),
        biases=(),
        scales=(),
        outgoing=(units.WeightAxis("w2", 0),),
    )
    units.check([by_hand], PARAMS)
    assert_type(units.verify(apply, PARAMS, X, units=[by_hand]), units.Units)
    output, features = units.tap(apply)(PARAMS, X)
    assert_type(features, dict[str, jax.Array])
    assert features["w1"].shape == (8, 4) and output.shape == (8, 2)


def test_a_loop() -> None:
    tx = optim.continual_backprop(
        optim.adam(1e-3, HIDDEN),
        HIDDEN,
        replacement_rate=0.5,
        maturity_threshold=0,
        initializer={"w1": jax.nn.initializers.lecun_normal()},
        key=jax.random.key(1),
    )
    assert_type(tx, optax.GradientTransformationExtraArgs)

    def step(params: Params, state: optax.OptState) -> Any:
        _, features = units.tap(apply)(params, X)
        updates, state = tx.update(
            jax.grad(loss)(params), state, params, features=features
        )
        return optax.apply_updates(params, updates), state

    state = tx.init(PARAMS)
    assert isinstance(state, optim.ReplacementState)
    params, after = jax.jit(step)(PARAMS, state)
    assert_type(state.count, jax.Array)
    assert_type(state.replaced, dict[str, jax.Array])
    replaced = optim.newly_replaced(state, after)
    assert_type(replaced, dict[str, jax.Array])
    assert replaced["w1"].dtype == bool and params["w1"].shape == (3, 4)


WRAPPERS: list[Callable[[], optax.GradientTransformationExtraArgs]] = [
    lambda: optim.redo(optax.sgd(0.1), HIDDEN, key=jax.random.key(0)),
    lambda: optim.regrama(optax.sgd(0.1), HIDDEN, key=jax.random.key(0)),
    lambda: optim.ccbp(optax.sgd(0.1), HIDDEN, key=jax.random.key(0)),
    lambda: optim.self_normalized_resets(optax.sgd(0.1), HIDDEN, key=jax.random.key(0)),
    lambda: optim.shrink_and_perturb(
        optax.sgd(0.1), shrink=jnp.float32(0.9), key=jax.random.key(0)
    ),
    lambda: optim.l2_init(1e-2),
    lambda: optim.hare_tortoise(optax.sgd(0.1), period=10),
    lambda: optim.upgd(0.1, noise_scale=0.1, key=jax.random.key(0)),
    lambda: optim.weight_clipping(optax.sgd(0.1), kappa=2.0),
    lambda: optim.metaplastic({"w1": 1.0, "w2": 0.0}),
    lambda: optim.frozen(optax.sgd(0.1)),
    lambda: optim.a_gem(),
]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_transformations(
    wrapper: Callable[[], optax.GradientTransformationExtraArgs],
) -> None:
    assert isinstance(wrapper(), optax.GradientTransformationExtraArgs)


def test_consolidation() -> None:
    ewc = optim.elastic_weight_consolidation(0.5, decay=0.9, through=jnp.sign)
    one = lambda params, x, y: jnp.mean((apply(params, x) - y) ** 2)
    importance = optim.fisher(one, PARAMS, X, Y, weights=np.ones(8))
    state = ewc.consolidate(ewc.init(PARAMS), PARAMS, importance)
    assert isinstance(state, optim.ConsolidationState)


def test_metrics() -> None:
    assert_type(metrics.weight_magnitude(PARAMS), jax.Array)
    assert_type(metrics.effective_rank(X @ PARAMS["w1"]), jax.Array)
    cost = metrics.switching_cost(
        loss, PARAMS, "w1", jax.random.key(0), switched=1, bins=2
    )
    assert_type(cost, metrics.SwitchingCost)
    assert_type(cost.mean, jax.Array)
    forgetting = metrics.forgetting_from_max(np.eye(3))
    assert isinstance(forgetting, np.ndarray)
    time = metrics.recovery_time(jnp.array([0.5, 0.9]), 0.8)
    assert_type(time, metrics.Time)
    assert isinstance(time.updates, jax.Array)


def build(
    hparams: dict[str, jax.Array], key_tx: jax.Array, data: Any
) -> supervised.Problem:
    del key_tx, data
    return supervised.Problem(
        stream=streams.slowly_changing_regression(3, 2, 32),
        network=supervised.stateless(init, lambda params, x: apply(params, x)[..., 0]),
        loss=lambda outputs, targets: (outputs - targets) ** 2,
        tx=optax.sgd(hparams["learning_rate"]),
        groups=HIDDEN,
    )


def test_a_run() -> None:
    hparams = {"learning_rate": jnp.float32(0.1)}
    start = supervised.init(build, jax.random.key(0), hparams)
    assert_type(start, supervised.TrainState)
    state, found = jax.eval_shape(
        lambda state: supervised.segment(build, state, bins=1), start
    )
    assert found["loss"].shape == (1,) and state.params["w1"].shape == (3, 4)
    problem = build(hparams, jax.random.key(0), ())
    assert_type(problem.stream, streams.Stream)
    assert_type(problem.stream.test, streams.HeldOut | None)
    assert_type(problem.test_starts, bool)


def test_mistakes() -> None:
    """What is ignored here is an error, or mypy says that it need not be ignored."""
    with pytest.raises(ValueError, match="units must be"):
        optim.continual_backprop(
            optax.sgd(0.1),
            4,  # type: ignore[arg-type]
            replacement_rate=1e-4,
            key=jax.random.key(0),
        )
    with pytest.raises(ValueError, match="key must be a typed key"):
        optim.redo(optax.sgd(0.1), HIDDEN, key=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="utility must be one of"):
        optim.continual_backprop(
            optax.sgd(0.1),
            HIDDEN,
            replacement_rate=1e-4,
            utility=3,  # type: ignore[arg-type]
            key=jax.random.key(0),
        )
    with pytest.raises(ValueError, match="strong"):
        optim.l2_init("strong")  # type: ignore[arg-type]
