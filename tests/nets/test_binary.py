"""Binarised networks against NumPy, and their units."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import nets, units

pytestmark = pytest.mark.usefixtures("quick_compile")

X = jax.random.normal(jax.random.key(0), (6, 5))
IMAGES = jax.random.normal(jax.random.key(1), (3, 8, 8, 2))


@functools.cache
def start(net, shape):
    variables = jax.jit(net.init)(jax.random.key(2), jnp.ones(shape))
    rng = np.random.default_rng(0)
    noise = lambda x: np.float32(x + 0.3 * rng.normal(size=x.shape))
    params = jax.tree.map(noise, variables["params"])  # norms that do something
    return params, variables.get("batch_stats", {})


def learning(net):
    def apply(params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        y, new = net.apply(variables, x, train=True, mutable=["batch_stats"])
        return y, new.get("batch_stats", {})

    return jax.jit(apply)


def predicting(net):
    return jax.jit(
        lambda params, stats, x: net.apply({"params": params, "batch_stats": stats}, x)
    )


def normalised(x, axes, layer):
    x = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    norm = layer.get("norm", {"scale": 1.0, "bias": 0.0})
    return x * norm["scale"] + norm["bias"]


def by_hand(params, x, axes, binary=True):
    """A network of two hidden layers, with statistics of the batch or the example."""
    params = jax.tree.map(np.float64, params)
    binarise = np.sign if binary else lambda w: w
    activate = np.sign if binary else lambda x: np.maximum(x, 0)
    for name in ("hidden_0", "hidden_1", "output"):
        x = np.float64(x) @ binarise(params[name]["kernel"])
        x = normalised(x, axes, params[name])
        x = activate(x) if name != "output" else x
    return x


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_forward(normalization, affine, binary):
    """The same with running statistics in training, and without in evaluation."""
    make = functools.partial(nets.BinaryMLP, (8, 7), 3, normalization, affine)
    params, stats = start(make(True, binary), X.shape)
    expected = by_hand(params, X, 0 if normalization == "batch" else 1, binary)
    outputs, _ = learning(make(True, binary))(params, stats, X)
    np.testing.assert_allclose(outputs, expected, 1e-3, 1e-4)
    plain = make(False, binary)
    for apply in (learning(plain), lambda *args: (predicting(plain)(*args), {})):
        outputs, none = apply(params, {}, X)
        assert none == {}
        np.testing.assert_allclose(outputs, expected, 1e-3, 1e-4)


def test_running_statistics():
    """They move by a tenth, and evaluation uses them and no other."""
    net = nets.BinaryMLP((8,), 3)
    params, stats = start(net, X.shape)
    _, new = learning(net)(params, stats, X)
    h = np.asarray(X) @ np.sign(params["hidden_0"]["kernel"])
    norm = new["hidden_0"]["norm"]
    np.testing.assert_allclose(norm["mean"], 0.1 * h.mean(0), 1e-4, 1e-6)
    np.testing.assert_allclose(norm["var"], 0.9 + 0.1 * h.var(0), 1e-4)
    whole = predicting(net)(params, new, X)
    np.testing.assert_allclose(predicting(net)(params, new, X[:1]), whole[:1], 1e-5)


def straight_through(x, limit):
    """The same derivative by another form."""
    smooth = jnp.clip(x, -1, 1) if limit else x
    return smooth + jax.lax.stop_gradient(jnp.sign(x) - smooth)


def test_gradients_pass_straight_through():
    """All latent weights get the gradient of their sign, also far from 0."""
    net = nets.BinaryMLP((8, 7), 3, running=False)
    params, _ = start(net, X.shape)
    params = jax.tree.map(np.copy, params)
    params["hidden_1"]["kernel"] *= 5

    def plain(params, x):
        for name in ("hidden_0", "hidden_1", "output"):
            layer = params[name]
            x = x @ straight_through(layer["kernel"], limit=False)
            x = (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)
            x = x * layer["norm"]["scale"] + layer["norm"]["bias"]
            x = straight_through(x, limit=True) if name != "output" else x
        return x

    target = jax.random.normal(jax.random.key(5), (6, 3))
    loss = lambda apply: lambda p: jnp.sum((apply(p) - target) ** 2)
    own = lambda p: predicting(net)(p, {}, X)
    grad = lambda apply: jax.jit(jax.grad(loss(apply)))(params)
    found, expected = grad(own), grad(lambda p: plain(p, X))
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(new, old, 1e-3, 1e-4)
    assert all(np.any(layer["kernel"]) for layer in found.values())


def test_boundaries_and_other_derivatives():
    """0 has the sign 0; |x| = 1 passes gradients; forward derivatives exist."""
    x = jnp.array([-1.001, -1.0, -0.0, 0.0, 1.0, 1.001])
    for function, passed in (
        (nets.sign_identity, [1, 1, 1, 1, 1, 1]),
        (nets.sign_hardtanh, [0, 1, 1, 1, 1, 0]),
    ):
        y, tangent = jax.jvp(function, (x,), (2 * jnp.ones(6),))
        np.testing.assert_array_equal(y, [-1, -1, 0, 0, 1, 1])
        np.testing.assert_array_equal(tangent, 2 * np.array(passed))
        (back,) = jax.vjp(function, x)[1](jnp.ones(6))
        np.testing.assert_array_equal(back, passed)
    hessian = jax.hessian(lambda w: jnp.sum(nets.sign_identity(w) ** 2))(x)
    np.testing.assert_array_equal(hessian, 2 * np.eye(6))


def test_inputs_and_dropout():
    """Signs of inputs as an option; what is not dropped stays a sign."""
    net = nets.BinaryMLP((50,), 3, running=False, binarize_input=True, dropout=0.5)
    params, _ = start(net, X.shape)
    predict = predicting(net)
    same = predict(params, {}, jnp.sign(X))
    np.testing.assert_array_equal(predict(params, {}, X), same)
    layer = nets.BinaryDense(4, binarize_input=True)
    kernel = layer.init(jax.random.key(0), X)
    signs = jnp.sign(X) @ jnp.sign(kernel["params"]["kernel"])
    np.testing.assert_array_equal(layer.apply(kernel, X), signs)
    apply = lambda p, x: net.apply(
        {"params": p}, x, train=True, rngs={"dropout": jax.random.key(4)}
    )
    features = jax.jit(units.tap(apply))(params, X)[1]["hidden_0"]
    assert set(np.unique(features)) == {-1, 0, 1}
    assert 0.3 < np.mean(features == 0) < 0.7


@pytest.mark.parametrize("patches", [False, True])
def test_convolutions(convolve, patches):
    """Padding is 0, pools come before norms, the last convolution has no padding."""
    net = nets.BinaryVGG(3, (4, 6), (5,), running=False, patches=patches)
    params, _ = start(net.clone(patches=False), IMAGES.shape)
    x, weights = np.float64(IMAGES), jax.tree.map(np.float64, params)
    for name, padding in (("conv_0", 1), ("conv_1", 0)):
        layer = {"kernel": np.sign(weights[name]["kernel"]), "bias": 0}
        x = convolve(x, layer, padding=padding)
        if name == "conv_1":
            x = x.reshape(3, 3, 2, 3, 2, 6).max((2, 4))
        x = np.sign(normalised(x, (0, 1, 2), weights[name]))
    x = x.reshape(3, -1)
    for name in ("hidden_0", "output"):
        layer = weights["dense"][name]
        x = normalised(x @ np.sign(layer["kernel"]), 0, layer)
        x = np.sign(x) if name == "hidden_0" else x
    found = jax.jit(net.apply)({"params": params}, IMAGES)
    np.testing.assert_allclose(found, x, 1e-3, 1e-4)


def test_the_network_of_the_paper():
    """Its layers have the published sizes."""
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    net = nets.BinaryVGG(10)
    shapes = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
    kernels = [shapes[f"conv_{i}"]["kernel"].shape[2:] for i in range(6)]
    assert kernels == [
        (3, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)
    ]  # fmt: skip
    dense = shapes["dense"]
    assert dense["hidden_0"]["kernel"].shape == (4608, 2048)
    assert dense["output"]["kernel"].shape == (2048, 10)
    layer = nets.BinaryVGG(10, (4, 4), (5,), "layer")
    assert "batch_stats" not in jax.eval_shape(layer.init, jax.random.key(0), IMAGES)


NETWORKS = {
    "batch": (nets.BinaryMLP((8, 7), 3), X),
    "not affine": (nets.BinaryMLP((8, 7), 3, affine=False, binarize_input=True), X),
    "layer": (nets.BinaryMLP((8, 7), 3, "layer"), X),
    "real": (nets.BinaryMLP((8, 7), 3, binary=False), X),
    "images": (nets.BinaryVGG(3, (4, 6), (5,)), IMAGES),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_laws_of_units(case):
    """In training and in evaluation."""
    net, x = NETWORKS[case]
    params, stats = start(net, x.shape)
    names = ("conv_0", "conv_1", "dense/hidden_0") if case == "images" else None
    for apply, has_aux in ((learning(net), True), (predicting(net), False)):
        found = units.verify(apply, params, stats, x, has_aux=has_aux, draws=2)
        assert found.names == (names or ("hidden_0", "hidden_1"))
        assert not found.left_out
        kinds = {a.through for group in found for a in group.incoming + group.outgoing}
        assert kinds == ({None} if case == "real" else {"sign"})


def test_latent_weights_of_0_are_not_seen():
    """A unit whose outgoing latent weights are 0 has no say, whatever enters it."""
    net = nets.BinaryMLP((8, 7), 3, running=False)
    params, _ = start(net, X.shape)
    params = jax.tree.map(np.copy, params)
    params["hidden_1"]["kernel"][2] = 0
    other = jax.tree.map(np.copy, params)
    other["hidden_0"]["kernel"][:, 2] *= -1
    same = [predicting(net)(p, {}, X) for p in (params, other)]
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("affine", [True, False])
def test_statistics_of_replaced_units_restart(affine):
    """Those of its own norm, which has no parameters where it is not affine."""
    net = nets.BinaryVGG(3, (4, 6), (5,), affine=affine)
    params, stats = start(net, IMAGES.shape)
    stats = jax.tree.map(lambda x: x + 2.0, stats)
    found = units.find(learning(net), params, stats, IMAGES, has_aux=True)
    replaced = {g.name: jnp.arange(g.size) == g.size - 1 for g in found}
    new = nets.restart_statistics(found, stats, replaced)
    for path in (("conv_0",), ("conv_1",), ("dense", "hidden_0")):
        norm = functools.reduce(lambda tree, key: tree[key], (*path, "norm"), new)
        size = len(norm["mean"])
        np.testing.assert_array_equal(norm["mean"], [2.0] * (size - 1) + [0])
        np.testing.assert_array_equal(norm["var"], [3.0] * (size - 1) + [1])
    np.testing.assert_array_equal(new["dense"]["output"]["norm"]["mean"], [2.0] * 3)


def test_bad_attributes():
    """They are refused before anything is computed."""
    with pytest.raises(ValueError, match="normalization must be one of .*'batc'"):
        nets.BinaryMLP((4,), 2, "batc")
    with pytest.raises(ValueError, match="hidden must be integers"):
        nets.BinaryMLP((4, 0), 2)
    with pytest.raises(ValueError, match="filters must be integers"):
        nets.BinaryVGG(2, (0,))
    with pytest.raises(ValueError, match="dropout must be in"):
        nets.BinaryVGG(2, dropout=1.0)
    with pytest.raises(ValueError, match="too small for conv_5"):
        jax.eval_shape(
            nets.BinaryVGG(2).init, jax.random.key(0), jnp.ones((1, 8, 8, 3))
        )
