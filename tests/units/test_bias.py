"""The bias that a reader of some units adds to what it computes."""

import jax.numpy as jnp

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
