"""find: units of plain functions, and what it leaves out."""

import jax
import jax.numpy as jnp
import pytest

from loplax import units

X = jnp.linspace(-1.0, 1.0, 4 * 5).reshape(4, 5)
IMAGE = jnp.sin(jnp.arange(2 * 8 * 8 * 3.0)).reshape(2, 8, 8, 3)


def weights(*shapes, **named):
    """Parameters ``w0, w1, ...`` and others by name."""
    shapes = {f"w{i}": shape for i, shape in enumerate(shapes)} | named
    return {name: jnp.ones(shape) for name, shape in shapes.items()}


def axes(records):
    return [(r.path, r.axis, r.repeat, r.start) for r in records]


ACTIVATIONS = [
    "relu", "gelu", "tanh", "elu", "swish", "leaky_relu", "sigmoid", "silu",
    "softplus", "celu", "selu", "mish",
]  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_the_units(name, prove):
    """Every usual activation acts on units one by one."""

    def apply(params, x):
        return getattr(jax.nn, name)(x @ params["w0"] + params["b"]) @ params["w1"]

    (group,) = prove(apply, weights((5, 6), (6, 2), b=(6,)), X)
    assert group.name == "w0" and group.size == 6
    assert axes(group.biases) == [("b", 0, (1, 1), 0)]


def test_matrix_on_the_left_and_transposed():
    """``W @ x`` and ``x @ W.T`` put the units on axis 0 of the kernel."""

    def apply(params, x):
        return jnp.tanh(params["w0"] @ x) @ params["w1"].T

    (group,) = units.find(apply, weights((6, 5), (2, 6)), X[0])
    assert axes(group.incoming) == [("w0", 0, (1, 1), 0)]
    assert axes(group.outgoing) == [("w1", 1, (1, 1), 0)]


def test_shapes_suffice():
    """Nothing is executed: shapes are enough."""
    params = jax.eval_shape(lambda: weights((5, 6), (6, 2)))

    def apply(params, x):
        return jnp.tanh(x @ params["w0"]) @ params["w1"]

    assert units.find(apply, params, jax.eval_shape(lambda: X)).names == ("w0",)


def conv(x, kernel, layout="NHWC", **options):
    kernel_layout = {"NHWC": "HWIO", "NCHW": "OIHW"}[layout]
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=(layout, kernel_layout, layout),
        **options,
    )  # fmt: skip


def pool(x, window):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def test_flattened_image(prove):
    """Behind a flattened image each channel owns one row per pixel."""

    def apply(params, x):
        x = pool(jax.nn.relu(conv(x, params["w0"]) + params["b"]), (1, 4, 4, 1))
        return jax.nn.relu(x.reshape(2, -1) @ params["w1"]) @ params["w2"]

    params = weights((3, 3, 3, 4), (16, 6), (6, 2), b=(4,))
    first, second = prove(apply, params, IMAGE)
    assert axes(first.outgoing) == [("w1", 0, (4, 1), 0)]
    assert second.name == "w1"


def test_flattened_image_channels_first(prove):
    """With channels first, each channel owns a run of rows."""

    def apply(params, x):
        x = conv(x, params["w0"], "NCHW") + params["b"][:, None, None]
        return jax.nn.relu(pool(x, (1, 1, 4, 4))).reshape(2, -1) @ params["w1"]

    params = weights((4, 3, 3, 3), (16, 2), b=(4,))
    (group,) = prove(apply, params, jnp.moveaxis(IMAGE, 3, 1))
    assert axes(group.incoming) == [("w0", 0, (1, 1), 0)]
    assert axes(group.outgoing) == [("w1", 0, (1, 4), 0)]


@pytest.mark.parametrize("features", [4, 8])
def test_grouped_and_depthwise_convolutions(features, prove):
    """Units read by a grouped convolution own entries of one block each."""

    def apply(params, x):
        x = jax.nn.relu(conv(x, params["w0"]))
        x = jax.nn.relu(conv(x, params["w1"], feature_group_count=4))
        x = jax.nn.relu(conv(x, params["w2"], feature_group_count=2))
        return jnp.mean(x, (1, 2)) @ params["w3"]

    params = weights(
        (3, 3, 3, 4), (3, 3, 1, features), (3, 3, features // 2, 6), (6, 2)
    )
    found = prove(apply, params, IMAGE)
    assert found.names == ("w0", "w1", "w2")
    assert found[0].outgoing[0].groups == 4 and found[1].outgoing[0].groups == 2


def test_depthwise_kernel_without_input_axis(prove):
    """A depthwise kernel may be stored without its axis of length one."""

    def apply(params, x):
        x = jax.nn.relu(conv(x, params["w0"]))
        x = conv(x, params["w1"][:, :, None], feature_group_count=4)
        return jnp.mean(jax.nn.relu(x), (1, 2)) @ params["w2"]

    found = prove(apply, weights((3, 3, 3, 4), (3, 3, 4), (4, 2)), IMAGE)
    assert axes(found[0].outgoing) == [("w1", 2, (1, 1), 0)]
    found = prove(apply, weights((3, 3, 3, 4), (3, 3, 8), (8, 2)), IMAGE)
    assert found.names == ("w1",) and "4 groups" in found.left_out["w0"]


def test_crelu(prove):
    """CReLU shows every unit twice to the next layer."""

    def apply(params, x):
        x = x @ params["w0"] + params["b0"]
        x = jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)], axis=-1)
        return x @ params["w1"] + params["b1"]

    (group,) = prove(apply, weights((5, 6), (12, 2), b0=(6,), b1=(2,)), X)
    assert axes(group.outgoing) == [("w1", 0, (2, 1), 0)]
    assert group.outgoing[0].bias == "b1"


def test_concatenated_layers(prove):
    """Dense connections: each group starts at its own entry, norms included."""

    def apply(params, x):
        first = jax.nn.relu(x @ params["w0"])
        both = jnp.concatenate([first, jax.nn.relu(first @ params["w1"]), x], axis=-1)
        return jnp.tanh(both * params["scale"]) @ params["w2"]

    params = weights((5, 6), (6, 3), (14, 2), scale=(14,))
    first, second = prove(apply, params, X)
    assert axes(first.outgoing) == [("w1", 0, (1, 1), 0), ("w2", 0, (1, 1), 0)]
    assert axes(second.outgoing) == [("w2", 0, (1, 1), 6)]
    assert axes(second.scales) == [("scale", 0, (1, 1), 6)]


def test_residual_stream(prove):
    """A stream has several writers and readers; blocks have units of their own."""

    def apply(params, x):
        x = x @ params["w0"]
        x = x + jax.nn.relu(x @ params["w1"]) @ params["w2"]
        x = x + jax.nn.relu(x @ params["w3"]) @ params["w4"]
        return x @ params["w5"]

    params = weights((5, 6), (6, 3), (3, 6), (6, 4), (4, 6), (6, 2))
    stream, one, two = prove(apply, params, X)
    assert [r.path for r in stream.incoming] == ["w0", "w2", "w4"]
    assert [r.path for r in stream.outgoing] == ["w1", "w3", "w5"]
    assert (one.size, two.size) == (3, 4)


def test_gate(prove):
    """A gated unit is written by both of its columns."""

    def apply(params, x):
        return (x @ params["w0"] * jax.nn.sigmoid(x @ params["w1"])) @ params["w2"]

    (group,) = prove(apply, weights((5, 6), (5, 6), (6, 2)), X)
    assert [r.path for r in group.incoming] == ["w0", "w1"]


def test_two_heads(prove):
    """All readers of a layer are found, each with its own bias."""

    def apply(params, x):
        x = jax.nn.relu(x @ params["w0"])
        value = x @ params["w2"] + params["b2"]
        return {"policy": (x @ params["w1"] + params["b1"]) * 2, "value": value[:, 0]}

    params = weights((5, 6), (6, 3), (6, 1), b1=(3,), b2=(1,))
    (group,) = prove(apply, params, X)
    assert {r.path: r.bias for r in group.outgoing} == {"w1": "b1", "w2": "b2"}


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_calls_are_opened(wrap, prove):
    """jit and checkpoint around the model or a layer do not hide units."""

    @wrap
    def layer(kernel, x):
        return jax.nn.relu(x @ kernel)

    @wrap
    def apply(params, x):
        return layer(params["w1"], layer(params["w0"], x)) @ params["w2"]

    assert prove(apply, weights((5, 6), (6, 3), (3, 2)), X).names == ("w0", "w1")


def test_low_precision(prove):
    """Parameters that are stored or used in bfloat16 are followed."""

    def apply(params, x):
        low = {k: v.astype(jnp.bfloat16) for k, v in params.items()}
        return (jax.nn.relu(x @ low["w0"] + low["b"]) @ low["w1"]).astype(jnp.float32)

    (group,) = prove(apply, weights((5, 6), (6, 2), b=(6,)), X)
    assert axes(group.biases) == [("b", 0, (1, 1), 0)]


def test_scaled_kernel_and_tiled_units(prove):
    """A constant gain on a kernel and repeated activations are followed."""

    def apply(params, x):
        x = jnp.tile(jnp.tanh(x @ (params["w0"] * 0.3)), (1, 3))
        return jnp.repeat(x, 2, axis=1) @ params["w1"]

    (group,) = prove(apply, weights((5, 6), (36, 2)), X)
    assert axes(group.outgoing) == [("w1", 0, (3, 2), 0)]


def test_constants_and_statistics_are_no_data(prove):
    """Arrays with one entry per unit, constant or given, leave the units alone."""
    table = jnp.linspace(1.0, 2.0, 6)

    def apply(params, x, mean):
        return jnp.tanh((x @ params["w0"] - mean) * table) @ params["w1"]

    assert prove(apply, weights((5, 6), (6, 2)), X, table).names == ("w0",)


def test_token_mixing(prove):
    """Weights over another axis of the activation do not touch the units."""

    def apply(params, x):
        x = x @ params["w0"]
        mixed = jnp.einsum("ntd,ts->nsd", x, params["w1"])
        return jnp.einsum("nsd,st->ntd", jnp.tanh(mixed), params["w2"]) @ params["w3"]

    tokens = jnp.sin(jnp.arange(2 * 3 * 5.0)).reshape(2, 3, 5)
    found = prove(apply, weights((5, 6), (3, 4), (4, 3), (6, 2)), tokens)
    assert found.names == ("w0", "w1")


def test_learned_start_token(prove):
    """A learned vector that is put before the tokens is reset like a bias."""

    def apply(params, x):
        x = jnp.einsum("nti,io->nto", x, params["w0"])
        start = jnp.broadcast_to(params["start"], (2, 1, 6))
        return jnp.tanh(jnp.concatenate([start, x], axis=1))[:, 0] @ params["w1"]

    tokens = jnp.sin(jnp.arange(2 * 3 * 5.0)).reshape(2, 3, 5)
    (group,) = prove(apply, weights((5, 6), (6, 2), start=(1, 6)), tokens + 1)
    assert axes(group.biases) == [("start", 1, (1, 1), 0)]


def test_recurrent_residual(prove):
    """A layer that reads and writes one stream is both incoming and outgoing."""

    def apply(params, x):
        x = x @ params["w0"]
        return (x + jnp.tanh(x @ params["w1"])) @ params["w2"]

    (group,) = prove(apply, weights((5, 6), (6, 6), (6, 2)), X)
    assert axes(group.incoming) == [("w0", 1, (1, 1), 0), ("w1", 1, (1, 1), 0)]
    assert axes(group.outgoing) == [("w1", 0, (1, 1), 0), ("w2", 0, (1, 1), 0)]


def test_units_split_over_two_axes_and_joined_again(prove):
    """Reshaping units into pairs and back keeps them, with a bias in between."""

    def apply(params, x):
        x = (x @ params["w0"]).reshape(4, 3, 2) + params["b"].reshape(3, 2)
        return jnp.tanh(x).reshape(4, 6) @ params["w1"]

    (group,) = prove(apply, weights((5, 6), (6, 2), b=(6,)), X)
    assert axes(group.biases) == [("b", 0, (1, 1), 0)]
