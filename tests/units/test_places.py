"""Weights that read the same units at several places: equal programs are alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from loplax import units

pytestmark = pytest.mark.usefixtures("quick_compile")

H, W, C, OUT = 2, 3, 4, 5
X = jax.random.normal(jax.random.key(0), (7, H, W, 3))
PARAMS = {
    "k": jax.random.normal(jax.random.key(1), (3, C)),
    "w": jax.random.normal(jax.random.key(2), (H, W, C, OUT)),
}
NHWC = ("NHWC", "HWIO", "NHWC")


def hidden(params, x):
    return jnp.tanh(x @ params["k"])


def conv(h, w, strides=(1, 1), padding="VALID", **options):
    return jax.lax.conv_general_dilated(
        h, w, strides, padding, dimension_numbers=NHWC, **options
    )


def turned(h, w):
    return jnp.einsum("bcwh,owch->bo", jnp.moveaxis(h, (1, 3), (3, 1)), w)


READERS = {
    "tensordot": lambda h, w: jnp.tensordot(h, w, 3),
    "einsum": lambda h, w: jnp.einsum("bhwc,hwco->bo", h, w),
    "convolution": conv,
    "matrix": lambda h, w: h.reshape(len(h), -1) @ w.reshape(-1, OUT),
    "half a matrix": lambda h, w: jnp.einsum(
        "bpc,pco->bo", h.reshape(-1, H * W, C), w.reshape(H * W, C, OUT)
    ),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_equal_programs(prove, read):
    """Every spelling reads the same weights at the same places."""

    def apply(params, x):
        return read(hidden(params, x), params["w"])

    (group,) = prove(apply, PARAMS, X)
    record = units.WeightAxis("w", 2, places=((0, H), (1, W)))
    assert group.outgoing == (record,) and group.features == {"k": (H, W)}
    features = units.tap(apply)(PARAMS, X)[1]["k"]
    np.testing.assert_array_equal(features, hidden(PARAMS, X))
    assert str(units.Units([group])).endswith("w[2] at 2x3")


def test_any_order_of_axes(prove):
    """Places follow the axes of the activation, wherever the weights hold them."""
    params = PARAMS | {"w": jnp.transpose(PARAMS["w"], (3, 1, 2, 0))}

    def apply(params, x):
        return turned(hidden(params, x), params["w"])

    (group,) = prove(apply, params, X)
    record = group.outgoing[0]
    h = units.tap(apply)(params, X)[1]["k"]
    assert h.shape == (7, *record.positions, C)
    laid = record.spread(h[0], params["w"].shape)
    output = jnp.sum(laid * params["w"], axis=(1, 2, 3))
    np.testing.assert_allclose(output, apply(params, X)[0], rtol=1e-4)


@pytest.mark.parametrize("cut", ["hw", "cw", "hc"])
def test_weights_reshaped(prove, cut):
    """An axis of the weights may hold several places, or places and units."""
    shape = {"hw": (H * W, C, OUT), "cw": (H, W * C, OUT), "hc": (H * W * C, OUT)}[cut]
    params = PARAMS | {"w": PARAMS["w"].reshape(shape)}

    def apply(params, x):
        return jnp.tensordot(hidden(params, x), params["w"].reshape(H, W, C, OUT), 3)

    (group,) = prove(apply, params, X)
    (record,) = group.outgoing
    expected = {
        "hw": units.WeightAxis("w", 1, places=((0, H * W),)),
        "cw": units.WeightAxis("w", 1, (W, 1), places=((0, H),)),
        "hc": units.WeightAxis("w", 0, (H * W, 1)),
    }
    assert record == expected[cut]
    h = units.tap(apply)(params, X)[1]["k"]
    np.testing.assert_array_equal(h, hidden(params, X).reshape(7, *record.positions, C))


def test_frameworks(prove):
    """General dense layers of linen and nnx read places."""
    axis = (-3, -2, -1)

    class Linen(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.DenseGeneral(OUT, axis=axis)(linen.Dense(C)(x))

    model = Linen()
    params = model.init(jax.random.key(0), X)
    (group,) = prove(model.apply, params, X)
    assert group.outgoing[0].places == ((0, H), (1, W))

    class Nnx(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.first = nnx.Linear(3, C, rngs=rngs)
            self.last = nnx.LinearGeneral((H, W, C), OUT, axis=axis, rngs=rngs)

        def __call__(self, x):
            return self.last(self.first(x))

    (group,) = units.verify(lambda model, x: model(x), Nnx(), X, draws=1)
    assert group.outgoing[0].places == ((0, H), (1, W))


WINDOWS = {
    "padded": ((3, 3), {"strides": (3, 3), "padding": ((1, 0), (0, 0))}),
    "cut": ((2, 2), {"strides": (3, 3)}),
    "dilated": ((2, 2), {"rhs_dilation": (1, 2)}),
    "one entry": ((1, 1), {"strides": (2, 3)}),
}


@pytest.mark.parametrize(("shape", "options"), WINDOWS.values(), ids=WINDOWS)
def test_one_window(prove, shape, options):
    """With one output place the activation is what the window covers."""
    params = PARAMS | {"w": jax.random.normal(jax.random.key(3), (*shape, C, OUT))}

    def apply(params, x):
        return conv(hidden(params, x), params["w"], **options)

    (group,) = prove(apply, params, X)
    places = tuple((i, n) for i, n in enumerate(shape) if n > 1)
    assert group.outgoing == (units.WeightAxis("w", 2, places=places),)
    h = units.tap(apply)(params, X)[1]["k"].reshape(7, *shape, C)
    output = jnp.einsum("bhwc,hwco->bo", h, params["w"])
    np.testing.assert_allclose(
        output, apply(params, X).reshape(output.shape), rtol=1e-4, atol=1e-5
    )


def test_one_spatial_axis(prove):
    """A window that slides along one axis has places along the other."""

    def apply(params, x):
        return conv(hidden(params, x), params["w"])

    params = PARAMS | {"w": PARAMS["w"][:, :2]}
    (group,) = prove(apply, params, X)
    assert group.outgoing == (units.WeightAxis("w", 2, places=((0, H),)),)
    h = units.tap(apply)(params, X)[1]["k"]
    np.testing.assert_array_equal(h, jnp.moveaxis(hidden(params, X), 2, 1))


def test_sliding_windows_and_axes_of_one_have_no_places():
    """Ordinary convolutions keep the mean over space."""

    def apply(params, x):
        return conv(hidden(params, x), params["w"], (1, 1), "SAME")

    (group,) = units.find(apply, PARAMS, X)
    assert group.outgoing == (units.WeightAxis("w", 2),)
    assert units.tap(apply)(PARAMS, X)[1]["k"].shape == (7, H, W, C)

    def apply(params, x):
        return jnp.tensordot(hidden(params, x), params["w"], 3)

    params = PARAMS | {"w": PARAMS["w"][:1, :1]}
    (group,) = units.find(apply, params, X[:, :1, :1])
    assert group.outgoing == (units.WeightAxis("w", 2),)


def test_readers_at_other_positions():
    """A reader of the same value at other positions has a key of its own."""

    def apply(params, x):
        h = hidden(params, x)
        return (
            jnp.tensordot(h, params["w"], 3),
            h @ params["head"],
            conv(h, params["w2"]),
        )

    params = PARAMS | {"head": jnp.ones((C, 2)), "w2": PARAMS["w"]}
    (group,) = units.find(apply, params, X)
    assert [record.feature for record in group.outgoing] == [None, "k@head", None]
    assert group.features == {"k": (H, W), "k@head": ()}


MASK = jnp.arange(1.0, H + 1)[:, None, None, None]
LEFT_OUT = {
    "groups": (
        (H, W, 2, 6),
        lambda h, w: conv(h, w, feature_group_count=2),
        "reads the units of k at several places",
    ),
    "part": (
        (H + 1, W, C, OUT),
        lambda h, w: jnp.tensordot(h, w[:H], 3),
        "reads the units of k at places that are mixed or cut",
    ),
    "mask": (
        (H, W, C, OUT),
        lambda h, w: jnp.tensordot(h, w * MASK, 3),
        "times constants that vary",
    ),
    "masked window": (
        (H, W, C, OUT),
        lambda h, w: conv(h, w * MASK),
        "times constants that vary",
    ),
}


@pytest.mark.parametrize(("shape", "read", "reason"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_left_out(shape, read, reason):
    """What no record describes is not claimed."""

    def apply(params, x):
        return read(hidden(params, x), params["w"])

    found = units.find(apply, PARAMS | {"w": jnp.ones(shape)}, X)
    assert not found and reason in found.left_out["k"]


def test_features_have_the_positions_of_their_readers():
    """Whatever is found, the last axes of an activation are positions and units."""

    def apply(params, x):
        h = hidden(params, x)
        wide = jnp.broadcast_to(h[:, :, :1], h.shape)
        tiled = jnp.tile(h, (1, 1, 1, 2))
        halves = jnp.concatenate([h, x, jnp.sin(h)], -1)
        return [
            jnp.tensordot(wide, params["a"], 3),
            jnp.tensordot(wide, params["b"].reshape(H, W, C, OUT), 3),
            jnp.tensordot(tiled, params["c"], 3),
            tiled @ params["d"].reshape(2 * C, OUT),
            jnp.einsum("bhwc,hco->bwo", halves, params["e"]),
        ]

    shapes = {
        "a": (H, W, C, OUT),
        "b": (H * W, C, OUT),
        "c": (H, W, 2 * C, OUT),
        "d": (2, C, OUT),
        "e": (H, 2 * C + 3, OUT),
    }
    ones = {name: jnp.ones(shape) for name, shape in shapes.items()}
    (group,) = units.find(apply, PARAMS | ones, X)
    assert {r.path: r.positions for r in group.outgoing} == {
        "a": (H,),
        "b": (H * W,),
        "c": (H, W, 2),
        "d": (),
        "e": (H,),
    }
    features = units.tap(apply)(PARAMS | ones, X)[1]
    for key, positions in group.features.items():
        assert features[key].shape[-len(positions) - 1 :] == (*positions, C)
