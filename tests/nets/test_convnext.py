"""ConvNeXt V2: its norm, its shapes, its units."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import nets, units

pytestmark = pytest.mark.usefixtures("quick_compile")

NET = nets.ConvNeXt(outputs=3, dims=(4, 6), depths=(1, 2), side=3)
IMAGES = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    """Some at which norms and biases are not what they start as."""
    started = jax.jit(NET.init)(jax.random.key(0), IMAGES)["params"]
    rng = np.random.default_rng(1)
    noise = lambda p: p + 0.3 * rng.normal(size=p.shape).astype(np.float32)
    return jax.tree.map(noise, started)


def apply(params, x, **how):
    return NET.apply({"params": params}, x, **how)


def test_the_response_norm_is_that_of_numpy():
    norm, rng = nets.GlobalResponseNorm(), np.random.default_rng(2)
    x = rng.normal(size=(2, 3, 4, 5))
    scale, bias = rng.normal(size=(2, 5))
    expected = np.empty_like(x)
    for i in range(2):
        lengths = [np.sqrt((x[i, :, :, c] ** 2).sum()) for c in range(5)]
        for c in range(5):
            response = lengths[c] / (np.mean(lengths) + 1e-6)
            expected[i, :, :, c] = scale[c] * x[i, :, :, c] * response + bias[c]
    variables = {"params": {"scale": jnp.float32(scale), "bias": jnp.float32(bias)}}
    found = norm.apply(variables, jnp.float32(x))
    np.testing.assert_allclose(found, expected + x, rtol=1e-4, atol=1e-5)
    fresh = norm.init(jax.random.key(0), jnp.float32(x))
    np.testing.assert_array_equal(norm.apply(fresh, jnp.float32(x)), np.float32(x))


def test_the_network_is_the_published_one_in_numpy(params):
    """Written out once more, with loops over the taps of each kernel."""
    p = jax.tree.map(lambda x: np.asarray(x, float), params)

    def norm(x, own):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-6) * own["scale"] + own["bias"]

    def patches(x, own):
        h, w = (n // 2 * 2 for n in x.shape[:2])
        taps = [x[i:h:2, j:w:2] @ own["kernel"][i, j] for i in (0, 1) for j in (0, 1)]
        return sum(taps) + own["bias"]

    def depthwise(x, own):
        h, w, _ = x.shape
        wide = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        taps = [
            wide[i : i + h, j : j + w] * own["kernel"][i, j, 0]
            for i in range(3)
            for j in range(3)
        ]
        return sum(taps) + own["bias"]

    def dense(x, own):
        return x @ own["kernel"] + own["bias"]

    def block(x, own):
        y = dense(norm(depthwise(x, own["depthwise"]), own["norm"]), own["expand"])
        erf = np.vectorize(math.erf)
        y = y / 2 * (1 + erf(y / np.sqrt(2)))
        lengths = np.sqrt((y**2).sum((0, 1)))
        y = own["response_norm"]["scale"] * y * lengths / (lengths.mean() + 1e-6) + (
            own["response_norm"]["bias"] + y
        )
        return x + dense(y, own["project"])

    def network(x):
        x = block(norm(patches(x, p["stem"]), p["stem_norm"]), p["block_0_0"])
        x = patches(norm(x, p["down_norm_1"]), p["down_1"])
        x = block(block(x, p["block_1_0"]), p["block_1_1"])
        return norm(x.mean((0, 1)), p["norm"])

    embedded = np.stack([network(image.astype(float)) for image in IMAGES])
    found = jax.jit(apply)(params, IMAGES)
    close = {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(found, dense(embedded, p["output"]), **close)
    found = jax.jit(lambda p: apply(p, IMAGES, method="embed"))(params)
    np.testing.assert_allclose(found, embedded, **close)


def test_all_layers_are_found(params):
    found = units.find(apply, params, IMAGES)
    assert not found.left_out
    blocks = ("block_0_0", "block_1_0", "block_1_1")
    inner = {f"{b}/{part}" for b in blocks for part in ("depthwise", "expand")}
    assert set(found.names) == {"stem", "down_1"} | inner
    owned = {axis.path for g in found for axis in g.incoming + g.outgoing}
    kernels = [p for p in units.paths.by_path(params).leaves if p.endswith("kernel")]
    assert owned == set(kernels)


def test_pointwise_layers_can_have_adapters(params):
    init = lambda key: (NET.init(key, IMAGES)["params"], ())
    start, _ = nets.low_rank(init, rank=2, scale=0.5)
    shapes = jax.eval_shape(start, jax.random.key(0))[0]["low_rank"]
    assert set(shapes) == {"block_0_0", "block_1_0", "block_1_1"}
    assert shapes["block_1_0"]["project"]["a"].shape == (24, 2)
    assert set(shapes["block_1_0"]) == {"expand", "project"}


def test_a_black_image_has_finite_gradients():
    params = NET.init(jax.random.key(0), IMAGES)["params"]
    grads = jax.jit(jax.grad(lambda p: apply(p, 0 * IMAGES).sum()))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"side": 4}, "side must be odd"),
        ({"dims": (4, 6, 8)}, "as many"),
        ({"dims": (), "depths": ()}, "as many"),
        ({"depths": (1, 0)}, "depths must be"),
        ({"patch": 0}, "patch must be"),
        ({"patch": 8}, "9 x 8 pixels are too small.*at least 16"),
    ],
)
def test_what_cannot_be_built_is_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        jax.eval_shape(NET.clone(**changes).init, jax.random.key(0), IMAGES)
