"""What each parameter does to its units: a factor, a shift, or neither."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

X = jax.random.normal(jax.random.key(0), (3, 5))
SHAPES = {"w": (5, 6), "u": (6, 6), "c": (6, 2), "b": (6,), "g": (6,), "d": (2,)}
PARAMS = {name: jnp.ones(shape) for name, shape in SHAPES.items()}


def normed(h):
    return (h - h.mean(-1, keepdims=True)) * jax.lax.rsqrt(h.var(-1, keepdims=True) + 1)


def dense(h):
    return lambda p, x: jnp.tanh(h(p, x @ p["w"])) @ p["c"] + p["d"]


CASES = {
    "bias": (dense(lambda p, h: h + p["b"]), "b", ""),
    "bias subtracted": (dense(lambda p, h: p["b"] - h), "b", ""),
    "bias behind the activation": (dense(lambda p, h: jnp.sin(h) + p["b"]), "b", ""),
    "layer norm": (dense(lambda p, h: normed(h) * p["g"] + p["b"]), "b", "g"),
    "norm without shift": (dense(lambda p, h: normed(h) * p["g"]), "", "g"),
    "one plus g": (dense(lambda p, h: normed(h) * (1 + p["g"]) + p["b"]), "b", "g"),
    "one minus g": (dense(lambda p, h: h * (1 - p["g"])), "", "g"),
    "divided": (dense(lambda p, h: h / p["g"]), "", "g"),
    "slope": (dense(lambda p, h: jnp.where(h > 0, h, p["g"] * h)), "", "g"),
    "slope in a sum": (
        dense(lambda p, h: jnp.maximum(h, 0) + p["g"] * jnp.minimum(h, 0)), "", "g"
    ),
    "bias and slope": (
        dense(lambda p, h: jax.nn.relu(h + p["b"]) - p["g"] * jax.nn.relu(-h - p["b"])),
        "b", "g",
    ),
    "layer scale": (
        dense(lambda p, h: h + p["g"] * (jnp.tanh(h) @ p["u"] + p["b"])), "b", "g"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_roles(case, prove):
    """The laws hold for either role; the value at a restart does not."""
    apply, biases, scales = CASES[case]
    (group,) = prove(apply, PARAMS, X)
    roles = ["".join(r.path for r in part) for part in (group.biases, group.scales)]
    assert roles == [biases, scales]
    assert [r.bias for r in group.outgoing][-1] == "d"


NORMS = {
    "LayerNorm": nn.LayerNorm(),
    "RMSNorm": nn.RMSNorm(),
    "GroupNorm": nn.GroupNorm(num_groups=2),
    "BatchNorm": nn.BatchNorm(use_running_average=True),
    "PReLU": nn.PReLU(),
}


@pytest.mark.parametrize("norm", NORMS)
def test_roles_of_layers(norm, prove):
    """The names that flax gives its parameters agree with the roles."""
    net = nn.Sequential([nn.Dense(6), NORMS[norm], jnp.tanh, nn.Dense(2)])
    variables = net.init(jax.random.key(0), X)
    rest = {"batch_stats": variables.get("batch_stats", {})}
    apply = lambda params, x, rest: net.apply({"params": params} | rest, x)
    (group,) = prove(apply, variables["params"], X, rest)
    own = variables["params"].get("layers_1", {})
    at = lambda key: [f"layers_1/{key}"] * (key in own)
    assert [r.path for r in group.biases] == ["layers_0/bias", *at("bias")]
    assert [r.path for r in group.scales] == at("scale")
