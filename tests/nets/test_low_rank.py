"""Low-rank adapters: a second path that is nothing at first, and can be merged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from loplax import nets, units

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(3)
X = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
NET = nets.MLP(hidden=(8, 6), outputs=3, normalization="layer")


class Block(nn.Module):
    """Two dense layers."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(5, name="last")(nn.tanh(nn.Dense(5, name="first")(x)))


class Nested(nn.Module):
    """Dense layers inside of others, one of which is called twice."""

    @nn.compact
    def __call__(self, x):
        shared = nn.Dense(5, name="shared")
        x = Block(name="block")(x)
        return nn.Dense(2, name="output")(nn.relu(shared(nn.relu(shared(inputs=x)))))


def plain(net=NET):
    return lambda key: (net.init(key, X)["params"], ())


def applied(net=NET):
    return lambda params, x: net.apply({"params": params}, x)


def adapted(net=NET, **options):
    start, wrap = nets.low_rank(plain(net), **{"rank": 2, "scale": 0.5} | options)
    return start(KEY)[0], wrap(applied(net)), wrap


def trained(params, seed=0):
    """With adapters that are not 0."""
    rng = np.random.default_rng(seed)
    draw = lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype)
    return params | {"low_rank": jax.tree.map(draw, params["low_rank"])}


@pytest.mark.parametrize("net", [NET, Nested()], ids=["mlp", "nested"])
def test_at_first_the_network_is_what_it_is_without(net):
    params, apply, _ = adapted(net)
    bare, _ = plain(net)(KEY)
    without = {name: value for name, value in params.items() if name != "low_rank"}
    jax.tree.map(np.testing.assert_array_equal, without, bare)
    np.testing.assert_array_equal(apply(params, X), applied(net)(bare, X))


@pytest.mark.parametrize("net", [NET, Nested()], ids=["mlp", "nested"])
def test_merging_leaves_the_outputs(net):
    params, apply, _ = adapted(net)
    params = trained(params)
    merge = jax.jit(nets.merge_low_rank)
    merged = merge(params, jax.random.key(9), 0.5)
    before, after = apply(params, X), apply(merged, X)
    assert np.abs(before - applied(net)(plain(net)(KEY)[0], X)).max() > 0.1
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    bare = {name: value for name, value in merged.items() if name != "low_rank"}
    np.testing.assert_array_equal(applied(net)(bare, X), after)
    shapes = lambda tree: jax.tree.map(lambda p: (p.shape, p.dtype), tree)
    assert shapes(merged) == shapes(params)
    again = merge(trained(merged, 1), jax.random.key(10), 0.5)
    one, other = (jax.tree.leaves(p["low_rank"]) for p in (merged, again))
    for a, b in zip(one, other, strict=True):
        assert not (a.any() and np.isin(a, b).any())  # no A is drawn twice


def test_the_second_path_is_that_of_numpy():
    params, apply, _ = adapted(nets.MLP(hidden=(8,), outputs=3), scale=0.25)
    params = trained(params)
    p = jax.tree.map(lambda x: np.asarray(x, float), params)
    inner, own = p["hidden_0"], p["low_rank"]["hidden_0"]
    h = X @ inner["kernel"] + inner["bias"] + 0.25 * (X @ own["a"]) @ own["b"]
    expected = np.maximum(h, 0) @ p["output"]["kernel"] + p["output"]["bias"]
    np.testing.assert_allclose(apply(params, X), expected, rtol=1e-4, atol=1e-5)


def test_all_dense_layers_but_those_named_have_one():
    layers = lambda **options: set(adapted(Nested(), **options)[0]["low_rank"])
    assert layers() == {"block", "shared"}
    assert layers(without=()) == {"block", "shared", "output"}
    assert layers(without=("block", "output")) == {"shared"}
    a = adapted(Nested())[0]["low_rank"]["block"]["first"]["a"]
    assert a.shape == (5, 2) and np.abs(a).max() <= 5**-0.5 and np.abs(a).max() > 0.2


def test_other_methods_go_the_second_path_too():
    params, apply, wrap = adapted()
    params = trained(params)
    embed = wrap(lambda p, x: NET.apply({"params": p}, x, method="embed"))
    output = params["output"]
    found = embed(params, X) @ output["kernel"] + output["bias"]
    np.testing.assert_allclose(found, apply(params, X), rtol=1e-5, atol=1e-6)


def test_units_have_both_paths():
    params, apply, _ = adapted()
    found = units.find(apply, params, X)
    assert not found.left_out
    groups = {group.name: group for group in found}
    paths = lambda axes: [(axis.path, axis.axis) for axis in axes]
    first = groups["hidden_0"]
    assert ("low_rank/hidden_0/b", 1) in paths(first.incoming)
    assert ("low_rank/hidden_1/a", 0) in paths(first.outgoing)
    assert {n for n in groups if n.startswith("low_rank/")} == {
        "low_rank/hidden_0",
        "low_rank/hidden_1",
    }


def test_many_are_adapted_side_by_side_with_traced_scales():
    start, _ = nets.low_rank(plain(), rank=2, scale=0.0)

    def run(key, scale):
        _, wrap = nets.low_rank(plain(), rank=2, scale=scale)
        params = trained(start(key)[0])
        merged = nets.merge_low_rank(params, key, scale)
        return [wrap(applied())(p, X) for p in (params, merged)]

    one, other = jax.jit(jax.vmap(run))(jax.random.split(KEY, 2), jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert np.abs(one[0] - one[1]).max() > 0.1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rank": 0}, "rank must be"),
        ({"without": ("hidden_0", "hidden_1", "output")}, "beside"),
    ],
)
def test_what_cannot_be_adapted_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        adapted(**options)


def test_a_network_without_flax_is_refused():
    with pytest.raises(ValueError, match="dense layers of Flax linen"):
        nets.low_rank(lambda key: ({"w": jnp.ones((3, 3))}, ()), rank=1, scale=1.0)
