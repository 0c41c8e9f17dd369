"""The bias that a reader of some units adds to what it computes."""

import jax.numpy as jnp
import pytest

X = jnp.linspace(-1.0, 1.0, 4 * 5).reshape(4, 5)


def weights(**shapes):
    return {name: jnp.ones(shape) for name, shape in shapes.items()}


def test_bias_behind_a_scale_is_not_the_bias_of_the_product(prove):
    """Only a bias that is added to the bare product can stand in for a unit."""

    def apply(params, x):
        x = jnp.tanh(x @ params["w0"])
        return jnp.tanh(x @ params["w1"] * params["scale"] + params["b"]) @ params["w2"]

    params = weights(w0=(5, 6), w1=(6, 3), w2=(3, 2), scale=(3,), b=(3,))
    first, second = prove(apply, params, X)
    assert first.outgoing[0].bias is None and second.biases[0].path == "b"


def test_vector_head(prove):
    """A head that is a vector, with a scalar bias."""

    def apply(params, x):
        return jnp.tanh(x @ params["w0"]) @ params["w1"] + params["b"]

    (group,) = prove(apply, weights(w0=(5, 6), w1=(6,), b=()), X)
    assert (group.outgoing[0].axis, group.outgoing[0].bias) == (0, "b")


def test_bias_shared_by_two_heads_is_no_bias(prove):
    """A bias that several products share belongs to none of them."""

    def apply(params, x):
        x = jnp.tanh(x @ params["w0"])
        return x @ params["w1"] + params["b"], x @ params["w2"] + params["b"]

    params = weights(w0=(5, 6), w1=(6, 3), w2=(6, 3), b=(3,))
    (group,) = prove(apply, params, X)
    assert [record.bias for record in group.outgoing] == [None, None]


def test_bias_of_a_transposed_layer(prove):
    """The bias may come after a change of shape or precision."""

    def apply(params, x):
        x = jnp.tanh(params["w0"] @ x.T)
        return (params["w1"] @ x).T.astype(jnp.float32) + params["b"]

    (group,) = prove(apply, weights(w0=(6, 5), w1=(3, 6), b=(3,)), X)
    assert group.outgoing[0].bias == "b"


def pairs(params, h, g):
    """Every unit of one layer beside every one of another, a bias for each pair."""
    return h[:, :, None] + g[:, None, :] + params["c"]


def read(params, h):
    return jnp.einsum("bnm,nmo->bo", jnp.tanh(h), params["w"])


def transposed(params, h, g):
    return read(params, h[:, :, None] + params["c"] + params["c"].T)


def half(params, h, g):
    one_layer = h[:, :, None] + params["c"]
    return read(params, jnp.tanh(pairs(params, h, g)) + one_layer)


def laid_out_twice(params, h, g):
    first = jnp.tanh(jnp.tile(h, (1, 2)) + params["b"]) @ params["u"]
    return first + jnp.tanh(jnp.repeat(h, 2, 1) + params["b"]) @ params["v"]


PAIRS = weights(
    p=(5, 6), q=(5, 6), c=(6, 6), w=(6, 6, 2), b=(12,), u=(12, 2), v=(12, 2)
)


@pytest.mark.parametrize("case", [transposed, half, laid_out_twice])
def test_an_entry_of_a_bias_belongs_to_one_unit(case, prove):
    """Two uses of one bias must lay the same units on it in the same way."""
    apply = lambda params, x: case(params, x @ params["p"], x @ params["q"])
    found = prove(apply, PAIRS, X)
    assert not found and "used more than once, by add (2 times)" in str(found)


def test_a_bias_of_pairs(prove):
    """One use may give the entries to units of two layers, and be repeated."""

    def apply(params, x):
        h, g = x @ params["p"], x @ params["q"]
        return read(params, jnp.tanh(pairs(params, h, g)) + pairs(params, 2 * h, g))

    found = prove(apply, PAIRS, X)
    assert [group.biases[0].axis for group in found] == [0, 1]
