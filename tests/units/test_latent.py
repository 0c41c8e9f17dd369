"""Weights that enter through a function of their own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loplax import units

pytestmark = pytest.mark.usefixtures("quick_compile")

SHAPES = {"w0": (5, 8), "b": (8,), "w1": (8, 6), "w2": (6, 2)}
PARAMS = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in SHAPES.items()}
X = jax.random.normal(jax.random.key(0), (4, 5))


@jax.custom_vjp
def custom_vjp(w):
    return jnp.sign(w)


custom_vjp.defvjp(lambda w: (jnp.sign(w), None), lambda _, g: (g,))
custom_jvp = jax.custom_jvp(jnp.sign)
custom_jvp.defjvps(lambda tangent, out, w: tangent)

FOLLOWED = {
    "custom_vjp": (custom_vjp, "sign"),
    "custom_jvp": (custom_jvp, "sign"),
    "sign": (jnp.sign, "sign"),
    "scaled": (lambda w: 0.3 * jnp.sign(-2 * w), "sign"),
    "rounded": (lambda w: jnp.sign(w).astype(jnp.bfloat16).astype(w.dtype), "sign"),
    "only positive": (lambda w: jax.nn.relu(jnp.sign(w)), "sign"),
    "stop_gradient": (
        lambda w: w + jax.lax.stop_gradient(jnp.sign(w) - w),
        "function",
    ),
    "pruned": (lambda w: jnp.where(jnp.abs(w) > 0.3, w, 0), "function"),
    "ternary": (lambda w: jnp.sign(w) * (jnp.abs(w) > 0.3), "function"),
    "quantised": (lambda w: jnp.round(jnp.clip(w, -1, 1) * 7) / 7, "function"),
    "tanh": (jnp.tanh, "function"),
}
LEFT_OUT = {
    "sign of 0 is 1": (lambda w: jnp.where(w >= 0, 1.0, -1.0), "not known to be 0"),
    "exp": (jnp.exp, "not known to be 0"),
    "random threshold": (
        lambda w: jnp.sign(w - jax.random.uniform(jax.random.key(1), w.shape)),
        "w1 enters sub",
    ),
    "scale of all": (lambda w: jnp.sign(w) * jnp.mean(jnp.abs(w)), "reduce_sum"),
}


def through(function):
    """Layers whose weights all enter through a function."""

    def apply(params, x):
        h = custom_jvp(x @ function(params["w0"]) + params["b"])
        return jnp.tanh(h @ function(params["w1"])) @ function(params["w2"])

    return apply


@pytest.mark.parametrize("case", FOLLOWED)
def test_what_acts_on_every_entry_is_followed(case, prove):
    """Straight-through or not: the parameter is the weight of its units."""
    function, kind = FOLLOWED[case]
    found = prove(through(function), PARAMS, X)
    assert found.names == ("w0", "w1") and not found.left_out
    for group in found:
        assert {axis.through for axis in (*group.incoming, *group.outgoing)} == {kind}
    assert f"{kind}(w1)[0]" in str(found)


@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_is_no_weight_is_left_out(case):
    """Without outgoing weights a unit could be seen, or units share a statistic."""
    function, reason = LEFT_OUT[case]
    found = units.find(through(function), PARAMS, X)
    assert not found and reason in " ".join(found.left_out.values())


STARTS = {
    "sign": jnp.sign,
    "tanh": jnp.tanh,
    "square": jnp.square,
    "above": lambda w: (w > 0.2).astype(w.dtype),
    "clip": lambda w: jnp.clip(w, 0.1, 2),
}
LINKS = STARTS | {
    "abs": jnp.abs,
    "plus": lambda w: w + 0.5,
    "minus": lambda w: w - 0.5,
    "half": lambda w: w / 2,
    "neg": lambda w: -w,
    "floor": jnp.floor,
    "cosine": jnp.cos,
    "twice itself": lambda w: w * jnp.sign(w),
    "other": lambda w: jnp.where(w > 0, w, 3 * w),
}


@settings(max_examples=60)
@given(st.sampled_from(sorted(STARTS)), st.lists(st.sampled_from(sorted(LINKS))))
def test_found_exactly_if_it_is_0_at_0(first, rest):
    """Whatever functions are put one after the other."""
    parts = [STARTS[first], *(LINKS[name] for name in rest)]
    function = lambda w: functools.reduce(lambda w, part: part(w), parts, w)
    found = units.find(
        lambda p, x: jnp.tanh(x @ p["w0"]) @ function(p["w1"]), PARAMS, X
    )
    assert (found.names == ("w0",)) == (function(jnp.zeros(())) == 0)
    if found and found[0].outgoing[0].through == "sign":
        w = jnp.array([1e-30, 0.3, 7.0, -1e-30, -0.3, -7.0])
        values = np.asarray(function(w)).reshape(2, 3)
        np.testing.assert_array_equal(values, values[:, :1].repeat(3, 1))


def test_scales_and_biases_are_followed_only_as_they_are():
    """A unit whose bias enters through a function is left out, as before."""
    for enter in (
        lambda h, b: h + jnp.sign(b),
        lambda h, b: h * jnp.tanh(b),
        lambda h, b: h * (1 + jnp.tanh(b)),
    ):
        apply = lambda p, x, e=enter: jnp.tanh(e(x @ p["w0"], p["b"])) @ p["w1"]
        found = units.find(apply, PARAMS, X)
        assert not found and "a function of b" in found.left_out["w0"]


def test_weights_that_enter_twice():
    """As they are and as signs: the same entries have two readers."""
    apply = lambda p, x: jnp.tanh(x @ p["w0"]) @ (p["w1"] + jnp.sign(p["w1"]))
    assert units.find(apply, PARAMS, X).names == ("w0",)
    two = lambda p, x: (lambda h: (h @ p["w1"], h @ jnp.sign(p["w1"])))(x @ p["w0"])
    assert "more than once" in units.find(two, PARAMS, X).left_out["w0"]


def test_tables_convolutions_and_grouped_ones(prove):
    """Other products take weights through a function too."""
    layout = {"dimension_numbers": ("NWC", "WIO", "NWC")}
    shapes = {"t": (7, 8), "k": (3, 8, 6), "g": (1, 3, 4), "d": (20, 2)}
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}
    tokens = jnp.arange(10).reshape(2, 5) % 7

    def apply(p, tokens):
        convolve = functools.partial(
            jax.lax.conv_general_dilated,
            window_strides=(1,),
            padding="SAME",
            **layout,
        )
        h = jnp.sign(p["t"])[tokens]
        h = jnp.tanh(convolve(h, jnp.sign(p["k"])))
        h = jnp.sign(convolve(h, jnp.sign(p["g"]), feature_group_count=2))
        return h.reshape(2, -1) @ jnp.sign(p["d"])

    found = prove(apply, params, tokens)
    assert found.names == ("t", "k", "g") and not found.left_out
    weights = [axis for group in found for axis in group.incoming + group.outgoing]
    assert {axis.through for axis in weights} == {"sign"}


def test_false_claims_are_refused():
    """Of what a reader sees, and of how its weights enter."""
    params = PARAMS | {"v": jax.ShapeDtypeStruct((8, 3), jnp.float32)}

    def apply(p, x):
        h = x @ custom_jvp(p["w0"]) + p["b"]
        return custom_jvp(h) @ custom_jvp(p["w1"]), h @ custom_jvp(p["v"])

    (group,) = units.verify(apply, params, X)
    first, last = group.outgoing
    key = last.feature
    for pair in (
        (first._replace(feature=key), last._replace(feature=None)),
        (first, last._replace(feature=None)),
        (first._replace(through=None), last),
    ):
        with pytest.raises(ValueError, match=r"'w0' breaks law \(b\)"):
            units.verify(apply, params, X, units=[group._replace(outgoing=pair)])
    with pytest.raises(ValueError, match="through='round' of 'w1' must be None"):
        wrong = group._replace(outgoing=(first._replace(through="round"), last))
        units.check([wrong], params)
