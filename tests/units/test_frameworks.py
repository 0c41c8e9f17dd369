"""find and tap on models written with flax linen, flax nnx and Equinox."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from loplax import units

X = jax.random.normal(jax.random.key(0), (3, 5))
IMAGE = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
TOKENS = jnp.arange(8).reshape(2, 4) % 7


class MLP(nn.Module):
    depth: int = 12
    layer: type = nn.Dense

    @nn.compact
    def __call__(self, x):
        for i in range(self.depth):
            x = nn.relu(self.layer(6, name=f"hidden_{i}")(x))
        return nn.Dense(2, name="output")(x)


def linen(module, *inputs, **options):
    """Apply function and parameters of a linen module; statistics are closed over."""
    keys = {"params": jax.random.key(2), "dropout": jax.random.key(3)}
    variables = module.init(keys, *inputs)
    rest = {k: v for k, v in variables.items() if k != "params"}

    def apply(params, *inputs):
        return module.apply({"params": params, **rest}, *inputs, **options)

    return apply, variables["params"]


def paths(records):
    return [record.path for record in records]


@pytest.mark.parametrize("layer", [nn.Dense, nn.remat(nn.Dense)])
def test_linen_mlp(layer, prove):
    """Forward order does not come from names: hidden_10 follows hidden_9."""
    found = prove(*linen(MLP(layer=layer), X), X)
    assert found.names == tuple(f"hidden_{i}" for i in range(12))
    for i, group in enumerate(found):
        reader = f"hidden_{i + 1}" if i < 11 else "output"
        assert paths(group.incoming) == [f"hidden_{i}/kernel"]
        assert paths(group.outgoing) == [f"{reader}/kernel"]
        assert group.outgoing[0].bias == f"{reader}/bias"


def test_key_order_is_irrelevant():
    """Any order of the keys gives the same groups."""
    apply, params = linen(MLP(), X)
    turned = dict(reversed(params.items()))
    assert units.find(apply, params, X) == units.find(apply, turned, X)


class Conv(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), use_bias=False, name="conv")(x)
        x = nn.BatchNorm(use_running_average=not self.train, name="norm")(x)
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = nn.Conv(4, (3, 3), feature_group_count=4, name="depthwise")(x)
        x = nn.avg_pool(nn.gelu(x), (2, 2), (2, 2))
        x = nn.Dropout(0.5, deterministic=False)(x.reshape(x.shape[0], -1))
        x = nn.relu(nn.Dense(6, name="dense")(x))
        return nn.Dense(2, name="output")(x)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm(train, prove):
    """Norm parameters belong to the units, with batch and running statistics."""
    module = Conv(train)
    keys = {"params": jax.random.key(4), "dropout": jax.random.key(5)}
    variables = module.init(keys, IMAGE)

    def apply(params, x, statistics, key):
        variables = {"params": params, "batch_stats": statistics}
        rngs = {"dropout": key}
        return module.apply(variables, x, mutable=["batch_stats"], rngs=rngs)

    inputs = (IMAGE, variables["batch_stats"], jax.random.key(6))
    found = units.find(apply, variables["params"], *inputs, has_aux=True)
    assert found.names == ("conv", "depthwise", "dense")
    assert paths(found[0].scales) == ["norm/scale"]
    assert paths(found[0].biases) == ["norm/bias"]
    assert found[1].outgoing[0].repeat == (4, 1)
    output, _ = units.tap(apply, has_aux=True)(variables["params"], *inputs)
    expected = apply(variables["params"], *inputs)
    jax.tree.map(np.testing.assert_array_equal, output, expected)

    def alone(params, x):
        return apply(params, x, *inputs[1:])[0]

    assert prove(alone, variables["params"], IMAGE) == found


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.GroupNorm(2, name="norm")(nn.Conv(4, (3, 3), name="stem")(x)))
        for i in range(2):
            y = nn.relu(nn.Conv(6, (3, 3), name=f"block_{i}_in")(x))
            x = nn.relu(x + nn.Conv(4, (3, 3), name=f"block_{i}_out")(y))
        x = nn.relu(nn.Conv(8, (1, 1), strides=(2, 2), name="wider")(x))
        return nn.Dense(2, name="output")(x.mean((1, 2)))


def test_residual_network(prove):
    """The stream has all writers and readers; each block has units of its own."""
    apply, params = linen(ResNet(), IMAGE)
    found = prove(apply, params, IMAGE)
    assert found.names == ("stem", "block_0_in", "block_1_in", "wider")
    stream = found[0]
    assert paths(stream.incoming) == [
        f"{name}/kernel" for name in ("stem", "block_0_out", "block_1_out")
    ]
    assert paths(stream.outgoing) == [
        f"{name}/kernel" for name in ("block_0_in", "block_1_in", "wider")
    ]
    assert paths(stream.scales) == ["norm/scale"]


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(7, 8, name="embed")(tokens)
        x = x + self.param("position", nn.initializers.normal(), (4, 8))
        y = nn.LayerNorm(name="norm_0")(x)
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(y)
        y = nn.gelu(nn.Dense(16, name="mlp_in")(nn.LayerNorm(name="norm_1")(x)))
        x = x + nn.Dense(8, name="mlp_out")(y)
        return nn.Dense(7, name="output")(nn.LayerNorm(name="norm_2")(x)[:, 0])


def test_transformer(prove):
    """The MLP and the stream are found; attention is left out with a reason."""
    found = prove(*linen(Transformer(), TOKENS), TOKENS)
    assert found.names == ("embed", "mlp_in")
    stream, hidden = found
    attention = [f"attention/{name}/kernel" for name in ("query", "key", "value")]
    assert paths(stream.incoming) == [
        "embed/embedding", "attention/out/kernel", "mlp_out/kernel"
    ]  # fmt: skip
    assert set(paths(stream.outgoing)) == {
        *attention, "mlp_in/kernel", "output/kernel"
    }  # fmt: skip
    assert ("position", 1) in [(r.path, r.axis) for r in stream.biases]
    assert paths(stream.scales) == [f"norm_{i}/scale" for i in range(3)]
    assert stream.outgoing[0].bias == "attention/query/bias"
    assert paths(hidden.biases) == ["mlp_in/bias"]
    assert set(found.left_out) == {f"attention/{n}" for n in ("query", "key", "value")}
    assert "attention/query/kernel" in found.left_out["attention/query"]


class Heads(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(name="norm")(nn.Dense(6, name="trunk")(x))
        x = nn.tanh(x)
        return nn.Dense(3, name="policy")(x), nn.Dense(1, name="value")(x)[..., 0]


def test_actor_critic(prove):
    """Two heads read one layer; a head of one unit still has its bias."""
    (group,) = prove(*linen(Heads(), X), X)
    assert paths(group.outgoing) == ["policy/kernel", "value/kernel"]
    assert [r.bias for r in group.outgoing] == ["policy/bias", "value/bias"]
    assert paths(group.scales) == ["norm/scale"]


def test_equinox(prove):
    """An Equinox model under vmap, its static leaves split off."""
    model = eqx.nn.MLP(5, 2, 6, 2, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_array)

    def apply(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    first, second = prove(apply, params, X)
    assert (first.name, second.name) == ("layers/0", "layers/1")
    assert first.incoming[0] == units.WeightAxis("layers/0/weight", 0)
    assert first.outgoing[0].axis == 1 and first.outgoing[0].bias == "layers/1/bias"
    features = units.tap(apply)(params, X)[1]
    np.testing.assert_allclose(
        features["layers/0"], jax.nn.relu(jax.vmap(model.layers[0])(X)), rtol=1e-5
    )


class EquinoxConv(eqx.Module):
    conv: eqx.nn.Conv2d
    linear: eqx.nn.Linear

    def __call__(self, x):
        return self.linear(jnp.ravel(jax.nn.relu(self.conv(x))))


def test_equinox_convolution(prove):
    """Channels-first images under vmap are flattened in runs of rows."""
    model = EquinoxConv(
        eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0)),
        eqx.nn.Linear(4 * 36, 2, key=jax.random.key(1)),
    )
    images = jnp.moveaxis(IMAGE, 3, 1)
    (group,) = prove(lambda model, x: jax.vmap(model)(x), model, images)
    assert group.outgoing[0].repeat == (1, 36)
    assert paths(group.biases) == ["conv/bias"]


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(5, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.second = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.second(self.dropout(nnx.relu(self.norm(self.first(x)))))


def test_nnx(prove):
    """An nnx model through split and merge; statistics and keys are not parameters."""
    graph, params, rest = nnx.split(NNX(nnx.Rngs(0)), nnx.Param, ...)

    def apply(params, x, rest):
        return nnx.merge(graph, params, rest)(x)

    (group,) = prove(apply, params, X, rest)
    assert group.name == "first"
    assert group.incoming[0].path.startswith("first/kernel")
    assert [r.path.split("/")[0] for r in group.scales] == ["norm"]
