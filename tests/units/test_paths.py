"""One path for a parameter, whatever a framework wraps around it."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from loplax import optim, units
from loplax.units import paths


class Layer(eqx.Module):
    kernel: jax.Array
    bias: jax.Array


def nnx_model():
    model = nnx.Module()
    model.a = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    model.layers = nnx.List([nnx.Linear(4, 4, rngs=nnx.Rngs(i)) for i in range(2)])
    return model


PLAIN = nnx.to_pure_dict(nnx.state(nnx_model()))
BOXED = jax.tree.map(lambda x: nn.Partitioned(x, (None,) * x.ndim), PLAIN)
TREES = {
    "pure dict": PLAIN,
    "nnx.State": nnx.state(nnx_model(), nnx.Param),
    "nnx module": nnx_model(),
    "nn.Partitioned": BOXED,
    "nn.LogicallyPartitioned": jax.tree.map(
        lambda x: nn.LogicallyPartitioned(x, (None,) * x.ndim), PLAIN
    ),
    "Equinox": {
        "a": Layer(**PLAIN["a"]),
        "layers": [Layer(**PLAIN["layers"][i]) for i in range(2)],
    },
}
EXPECTED = [
    "a/bias", "a/kernel",
    "layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/kernel",
]  # fmt: skip


@pytest.mark.parametrize("host", TREES)
def test_a_parameter_has_one_path_in_every_host(host):
    tree = TREES[host]
    found = paths.by_path(tree)
    assert sorted(found.leaves) == EXPECTED
    for path, leaf in paths.by_path(PLAIN).leaves.items():
        np.testing.assert_array_equal(found.leaves[path], leaf)
    again = found.unflatten()
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, again, tree)
    named = jax.tree.map_with_path(lambda path, _: paths.name(path), tree)
    assert jax.tree.leaves(named) == list(found.leaves)


def test_a_parameter_may_be_called_value():
    """Only what frameworks call so is a box: a key is a name, and so is the root."""
    tree = {"critic": {"value": jnp.ones(2)}}
    assert list(paths.by_path(tree).leaves) == ["critic/value"]

    class Critic(eqx.Module):
        value: jax.Array

    assert list(paths.by_path(Critic(jnp.ones(2))).leaves) == ["value"]


@pytest.mark.parametrize("box", [lambda x: x, nnx.Param])
def test_two_parameters_with_one_path_are_refused(box):
    """By units and by transformations, not only where units are found."""
    tree = {"a": {"b": box(jnp.ones((2, 2)))}, "a/b": box(jnp.ones((2, 2)))}
    with pytest.raises(ValueError, match="Two parameters have the path 'a/b'"):
        units.check([], tree)
    kernel, head = units.WeightAxis("a/b", 1), units.WeightAxis("c", 0)
    group = units.UnitGroup("a", 2, (kernel,), (), (), (head,))
    with pytest.raises(ValueError, match="Two parameters have the path 'a/b'"):
        optim.ccbp(optax.sgd(0.1), [group], key=jax.random.key(0)).init(tree)
