"""Published weights: a network of timm in NumPy, and its weights in one of ours."""

import functools
import math
import pickle
import sys

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from loplax import nets
from loplax.nets import published
from tests.nets import timm_weights

pytestmark = pytest.mark.usefixtures("quick_compile")

NET = nets.ConvNeXt(outputs=5, dims=(4, 6, 8), depths=(1, 2, 1), patch=4)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 19, 16, 3), dtype=np.uint8)
MEAN, STD = np.array(published.IMAGENET_MEAN), np.array(published.IMAGENET_STD)
NO_CHANGE = {"mean": (0, 0, 0), "std": (1, 1, 1)}


invented = functools.partial(timm_weights.invented, NET)


def timm(weights, images):
    """ConvNeXt V2 written out in NumPy as timm's, ``[images, channels, h, w]``."""
    w = {name: x.astype(float).squeeze() for name, x in weights.items()}

    def conv(x, name, stride, pad=0, depthwise=False):
        kernel, bias = weights[f"{name}.weight"].astype(float), w[f"{name}.bias"]
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        side = kernel.shape[-1]
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (2, 3))
        windows = windows[:, :, ::stride, ::stride]
        law = "nchwij,cij->nchw" if depthwise else "nchwij,ocij->nohw"
        kernel = kernel[:, 0] if depthwise else kernel
        return np.einsum(law, windows, kernel) + bias[:, None, None]

    def norm(x, name):
        wide = (-1,) + (1,) * (x.ndim - 2)
        mean, var = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        scale, bias = (w[f"{name}.{p}"].reshape(wide) for p in ("weight", "bias"))
        return (x - mean) / np.sqrt(var + 1e-6) * scale + bias

    def pointwise(x, name):
        bias = w[f"{name}.bias"][:, None, None]
        return np.einsum("nchw,oc->nohw", x, w[f"{name}.weight"]) + bias

    def response_norm(x, name):
        length = np.sqrt((x**2).sum((2, 3), keepdims=True))
        response = length / (length.mean(1, keepdims=True) + 1e-6)
        scale, bias = (w[f"{name}.{p}"][:, None, None] for p in ("weight", "bias"))
        return scale * (x * response) + bias + x

    def block(x, name):
        y = norm(conv(x, f"{name}.conv_dw", 1, 3, depthwise=True), f"{name}.norm")
        y = pointwise(y, f"{name}.mlp.fc1")
        y = y * (1 + np.vectorize(math.erf)(y / np.sqrt(2))) / 2
        return x + pointwise(response_norm(y, f"{name}.mlp.grn"), f"{name}.mlp.fc2")

    x = norm(conv(images, "stem.0", 4), "stem.1")
    for i, depth in enumerate(NET.depths):
        if i > 0:
            stage = f"stages.{i}.downsample"
            x = conv(norm(x, f"{stage}.0"), f"{stage}.1", 2)
        for j in range(depth):
            x = block(x, f"stages.{i}.blocks.{j}")
    x = norm(x.mean((2, 3)), "head.norm")
    return x @ w["head.fc.weight"].T + w["head.fc.bias"]


@pytest.fixture(scope="module")
def apply():
    return jax.jit(lambda params, x: NET.apply({"params": params}, x))


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"pointwise": (1, 1), "response": lambda n: (1, n, 1, 1)},
        {"response": lambda n: (1, 1, 1, n)},
    ],
)
def test_outputs_are_those_of_timm(layout, apply, tmp_path):
    """Of images that are standardised there, and between 0 and 1 here."""
    weights = invented(**layout)
    safetensors_numpy.save_file(weights, tmp_path / "model.safetensors")
    params = nets.convnext_from(tmp_path / "model.safetensors", NET)
    images = IMAGES / 255
    expected = timm(weights, ((images - MEAN) / STD).transpose(0, 3, 1, 2))
    found = apply(params, images.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.1  # they say something of the images
    drawn = jax.eval_shape(NET.init, jax.random.key(0), images)["params"]
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(params) == shapes(drawn)


def test_the_stem_standardises_exactly(apply):
    weights = invented()
    images = (IMAGES / 255).astype(np.float32)
    standard = ((images - MEAN) / STD).astype(np.float32)
    found = apply(nets.convnext_from(weights, NET), images)
    expected = apply(nets.convnext_from(weights, NET, **NO_CHANGE), standard)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert abs(apply(nets.convnext_from(weights, NET), standard) - expected).max() > 0.1


def test_as_they_are_weights_come_bit_by_bit():
    weights = invented()
    params = nets.convnext_from(weights, NET, **NO_CHANGE)
    stem = weights["stem.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params["stem"]["kernel"], stem)
    depthwise = weights["stages.1.blocks.1.conv_dw.weight"]
    found = params["block_1_1"]["depthwise"]["kernel"]
    np.testing.assert_array_equal(found[..., 0, :], depthwise[:, 0].transpose(1, 2, 0))


def without(name):
    return lambda weights: weights.pop(name)


def beside(name, *shape):
    return lambda weights: weights.update({name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (without("head.norm.bias"), r"Missing: head\.norm\.bias\.$"),
        (beside("stages.0.blocks.0.gamma", 4), r"network: stages\.0\.blocks\.0\.gamma"),
        (beside("stages.1.blocks.2.norm.bias", 6), "Not of the network: stages.1.bl"),
        (beside("head.fc.weight", 6, 8), r"head\.fc\.weight.*\(5, 8\).*\(6, 8\)"),
        (beside("stem.0.weight", 4, 3, 2, 2), r"stem\.0\.weight.*\(4, 3, 4, 4\)"),
        (beside("stem.0.weight", 4, 4, 3, 4), r"got \(4, 4, 3, 4\)"),
        (beside("stages.0.blocks.0.conv_dw.weight", 1, 4, 7, 7), r"\(4, 1, 7, 7\)"),
        (beside("stages.0.blocks.0.mlp.fc1.weight", 4, 16), r"\(16, 4\).*\(4, 16\)"),
        (beside("stem.1.bias", 4, 1), r"stem\.1\.bias.*\(4,\).*\(4, 1\)"),
        (lambda weights: weights.clear(), "Missing: head.fc.bias, .* and 53 more"),
    ],
)
def test_what_does_not_match_is_refused_by_name(spoil, match):
    weights = invented()
    spoil(weights)
    with pytest.raises(ValueError, match=match):
        nets.convnext_from(weights, NET)


def test_the_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"stages\.0\.blocks\.1.*\.bias, .* more"):
        nets.convnext_from(invented(), NET.clone(depths=(2, 2, 1)))
    with pytest.raises(ValueError, match=r"head\.fc"):
        nets.convnext_from(invented(), NET.clone(outputs=6))


@pytest.mark.parametrize(
    "change",
    [{"mean": (0.5,)}, {"std": (0.2, 0, 0.2)}, {"mean": 0.5, "std": 0.2}],
)
def test_means_and_deviations_are_of_channels(change):
    with pytest.raises(ValueError, match="a number for each channel"):
        nets.convnext_from(invented(), NET, **change)


def test_a_file_that_is_none_of_safetensors(tmp_path):
    """A pickle, say: it is not even opened as one."""
    path = tmp_path / "model.pth"
    with pytest.raises(ValueError, match=r"model\.pth is no file"):
        nets.convnext_from(path, NET)
    path.write_bytes(pickle.dumps(invented()))
    with pytest.raises(ValueError, match=r"model\.pth is no file of safetensors"):
        nets.convnext_from(str(path), NET)


def test_what_is_missing_for_files_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'pip install "loplax\[weights\]"'):
        nets.convnext_from(tmp_path / "model.safetensors", NET)
    nets.convnext_from(invented(), NET)
