"""Units found and tapped on the objects that frameworks hold a model in."""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from loplax import units
from loplax.units import paths

X = jax.random.normal(jax.random.key(0), (3, 5))
PATHS = ("first/kernel", "first/bias", "norm/bias", "norm/scale", "second/kernel")


class Net(nnx.Module):
    def __init__(self, seed, *, tied=False):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(5, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.middle = nnx.List([nnx.Linear(6, 6, rngs=rngs) for _ in range(2)])
        if tied:
            self.middle[1].kernel = self.middle[0].kernel
        self.second = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.first(x))))
        for layer in self.middle:
            x = nnx.relu(layer(x))
        return self.second(x)


def run(model, x):
    return model(x)


def numbers(tree):
    """All state of a module or tree, keys as their numbers."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    leaves = jax.tree.leaves(nnx.to_pure_dict(nnx.state(tree)))
    return [jax.random.key_data(x) if is_key(x) else x for x in leaves]


def module_and_forms():
    """One nnx model in three forms: ``(f, params, *inputs)`` of each."""
    net = Net(0)
    graph, params, rest = nnx.split(Net(0), nnx.Param, ...)
    pure = nnx.to_pure_dict(params)

    def with_state(params, x, rest):
        return nnx.merge(graph, params, rest)(x)

    def with_dict(pure, x, rest):
        state = jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(pure))
        return with_state(state, x, rest)

    forms = {
        "State": (with_state, params, X, rest),
        "pure dict": (with_dict, pure, X, rest),
    }
    return net, forms


def test_nnx_module_state_and_pure_dict_are_one_model():
    """Same groups, features and outputs, with the same paths."""
    net, forms = module_and_forms()
    found = units.find(run, net, X)
    assert found.names == ("first", "middle/0", "middle/1")
    first = found[0]
    assert [r.path for r in first.incoming] == ["first/kernel"]
    assert [r.path for r in first.scales] == ["norm/scale"]
    assert {r.path for r in first.biases} == {"first/bias", "norm/bias"}
    assert [(r.path, r.bias) for r in first.outgoing] == [
        ("middle/0/kernel", "middle/0/bias")
    ]
    units.check(found, net)
    expected = units.tap(run)(net, X)
    for f, *arguments in forms.values():
        assert units.find(f, *arguments) == found
        units.check(found, arguments[0])
        actual = units.tap(f)(*arguments)
        jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_find_leaves_a_module_alone_and_tap_runs_it():
    """Statistics and random keys move on as if the module itself had been called."""
    net, other = Net(0), Net(0)
    before = numbers(other)
    units.find(run, net, X)
    jax.tree.map(np.testing.assert_array_equal, numbers(net), before)
    tapped = units.tap(run)
    for _ in range(2):
        np.testing.assert_allclose(tapped(net, X)[0], other(X), rtol=1e-5)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    jax.tree.map(close, numbers(net), numbers(other))
    assert not np.array_equal(tapped(net, X)[0], tapped(net, X)[0])


def test_tap_inside_nnx_transforms():
    """Under nnx.jit and nnx.grad, too, the module's state moves on."""
    net, other = Net(0), Net(0)
    tapped = units.tap(run)

    def tapped_loss(net):
        outputs, features = tapped(net, X)
        return jnp.sum(outputs**2), features

    grads, features = nnx.jit(nnx.grad(tapped_loss, has_aux=True))(net)
    expected = nnx.jit(nnx.grad(lambda net: jnp.sum(net(X) ** 2)))(other)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, numbers(grads), numbers(expected))
    jax.tree.map(close, numbers(net), numbers(other))
    assert features["first"].shape == (3, 6)


def test_a_shared_nnx_parameter_is_one_parameter():
    """Tied layers are left out, although as a pytree the module holds two copies."""
    found = units.find(run, Net(0, tied=True), X)
    assert found.names == ("first",) or "middle/0" in found.left_out
    used = [r.path for g in found for r in (*g.incoming, *g.outgoing)]
    assert not any(path.startswith("middle") and "kernel" in path for path in used)
    assert any("more than once" in reason for reason in found.left_out.values())


def test_a_tree_of_nnx_modules_is_a_model():
    """Two networks trained together, under the names that they have in the tree."""
    nets = {"actor": Net(0), "critic": Net(1)}
    both = lambda nets, x: (nets["actor"](x), nets["critic"](x))
    found = units.find(both, nets, X)
    assert "actor/first" in found.names and "critic/middle/1" in found.names
    units.tap(both)(nets, X)
    assert np.any(nets["critic"].norm.mean[...] != 0)


class Unsplit(eqx.Module):
    layers: list
    dropout: eqx.nn.Dropout
    slope: float

    def __call__(self, x, key):
        for layer in self.layers[:-1]:
            x = jax.nn.leaky_relu(layer(x), self.slope)
        return self.layers[-1](self.dropout(x, key=key))


@pytest.mark.parametrize("inference", [False, True])
def test_equinox_module_as_it_is(inference):
    """Functions, numbers and flags among the leaves are set aside."""
    keys = jax.random.split(jax.random.key(0), 3)
    layers = [eqx.nn.Linear(5, 6, key=keys[0]), eqx.nn.MLP(6, 6, 7, 1, key=keys[1])]
    layers.append(eqx.nn.Linear(6, 2, key=keys[2]))
    model = Unsplit(layers, eqx.nn.Dropout(0.5, inference), 0.1)
    params, static = eqx.partition(model, eqx.is_array)

    def apply(model, x, keys):
        return jax.vmap(model)(x, keys)

    def split(params, x, keys):
        return apply(eqx.combine(params, static), x, keys)

    arguments = X, jax.random.split(jax.random.key(1), 3)
    found = units.find(apply, model, *arguments)
    assert found.names == ("layers/0", "layers/1/layers/0", "layers/1/layers/1")
    assert found == units.find(split, params, *arguments)
    units.check(found, model)
    expected = units.tap(split)(params, *arguments)
    actual = jax.jit(units.tap(split))(params, *arguments)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), actual, expected
    )
    actual = eqx.filter_jit(units.tap(apply))(model, *arguments)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), actual, expected
    )


def test_paths_are_those_of_what_the_optimiser_sees():
    """nnx.Optimizer(wrt=nnx.Param) and filtered Equinox models: the same names."""
    net = Net(0)
    seen = paths.by_path(nnx.to_pure_dict(nnx.state(net, nnx.Param))).leaves
    used = {
        record.path
        for group in units.find(run, net, X)
        for record in (*group.incoming, *group.biases, *group.scales, *group.outgoing)
    }
    assert used <= set(seen) and set(PATHS) - {"second/kernel"} <= used


def test_flags_and_functions_as_inputs():
    """What is no array among the inputs reaches the model as it is."""

    def apply(params, x, activation, train):
        return activation(x @ params["w1"]) @ params["w2"] if train else x

    params = {"w1": jnp.ones((5, 6)), "w2": jnp.ones((6, 2))}
    found = units.find(apply, params, X, jax.nn.relu, True)
    assert found.names == ("w1",)
    output, features = units.tap(apply)(params, X, jax.nn.relu, True)
    assert output.shape == (3, 2) and features["w1"].shape == (3, 6)


def test_what_is_no_function_of_parameters():
    """Arguments in another order, or a linen module in place of its method."""
    params = {"w1": jnp.ones((5, 6)), "w2": jnp.ones((6, 2))}
    apply = lambda params, x: x @ params["w1"] @ params["w2"]
    for call in (units.find, units.verify):
        with pytest.raises(ValueError, match="apply, which comes first, .* got dict"):
            call(params, apply, X)
    net = nn.Sequential([nn.Dense(6), nn.relu, nn.Dense(2)])
    params = net.init(jax.random.key(0), X)
    words = r"the linen module Sequential, .* find\(net\.apply, params, x\)"
    with pytest.raises(ValueError, match=words):
        units.find(net, params, X)
    with pytest.raises(ValueError, match=words):
        units.tap(net)(params, X)
    assert units.find(nn.apply(lambda net, x: net(x), net), params, X).names
