"""The network of Continual ImageNet: sizes, one output by NumPy, units."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import nets, units

pytestmark = pytest.mark.usefixtures("quick_compile")

SIZES = {"filters": (3, 4), "kernels": (3, 2), "hidden": (5,)}


def shapes(net, image):
    return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(image))["params"]


def test_layers_as_published():
    """Kernel by kernel; 32x32 becomes 28, 14, 12, 6, 4 and 2."""
    found = jax.tree.map(jnp.shape, shapes(nets.ConvNet(2), (32, 32, 3)))
    assert found == {
        "conv_0": {"kernel": (5, 5, 3, 32), "bias": (32,)},
        "conv_1": {"kernel": (3, 3, 32, 64), "bias": (64,)},
        "conv_2": {"kernel": (3, 3, 64, 128), "bias": (128,)},
        "dense": {
            "hidden_0": {"kernel": (2 * 2 * 128, 128), "bias": (128,)},
            "hidden_1": {"kernel": (128, 128), "bias": (128,)},
            "output": {"kernel": (128, 2), "bias": (2,)},
        },
    }


@pytest.mark.parametrize(
    ("kernel_init", "hidden", "output"),
    [(None, 6, 3), (nets.pytorch_uniform(), 1, 1)],
)
def test_initial_weights(kernel_init, hidden, output):
    """Uniform, with gain sqrt(2) before ReLU and 1 at the output; biases are 0."""
    init = jax.jit(nets.ConvNet(200, kernel_init=kernel_init).init)
    params = init(jax.random.key(0), jnp.zeros((32, 32, 3)))["params"]
    dense = params.pop("dense")
    for name, layer in (params | dense).items():
        assert not layer["bias"].any()
        fan_in = layer["kernel"][..., 0].size
        bound = np.sqrt((output if name == "output" else hidden) / fan_in)
        assert 0.98 * bound < abs(layer["kernel"]).max() <= bound
        np.testing.assert_allclose(layer["kernel"].std(), bound / np.sqrt(3), rtol=0.05)


@pytest.mark.parametrize("lead", [(), (7,), (2, 7)])
def test_one_image_or_any_batch(lead):
    net, image = nets.ConvNet(2), (*lead, 32, 32, 3)
    variables = {"params": shapes(net, image)}
    assert jax.tree.map(jnp.shape, variables["params"]) == jax.tree.map(
        jnp.shape, shapes(net, (32, 32, 3))
    )
    assert jax.eval_shape(net.apply, variables, jnp.zeros(image)).shape == (*lead, 2)


def pool(x):
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


@pytest.mark.parametrize(
    ("activation", "normalization"), [("tanh", "none"), ("crelu", "layer")]
)
def test_output(convolve, activation, normalization):
    """Layer by layer, as NumPy computes it; a map's layer norm is over all of it."""
    net = nets.ConvNet(3, activation=activation, normalization=normalization, **SIZES)
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 14, 13, 2))
    params = jax.tree.map(
        lambda p: random.normal(size=p.shape) / p.size**0.25, shapes(net, x.shape)
    )

    if normalization == "layer":  # a scale for each unit, not for each pixel
        assert params["norm_1"]["scale"].shape == (4,)

    def activate(h, norm=None):
        if normalization == "layer":
            axes = tuple(range(1, h.ndim))
            h = (h - h.mean(axes, keepdims=True)) / h.std(axes, keepdims=True)
            h = h * norm["scale"] + norm["bias"]
        if activation == "crelu":
            return np.maximum(np.concatenate([h, -h], axis=-1), 0)
        return np.tanh(h)

    h = x
    for i in range(2):
        h = convolve(h, params[f"conv_{i}"])
        h = pool(activate(h, params.get(f"norm_{i}")))
    dense = params["dense"]
    h = h.reshape(2, -1) @ dense["hidden_0"]["kernel"] + dense["hidden_0"]["bias"]
    h = activate(h, dense.get("norm_0"))
    expected = h @ dense["output"]["kernel"] + dense["output"]["bias"]
    found = jax.jit(net.apply)({"params": params}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_units():
    """Each unit of the last convolution owns one row per pixel of the last map."""
    net = nets.ConvNet(2)
    params = shapes(net, (32, 32, 3))
    apply = lambda params, x: net.apply({"params": params}, x)
    found = units.find(apply, params, jnp.zeros((4, 32, 32, 3)))
    names = ("conv_0", "conv_1", "conv_2", "dense/hidden_0", "dense/hidden_1")
    sizes = (32, 64, 128, 128, 128)
    reader = functools.partial(units.WeightAxis, block_axis=3)
    outgoing = (
        reader("conv_1/kernel", 2, bias="conv_1/bias"),
        reader("conv_2/kernel", 2, bias="conv_2/bias"),
        reader("dense/hidden_0/kernel", 0, (4, 1), bias="dense/hidden_0/bias"),
        reader("dense/hidden_1/kernel", 0, bias="dense/hidden_1/bias"),
        reader("dense/output/kernel", 0, bias="dense/output/bias"),
    )
    dense = [axis._replace(block_axis=1) for axis in outgoing[2:]]
    expected = tuple(
        units.UnitGroup(
            name=name,
            size=size,
            incoming=(units.WeightAxis(f"{name}/kernel", 3 if "conv" in name else 1),),
            biases=(units.WeightAxis(f"{name}/bias", 0),),
            scales=(),
            outgoing=(axis,),
        )
        for name, size, axis in zip(names, sizes, [*outgoing[:2], *dense], strict=True)
    )
    assert tuple(found) == expected
    assert not found.left_out


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"activation": "rely"}, "'rely'"),
        ({"normalization": "batch"}, "'batch'"),
        ({"filters": (3, 0)}, "filters"),
        ({"kernels": (3, -2)}, "kernels"),
        ({"kernels": (3,)}, "as many"),
        ({"hidden": (0,)}, "hidden"),
        ({"outputs": 0}, "outputs"),
    ],
)
def test_bad_attributes(options, named):
    with pytest.raises(ValueError, match=named):
        nets.ConvNet(**({"outputs": 1} | SIZES | options))


def test_images_that_vanish():
    """24x24 is the least: 20, 10, 8, 4, 2 and 1; from 23x23, conv_2 makes 1x1."""
    shapes(nets.ConvNet(2), (24, 24, 3))
    with pytest.raises(ValueError, match=r"\(23, 24, 3\).*conv_2"):
        shapes(nets.ConvNet(2), (23, 24, 3))
