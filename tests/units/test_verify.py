"""verify: what is true passes, what is not is named with its law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from loplax import units

W = units.WeightAxis
X = jax.random.normal(jax.random.key(0), (3, 5))
SHAPES = {"w0": (5, 8), "b": (8,), "s": (8,), "w1": (8, 8), "w2": (8, 2), "k": (8,)}
PARAMS = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in SHAPES.items()}


def hidden(p, x):
    return jax.nn.relu(x @ p["w0"] + p["b"]) * p["s"]


def plain(p, x):
    return jnp.tanh(hidden(p, x) @ p["w1"]) @ p["w2"]


TRUE = units.UnitGroup(
    "w0", 8, (W("w0", 1),), (W("b", 0),), (W("s", 0),), (W("w1", 0),)
)


def refused(apply, group, *inputs, params=PARAMS):
    with pytest.raises(ValueError) as error:
        units.verify(apply, params, X, *inputs, units=[group])
    assert repr(group.name) in str(error.value)
    return str(error.value)


def test_what_is_true_passes():
    found = units.verify(plain, PARAMS, X)
    assert found[0] == TRUE and found.names == ("w0", "w1")
    assert units.verify(plain, PARAMS, X, units=[TRUE]) == units.Units([TRUE])


@pytest.mark.parametrize("role", ["incoming", "biases", "scales"])
def test_what_enters_and_is_not_recorded(role):
    """A weight, bias or factor that is left out is missed."""
    assert "law (a)" in refused(plain, TRUE._replace(**{role: ()}))


def test_a_reader_that_is_not_recorded():
    two = lambda p, x: (plain(p, x), hidden(p, x) @ p["w2"])
    assert "law (a)" in refused(two, TRUE)


def test_outgoing_weights_of_something_else():
    assert "law (a)" in refused(plain, TRUE._replace(outgoing=(W("w2", 0),)))


def test_an_entry_of_two_units():
    both = (W("w1", 0), W("w1", 0, start=1))
    shapes = PARAMS | {"w1": jax.ShapeDtypeStruct((9, 8), jnp.float32)}
    wide = lambda p, x: plain(p | {"w1": p["w1"][:8]}, x)
    message = refused(wide, TRUE._replace(outgoing=both), params=shapes)
    assert "belongs to two units" in message


def test_a_layer_that_reaches_nothing():
    """As the output does not depend on it, nothing could be said about it."""
    idle = lambda p, x: x[:, :2] + 0 * plain(p, x)
    assert "depends on nothing" in refused(idle, TRUE)


def test_a_parameter_within_a_statistic():
    """``h * (mean(h) + tanh(k))`` has a factor k per unit, however it is claimed."""

    def apply(p, x):
        h = hidden(p, x)
        return (h * (h.mean(-1, keepdims=True) + jnp.tanh(p["k"]))) @ p["w1"]

    coupled = TRUE._replace(coupled_by=("mean",))
    assert "law (c)" in refused(apply, coupled)


def test_data_per_unit_within_a_statistic():
    def apply(p, x, z):
        h = hidden(p, x)
        return (h * (h.mean(-1, keepdims=True) * z)) @ p["w1"]

    z = jax.random.normal(jax.random.key(1), (3, 8))
    assert "law (" in refused(apply, TRUE._replace(coupled_by=("mean",)), z)


def test_statistics_that_are_not_named():
    """A norm over the units is found; without its name the claim is false."""

    def apply(p, x):
        h = hidden(p, x)
        return (h / jnp.sqrt(1 + jnp.mean(h**2, -1, keepdims=True))) @ p["w1"]

    (group,) = units.verify(apply, PARAMS, X)
    assert group.coupled_by
    assert "law (a)" in refused(apply, group._replace(coupled_by=()))


def normalised(h):
    return (h - h.mean(-1, keepdims=True)) / jnp.sqrt(1 + h.var(-1, keepdims=True))


def shrunk(h):
    """Along the same line as ``h``: only its length tells them apart."""
    return h / jnp.sqrt(1 + jnp.mean(h**2, -1, keepdims=True))


@pytest.mark.parametrize("norm", [normalised, shrunk])
def test_each_reader_has_its_activation(norm):
    """Two readers, two activations; exchanged or merged they are refused."""

    def stream(p, x):
        h = x @ p["w0"] + p["b"]
        return jnp.tanh(norm(h) * p["s"] @ p["w1"]) @ p["w2"], h @ p["v"]

    params = PARAMS | {"v": jax.ShapeDtypeStruct((8, 3), jnp.float32)}
    group = units.verify(stream, params, X)[0]
    first, second = group.outgoing
    assert (first.feature, second.feature) == (None, "w0@v")
    for pair in (
        (first._replace(feature="w0@v"), second._replace(feature=None)),
        (first, second._replace(feature=None)),
        (first._replace(feature="w0@v"), second),
    ):
        message = refused(stream, group._replace(outgoing=pair), params=params)
        assert "law (b)" in message


def test_units_alike_within_blocks_only():
    def apply(p, x):
        h = hidden(p, x)
        parts = h.reshape(-1, 2, 4)
        parts = parts - parts.mean(-1, keepdims=True)
        return parts.reshape(h.shape) @ p["w1"]

    coupled = TRUE._replace(coupled_by=("mean",))
    units.verify(apply, PARAMS, X, units=[coupled._replace(blocks=2)])
    assert "law (c)" in refused(apply, coupled)


SHARED = {
    "slope": lambda p, h, x: jnp.where(h > 0, h, p["a"] * h),
    "temperature": lambda p, h, x: jnp.tanh(h * p["a"]),
    "bias": lambda p, h, x: jnp.tanh(h + p["a"]),
    "two numbers": lambda p, h, x: jnp.tanh(h * p["t"][0] + p["t"][1]),
    "data": lambda p, h, x: jnp.tanh(h * x[:, :1]),
    "places": lambda p, h, x: jnp.tanh(jnp.einsum("bu,bt->tu", h, p["m"])),
}


# Under dropout, what could run along the units by its size is not told from what does.
SMALL = ["slope", "temperature", "bias", "two numbers"]


@pytest.mark.parametrize(
    ("case", "dropout"), [*((c, False) for c in SHARED), *((c, True) for c in SMALL)]
)
def test_what_the_units_share_leaves_them_alike(case, dropout):
    """A parameter or data that does not run along the units is none of theirs."""
    shapes = {"a": (), "t": (2,), "m": (3, 3)}
    shared = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}

    def apply(p, x):
        h = SHARED[case](p, x @ p["w0"] + p["b"], x)
        kept = jax.random.bernoulli(jax.random.key(3), 0.7, h.shape)
        return jnp.where(kept, h, 0) @ p["w2"] if dropout else h @ p["w2"]

    (group,) = units.verify(apply, PARAMS | shared, X)
    assert group.name == "w0" and bool(group.tied_to) == dropout
    without = group._replace(biases=())
    assert "law (" in refused(apply, without, params=PARAMS | shared)


@pytest.mark.parametrize("host", ["linen", "nnx"])
def test_one_slope_for_all(host):
    if host == "linen":
        net = nn.Sequential([nn.Dense(8), nn.PReLU(), nn.Dense(2)])
        (group,) = units.verify(net.apply, net.init(jax.random.key(0), X), X)
    else:
        dense = nnx.Linear(5, 8, rngs=nnx.Rngs(0)), nnx.Linear(8, 2, rngs=nnx.Rngs(0))
        net = nnx.Sequential(dense[0], nnx.PReLU(), dense[1])
        (group,) = units.verify(lambda net, x: net(x), net, X)
    assert group.size == 8 and not group.scales


IMAGE = jax.random.normal(jax.random.key(2), (2, 2, 3, 5))
FACTORS = jnp.arange(1.0, 4)[:, None]
PLACES = PARAMS | {"d": jax.ShapeDtypeStruct((48, 3), jnp.float32)}
PLACES |= {"e": PLACES["d"], "c": jax.ShapeDtypeStruct((8, 3), jnp.float32)}


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (lambda p, h: h.mean((1, 2)) @ p["c"], "positions"),
        (lambda p, h: (h * FACTORS).reshape(2, -1) @ p["e"], "law (b)"),
    ],
    ids=["mean", "other places"],
)
def test_a_reader_sees_places(second, error):
    """The activation has the reader's places, and each its own weights."""

    def apply(p, x):
        h = jnp.tanh(IMAGE @ p["w0"] + p["b"])
        return h.reshape(2, -1) @ p["d"] + second(p, h)

    (group,) = units.verify(apply, PLACES, X)
    first, last = group.outgoing
    one = group._replace(outgoing=(first, last._replace(feature=None)))
    assert error in refused(apply, one, params=PLACES)
    swapped = first._replace(feature=last.feature), last._replace(feature=None)
    message = refused(apply, group._replace(outgoing=swapped), params=PLACES)
    assert "law (b)" in message


def test_blocks_of_a_grouped_convolution():
    """Units that leave their group of channels are named, in range or not."""
    shapes = {"w0": (5, 8), "k": (1, 4, 6), "w2": (6, 2)}
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}

    def apply(p, x):
        layout = dict(dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=2)
        h = jnp.tanh(IMAGE[0] @ p["w0"])
        h = jax.lax.conv_general_dilated(h, p["k"], (1,), "SAME", **layout)
        return jnp.tanh(h) @ p["w2"]

    group = units.verify(apply, params, X)[0]
    assert group.blocks == 2
    assert "law (c)" in refused(apply, group._replace(blocks=1), params=params)


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.table = nnx.Embed(7, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, tokens):
        x = self.dropout(nnx.relu(self.norm(self.table(tokens))))
        x = self.out(x)
        return x, jnp.argmax(x, -1)


def test_keys_statistics_and_whole_numbers():
    """An nnx module with all of them is verified and left as it is."""
    net, tokens = Net(), jnp.arange(8).reshape(2, 4) % 7
    state = lambda: nnx.to_pure_dict(nnx.state(net, (nnx.BatchStat, nnx.Param)))
    before = state()
    (group,) = units.verify(lambda net, x: net(x), net, tokens)
    assert group.name == "table" and group.tied_to
    jax.tree.map(np.testing.assert_array_equal, state(), before)


def test_low_precision():
    """bfloat16 is compared as roughly as it computes."""
    half = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, jnp.bfloat16), PARAMS)
    units.verify(plain, half, X.astype(jnp.bfloat16))
    assert "law (a)" in refused(plain, TRUE._replace(scales=()), params=half)


def test_what_cannot_be_tried():
    with pytest.raises(ValueError, match="output of real numbers"):
        units.verify(lambda p, x: jnp.argmax(plain(p, x)), PARAMS, X, units=[TRUE])
    with pytest.raises(ValueError, match="no parameter 'w9'"):
        units.verify(plain, PARAMS, X, units=[TRUE._replace(scales=(W("w9", 0),))])
