"""find: what cannot be told apart is left out, with a reason."""

import jax
import jax.numpy as jnp
import pytest

from loplax import units

X = jnp.linspace(-1.0, 1.0, 4 * 6).reshape(4, 6)
SQUARE = {f"w{i}": jnp.ones((6, 6)) for i in range(3)}


def layer(params, x):
    return jnp.tanh(x @ params["w0"])


@jax.custom_vjp
def custom(x, kernel):
    return x @ kernel


custom.defvjp(
    lambda x, kernel: (x @ kernel, (x, kernel)),
    lambda saved, g: (g @ saved[1].T, saved[0].T @ g),
)


def shared(params, x):
    return jnp.tanh(layer(params, x) @ params["w0"]) @ params["w1"]


def scanned(params, x):
    def body(carry, _):
        return jnp.tanh(carry @ params["w1"]), None

    return jax.lax.scan(body, layer(params, x), None, 2)[0] @ params["w2"]


def raw_input_residual(params, x):
    return (layer(params, x) + x) @ params["w1"]


def normalised_kernel(params, x):
    norm = jnp.linalg.norm(params["w1"], axis=0)
    return jnp.tanh(layer(params, x) @ (params["w1"] / norm)) @ params["w2"]


def product_of_kernels(params, x):
    return layer(params, x) @ (params["w1"] * params["w2"])


def penalised(params, x):
    return layer(params, x) @ params["w1"], jnp.sum(params["w0"] ** 2)


def outer_product(params, x):
    hidden = layer(params, x)
    return jnp.einsum("ni,nj->nij", hidden, hidden)[:, 0] @ params["w1"]


def returned(params, x):
    hidden = layer(params, x)
    return hidden, hidden @ params["w1"]


CASES = {
    "shared": (shared, "w0", "more than once"),
    "scan": (scanned, "w0", "scan"),
    "scanned weight": (scanned, "w1", "w1 enters scan"),
    "data": (raw_input_residual, "w0", "data"),
    "normalised": (normalised_kernel, "w1", "w1"),
    "product": (product_of_kernels, "w0", "function of w1, w2"),
    "penalty": (penalised, "w0", "more than once"),
    "slice": (lambda p, x: layer(p, x)[:, :3] @ p["w1"][:3], "w0", "slice"),
    "pad": (lambda p, x: jnp.pad(layer(p, x), ((0, 0), (0, 1)))[:, 1:] @ p["w1"],
            "w0", "pad"),
    "reverse": (lambda p, x: layer(p, x)[:, ::-1] @ p["w1"], "w0", "rev"),
    "sort": (lambda p, x: jnp.sort(layer(p, x)) @ p["w1"], "w0", "sort"),
    "roll": (lambda p, x: jnp.roll(layer(p, x), 1, 1) @ p["w1"], "w0", "slice"),
    "cumsum": (lambda p, x: jnp.cumsum(layer(p, x), 1) @ p["w1"], "w0", "cumsum"),
    "gather": (lambda p, x: layer(p, x)[:, jnp.array([1, 0, 2, 3, 4, 5])] @ p["w1"],
               "w0", "gather"),
    "attention": (lambda p, x: jax.nn.softmax(layer(p, x) @ (x @ p["w1"]).T) @ x,
                  "w1", "dot_general"),
    "outer product": (outer_product, "w0", "two axes"),
    "mixed": (
        lambda p, x: jnp.einsum("ni,nj->nij", layer(p, x), x @ p["w1"]).reshape(4, 36)
        @ jnp.tile(p["w2"], (6, 1)), "w0", "w"),
    "statistic": (lambda p, x: jnp.sum(layer(p, x), 1, keepdims=True) * (x @ p["w1"])
                  @ p["w2"], "w0", "reduce_sum"),
    "output": (returned, "w0", "output"),
    "max with parameter": (lambda p, x: jnp.maximum(layer(p, x), p["w1"][0]) @ p["w2"],
                           "w0", "max"),
    "custom": (lambda p, x: custom(layer(p, x), p["w1"]), "w0", "custom_vjp_call"),
    "branch": (lambda p, x: jax.lax.cond(x[0, 0] > 0, jnp.tanh, jnp.sin, layer(p, x))
               @ p["w1"], "w0", "cond"),
    "kernel slice": (lambda p, x: jnp.tanh(x @ p["w0"][:, :4]) @ p["w1"][:4],
                     "w0", "w0"),
    "shifted sum": (lambda p, x: (layer(p, x).reshape(4, 2, 3).sum(1)) @ p["w1"][:3],
                    "w0", "reduce_sum"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_left_out_with_reason(case):
    """The layer is left out, and the reason names what stands in the way."""
    apply, name, reason = CASES[case]
    found = units.find(apply, SQUARE, X)
    assert name not in found.names
    assert reason in found.left_out[name]
    assert name in str(found)
    with pytest.raises(ValueError, match=f"'{name}' was left out"):
        units.find(apply, SQUARE, X, names=[name])


def test_outputs_are_not_hidden():
    """The last layer is neither a hidden layer nor left out."""
    found = units.find(lambda p, x: layer(p, x) @ p["w1"], SQUARE, X)
    assert found.names == ("w0",) and found.left_out == {}


def test_aux_is_no_reader():
    """What only the auxiliary output needs does not hide the units."""

    def apply(params, x):
        hidden = layer(params, x)
        return hidden @ params["w1"], {"hidden": hidden, "penalty": params["w0"].sum()}

    assert units.find(apply, SQUARE, X).names == ()
    assert units.find(apply, SQUARE, X, has_aux=True).names == ("w0",)


def test_statistics_that_are_returned_ask_for_has_aux():
    """Who returns new statistics and does not say so is told of ``has_aux``."""

    def apply(params, x, running):
        hidden = layer(params, x)
        return hidden @ params["w1"], 0.9 * running + 0.1 * hidden.mean(0)

    arguments = SQUARE, X, jnp.ones(6)
    assert "say has_aux=True" in units.find(apply, *arguments).left_out["w0"]
    with pytest.raises(ValueError, match="has_aux=True"):
        units.find(apply, *arguments, names=["w0"])
    assert units.find(apply, *arguments, has_aux=True).names == ("w0",)
    assert "say has_aux=True" in units.find(returned, SQUARE, X).left_out["w0"]
    single = lambda params, x: returned(params, x)[0] + x @ params["w2"]
    assert "has_aux" not in str(units.find(single, SQUARE, X))
    aux = lambda params, x: (returned(params, x), x)
    assert "has_aux" not in str(units.find(aux, SQUARE, X, has_aux=True))


def test_single_example_residual_is_left_out():
    """Without a batch axis, an input is data and no per-unit statistic."""
    assert "w0" in units.find(raw_input_residual, SQUARE, X[0]).left_out


def test_select():
    """Selection keeps the order of the model and names the nearest layer."""

    def apply(params, x):
        return jnp.tanh(layer(params, x) @ params["w1"]) @ params["w2"]

    found = units.find(apply, SQUARE, X)
    assert found.select("w1", "w0").names == ("w0", "w1")
    assert units.find(apply, SQUARE, X, names=["w1"]).names == ("w1",)
    with pytest.raises(ValueError, match=r"No layer 'w7'; known, for example: 'w0'"):
        found.select("w7")


def test_names_are_unique():
    """Two kernels under one parent are named by their own paths."""

    def apply(params, x):
        for kernel in params["layers"]:
            x = jnp.tanh(x @ kernel)
        return x @ params["head"]

    params = {"layers": [SQUARE["w0"], SQUARE["w1"]], "head": SQUARE["w2"]}
    assert units.find(apply, params, X).names == ("layers/0", "layers/1")


def test_aux_needs_a_pair():
    """With an auxiliary output the model must return two things."""
    with pytest.raises(ValueError, match="must return a pair"):
        units.find(layer, SQUARE, X, has_aux=True)


def test_paths_must_differ():
    """Keys that contain the separator may make two paths equal."""
    params = {"a": {"b": SQUARE["w0"]}, "a/b": SQUARE["w1"]}
    with pytest.raises(ValueError, match="Two parameters have the path 'a/b'"):
        units.find(lambda params, x: x @ params["a/b"], params, X)


def test_statistic_beside_its_units_is_left_out():
    """A statistic that multiplies other units is no normalisation."""

    def joined(params, x):
        first, second = layer(params, x), x @ params["w1"]
        gated = second * first.mean(1, keepdims=True)
        return jnp.tanh(jnp.concatenate([first, gated], axis=1) * 2) @ params["w3"]

    params = SQUARE | {"w3": jnp.ones((12, 2))}
    found = units.find(joined, params, X)
    assert found.names == ("w1",) and "reduce_sum" in found.left_out["w0"]
