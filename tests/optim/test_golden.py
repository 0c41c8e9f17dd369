"""Single steps recorded from the authors' PyTorch implementation are reproduced.

The authors' Adam is not quite Adam: with t counted per weight, it moves a weight by
``lr * (1 - b2 ** t) * mu / (sqrt(nu) + eps)``. Everything around it is compared with
the step it took (`recorded`), and one test pins the formula itself.
"""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim, units
from loplax.optim import replacement
from loplax.optim.continual_backprop import Budget, UnitStatistics

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FILES = ("mlp_sgd_contribution", "mlp_sgd_adaptable", "mlp_adam_contribution")
CASES = [(name, record) for name in FILES for record in range(12)]


def apply(params, x):
    for i in range(2):
        x = jax.nn.relu(x @ params[f"w{i}"] + params[f"b{i}"])
    return x @ params["w2"] + params["b2"]


def loss(params, x, y, kind):
    out, features = units.tap(apply)(params, x)
    if kind == "mse":
        return jnp.mean((out - y) ** 2), features
    return optax.losses.softmax_cross_entropy_with_integer_labels(
        out, y
    ).mean(), features


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        data = {key: file[key] for key in file.files}
    return ast.literal_eval(str(data.pop("meta"))), data


def params_of(data, prefix):
    return {
        f"{k}{i}": jnp.asarray(data[f"{prefix}/{k}{i}"]) for i in range(3) for k in "wb"
    }


def recorded(inner, step):
    """``inner``, but moving the parameters by the recorded step."""

    def update(grads, state, params=None, **extra):
        return step, inner.update(grads, state, params, **extra)[1]

    return optax.GradientTransformationExtraArgs(inner.init, update)


def make(meta, data, params):
    groups = units.find(apply, params, data["x"])
    inner = optax.sgd(meta["lr"])
    if meta["opt"] == "adam":
        step = jax.tree.map(jnp.subtract, params_of(data, "mid"), params)
        inner = recorded(optim.adam(meta["lr"], groups), step)
    return (
        groups,
        inner,
        optim.continual_backprop(
            inner,
            groups,
            replacement_rate=meta["replacement_rate"],
            maturity_threshold=meta["maturity_threshold"],
            decay_rate=meta["decay_rate"],
            utility=meta["util"],
            key=jax.random.key(0),
        ),
    )


def state_of(data, prefix, groups, fresh, decay_rate):
    """The loplax state that holds what the reference recorded."""
    per_group = lambda field, dtype: {
        group.name: jnp.asarray(data[f"{prefix}/{field}{i}"], dtype)
        for i, group in enumerate(groups)
    }
    inner = fresh.inner
    if f"{prefix}/exp_avg_w0" in data:
        moment = lambda kind: {
            f"{k}{i}": jnp.asarray(data[f"{prefix}/{kind}_{k}{i}"])
            for i in range(3)
            for k in "wb"
        }
        counts = per_group("age", jnp.int32)
        inner = optax.tree.set(
            inner,
            mu=moment("exp_avg"),
            nu=moment("exp_avg_sq"),
            count=jnp.asarray(data[f"{prefix}/step_b2"][0], jnp.int32),
            unit_count=optim.PerUnit(counts),
        )
    known = lambda group, i: UnitStatistics(
        age=jnp.asarray(data[f"{prefix}/age{i}"], jnp.int32),
        discount=jnp.float32(decay_rate) ** data[f"{prefix}/age{i}"],
        mean_activation={group.name: jnp.asarray(data[f"{prefix}/act{i}"])},
        utility=jnp.asarray(data[f"{prefix}/util{i}"]),
        budget=Budget(jnp.float32(data[f"{prefix}/acc{i}"]), jnp.float32(0)),
    )
    units = {group.name: known(group, i) for i, group in enumerate(groups)}
    return fresh._replace(inner=inner, units=units)


@pytest.mark.parametrize(("name", "record"), CASES)
def test_one_step_of_the_reference(name, record):
    meta, data = load(name)
    data = {k[3:]: v for k, v in data.items() if k.startswith(f"{record:02d}/")}
    params, x, y = params_of(data, "before"), data["x"], data["y"]
    groups, inner, tx = make(meta, data, params)
    state = state_of(data, "before", groups, tx.init(params), meta["decay_rate"])
    grads, features = jax.grad(loss, has_aux=True)(params, x, y, meta["loss"])
    updates, state = tx.update(grads, state, params, features=features)
    after = optax.apply_updates(params, updates)
    begun = replacement.reset_state(inner, state.inner, groups, state.replaced, after)

    close = lambda a, b, **kw: np.testing.assert_allclose(
        a, b, rtol=1e-6, atol=2e-7, **kw
    )
    expected = state_of(data, "after", groups, state, meta["decay_rate"])
    for i, group in enumerate(groups):
        np.testing.assert_array_equal(
            np.flatnonzero(state.replaced[group.name]), data[f"replaced{i}"]
        )
        known = state.units[group.name]
        np.testing.assert_array_equal(known.age, data[f"after/age{i}"])
        close(known.utility, data[f"after/util{i}"])
        close(known.mean_activation[group.name], data[f"after/act{i}"])
        close(sum(known.budget), data[f"after/acc{i}"])
        redrawn = np.asarray(state.replaced[group.name])
        bound = np.sqrt(2) * np.sqrt(3 / params[f"w{i}"].shape[0])
        assert np.all(np.abs(after[f"w{i}"][:, redrawn]) <= bound)
        kept = ~redrawn
        close(after[f"w{i}"][:, kept], data[f"after/w{i}"][:, kept])
        close(after[f"b{i}"], data[f"after/b{i}"])
    close(after["w2"], data["after/w2"])
    close(after["b2"], data["after/b2"])
    jax.tree.map(close, begun, expected.inner)


@pytest.mark.parametrize("record", range(12))
def test_the_reference_adam_and_its_step_counts(record):
    meta, data = load("mlp_adam_contribution")
    data = {k[3:]: v for k, v in data.items() if k.startswith(f"{record:02d}/")}
    for name in ("w0", "b0", "w1", "b1", "w2", "b2"):
        replaced = data[f"after/step_{name}"] == 0
        count, b2 = data[f"after/step_{name}"].astype(float), 0.999
        root = np.sqrt(data[f"after/exp_avg_sq_{name}"]) + 1e-8
        step = meta["lr"] * (1 - b2**count) * data[f"after/exp_avg_{name}"] / root
        moved = data[f"before/{name}"].astype(float) - data[f"mid/{name}"]
        np.testing.assert_allclose(
            moved[~replaced], step[~replaced], rtol=1e-3, atol=1e-7
        )
