"""tap: the same output, and the activations that meet the outgoing weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import units

PARAMS = {
    "w0": jax.random.normal(jax.random.key(0), (5, 6)),
    "b0": jax.random.normal(jax.random.key(1), (6,)),
    "w1": jax.random.normal(jax.random.key(2), (6, 4)),
    "w2": jax.random.normal(jax.random.key(3), (4, 2)),
}
X = jax.random.normal(jax.random.key(4), (3, 5))


def hidden(params, x):
    first = jax.nn.relu(x @ params["w0"] + params["b0"])
    return first, jnp.tanh(first @ params["w1"])


def apply(params, x):
    return {"logits": hidden(params, x)[1] @ params["w2"]}


def loss(params, x):
    output, features = units.tap(apply)(params, x)
    return jnp.sum(output["logits"] ** 2), features


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("x", [X, X[0]], ids=["batch", "single"])
@pytest.mark.parametrize("wrap", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_output_and_features(wrap, x):
    """The output is the same bit for bit; features are the hidden activations."""
    output, features = wrap(units.tap(apply))(PARAMS, x)
    assert_equal(output, wrap(apply)(PARAMS, x))
    first, second = wrap(hidden)(PARAMS, x)
    assert_equal(features, {"w0": first, "w1": second})


def test_names_agree_with_find():
    """Features and groups have the same names, in the same order."""
    found = units.find(apply, PARAMS, X)
    features = units.tap(apply)(PARAMS, X)[1]
    assert tuple(features) == found.names
    assert [f.shape[-1] for f in features.values()] == [g.size for g in found]


def test_gradients():
    """Gradients pass through the tapped model and through the features."""

    def plain(params, x):
        return jnp.sum(apply(params, x)["logits"] ** 2)

    def of_features(params):
        return jnp.sum(units.tap(apply)(params, X)[1]["w1"])

    (value, features), grads = jax.value_and_grad(loss, has_aux=True)(PARAMS, X)
    assert value == plain(PARAMS, X) and features["w0"].shape == (3, 6)
    assert_equal(grads, jax.grad(plain)(PARAMS, X))
    expected = jax.grad(lambda params: jnp.sum(hidden(params, X)[1]))(PARAMS)
    assert_equal(jax.grad(of_features)(PARAMS), expected)


def test_derivative_rules_are_kept():
    """A custom derivative stays: the gradient of relu at zero is zero."""

    def scaled(x):
        return x

    rule = jax.custom_vjp(scaled)
    rule.defvjp(lambda x: (x, None), lambda _, g: (7.0 * g,))

    def model(params, x):
        return rule(jax.nn.relu(x @ params["w0"])) @ params["w1"]

    def total(f):
        return lambda params: jnp.sum(f(params, jnp.zeros_like(X) + X[:1]))

    tapped = total(lambda params, x: units.tap(model)(params, x)[0])
    assert_equal(jax.grad(tapped)(PARAMS), jax.grad(total(model))(PARAMS))
    flat = jax.tree.map(jnp.zeros_like, PARAMS) | {"w1": PARAMS["w1"]}
    assert not jnp.any(jax.grad(tapped)(flat)["w0"])


def test_vmap_and_scan():
    """The tapped model works under vmap over parameters and inside scan."""
    stacked = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), PARAMS)
    features = jax.vmap(units.tap(apply), (0, None))(stacked, X)[1]
    assert features["w1"].shape == (2, 3, 4)
    np.testing.assert_allclose(features["w0"][0], hidden(PARAMS, X)[0], rtol=1e-5)

    def step(params, x):
        (_, features), grads = jax.value_and_grad(loss, has_aux=True)(params, x)
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)
        return params, features["w0"].mean()

    params, means = jax.jit(lambda p: jax.lax.scan(step, p, jnp.stack([X, X])))(PARAMS)
    assert means.shape == (2,) and jnp.all(jnp.isfinite(params["w0"]))
    assert means[0] != means[1]


def test_closed_over_tracers():
    """A model may close over values of an outer transformation."""

    @jax.jit
    def outer(params, shift):
        def model(params, x):
            return apply(params, x * shift)

        return units.tap(model)(params, X)

    assert_equal(outer(PARAMS, 2.0)[0], jax.jit(apply)(PARAMS, 2 * X))


def count(jaxpr, name):
    """Number of primitives of a name, in all nested jaxprs."""
    total = 0
    for eqn in jaxpr.eqns:
        total += eqn.primitive.name == name
        for param in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        ):
            inner = getattr(param, "jaxpr", param)
            total += count(inner, name) if hasattr(inner, "eqns") else 0
    return total


def remat_calls(f, *args):
    jaxpr = jax.make_jaxpr(f)(*args).jaxpr
    return sum(count(jaxpr, name) for name in ("remat2", "checkpoint", "remat"))


def policies(jaxpr):
    """Policies of the checkpointed regions, the outer ones first."""
    found = []
    for eqn in jaxpr.eqns:
        if "prevent_cse" in eqn.params:
            found += [eqn.params["policy"], *policies(eqn.params["jaxpr"])]
    return found


@pytest.mark.parametrize(
    "policy", [None, jax.checkpoint_policies.dots_with_no_batch_dims_saveable]
)
def test_checkpoint_is_kept(policy):
    """Regions under jax.checkpoint are recomputed in the tapped model too."""

    @jax.checkpoint
    def inner(x, params):
        return jnp.sin(jax.nn.relu(x @ params["w0"]) @ params["w1"])

    def model(params, x):
        region = jax.checkpoint(
            lambda params, x: inner(x, params) @ params["w2"], policy=policy
        )
        return region(params, jnp.sin(x))

    def total(f):
        return jax.grad(lambda params: jnp.sum(f(params, X)))

    tapped = total(lambda params, x: units.tap(model)(params, x)[0])
    assert_equal(jax.jit(tapped)(PARAMS), jax.jit(total(model))(PARAMS))
    features = units.tap(model)(PARAMS, X)[1]
    np.testing.assert_array_equal(
        features["w0"], jax.nn.relu(jnp.sin(X) @ PARAMS["w0"])
    )
    assert remat_calls(total(model), PARAMS) >= 2
    assert remat_calls(tapped, PARAMS) == remat_calls(total(model), PARAMS)
    assert policies(jax.make_jaxpr(units.tap(model))(PARAMS, X).jaxpr) == [policy, None]


def test_no_extra_cost():
    """Nothing is computed twice, and unused features disappear under jit."""

    def output(params, x):
        return units.tap(apply)(params, x)[0]

    def products(f):
        return count(jax.make_jaxpr(f)(PARAMS, X).jaxpr, "dot_general")

    assert products(units.tap(apply)) == products(apply) == 3
    cost = [
        jax.jit(f).lower(PARAMS, X).compile().cost_analysis()["flops"]
        for f in (output, apply)
    ]
    assert cost[0] == cost[1]


def test_layouts():
    """Units are moved to the last axis; repetitions keep an axis."""
    image = jax.random.normal(jax.random.key(5), (2, 3, 8, 8))
    params = {"k": jnp.ones((4, 3, 3, 3)), "w": jnp.ones((256, 2))}

    def convolve(params, x):
        return jax.nn.relu(jax.lax.conv(x, params["k"], (1, 1), "SAME"))

    def first(params, x):
        return convolve(params, x).reshape(2, -1) @ params["w"]

    def last(params, x):
        x = jnp.moveaxis(convolve(params, x), 1, 3)
        return x.reshape(2, -1) @ params["w"]

    expected = jnp.moveaxis(convolve(params, image), 1, 3).reshape(2, 64, 4)
    for model in (first, last):
        np.testing.assert_array_equal(units.tap(model)(params, image)[1]["k"], expected)


def test_crelu_and_concatenation():
    """Both signs of CReLU keep an axis; of a concatenation only the part is read."""

    def signs(params, x):
        x = x @ params["w0"]
        return jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)], -1) @ params["w3"]

    params = PARAMS | {"w3": jnp.ones((12, 2))}
    x = X @ params["w0"]
    expected = jnp.stack([jax.nn.relu(x), jax.nn.relu(-x)], 1)
    np.testing.assert_array_equal(units.tap(signs)(params, X)[1]["w0"], expected)

    def dense(params, x):
        return jnp.concatenate([x, jnp.tanh(x @ params["w0"])], -1) @ params["w4"]

    params = PARAMS | {"w4": jnp.ones((11, 2))}
    expected = jnp.tanh(X @ params["w0"])
    np.testing.assert_array_equal(units.tap(dense)(params, X)[1]["w0"], expected)


def test_aux():
    """With an auxiliary output the output keeps its structure."""

    def model(params, x):
        first, second = hidden(params, x)
        return second @ params["w2"], {"mean": first.mean(0)}

    output, features = units.tap(model, has_aux=True)(PARAMS, X)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    jax.tree.map(close, output, model(PARAMS, X))
    assert tuple(features) == ("w0", "w1")
    assert tuple(units.tap(model)(PARAMS, X)[1]) == ("w1",)
