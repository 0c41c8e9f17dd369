"""Every outgoing weight has the activation that it multiplies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import units

pytestmark = pytest.mark.usefixtures("quick_compile")

X = jax.random.normal(jax.random.key(0), (2, 5))
SHAPES = {"w": (5, 6), "n": (6,), "u": (6, 4), "v": (4, 6), "c": (6, 2), "d": (6, 3)}
PARAMS = {
    name: jax.random.normal(jax.random.key(i), shape)
    for i, (name, shape) in enumerate(SHAPES.items())
}


def normed(params, h):
    return h * (jax.lax.rsqrt(jnp.mean(h * h, -1, keepdims=True)) * params["n"])


def stream(params, x):
    h = x @ params["w"]
    return h, h + jnp.tanh(h @ params["u"]) @ params["v"]


def apply(params, x):
    _, h = stream(params, x)
    return normed(params, h) @ params["c"], jnp.sin(h) @ params["d"]


def test_readers_of_a_stream(prove):
    """The first reader's activation has the group's name, others name the reader."""
    group, _ = prove(apply, PARAMS, X)
    keys = {record.path: record.feature for record in group.outgoing}
    assert keys == {"u": None, "c": "w@c", "d": "w@d"}
    _, features = units.tap(apply)(PARAMS, X)
    assert list(features) == ["w", "w@c", "w@d", "u"]
    first, last = stream(PARAMS, X)
    expected = {"w": first, "w@c": normed(PARAMS, last), "w@d": jnp.sin(last)}
    for key, value in expected.items():
        np.testing.assert_allclose(features[key], value, rtol=1e-5)


def test_readers_of_one_value_share_it():
    """Heads that read the same activation need no second copy of it."""

    def apply(params, x):
        h = jnp.tanh(x @ params["w"])
        return h @ params["c"], h @ params["d"], (h * 2) @ params["u"]

    (group,) = units.find(apply, PARAMS, X)
    assert [r.feature for r in group.outgoing] == [None, None, "w@u"]
    assert list(units.tap(apply)(PARAMS, X)[1]) == ["w", "w@u"]


def test_one_reader_of_two_activations():
    """A concatenation may hold two activations of the same units."""

    def apply(params, x):
        h = x @ params["w"]
        return jnp.concatenate([jnp.tanh(h), x, h], -1) @ params["e"]

    params = PARAMS | {"e": jnp.ones((17, 2))}
    (group,) = units.find(apply, params, X)
    assert [(r.start, r.feature) for r in group.outgoing] == [(0, None), (11, "w@e")]
    features = units.tap(apply)(params, X)[1]
    np.testing.assert_allclose(features["w@e"], X @ params["w"], rtol=1e-5)
