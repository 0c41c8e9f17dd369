"""Operations that act on every entry alone, and joins of values."""

import jax
import jax.numpy as jnp
import pytest

pytestmark = pytest.mark.usefixtures("quick_compile")

SHAPES = {"a": (5, 8), "h": (8, 3), "k": (8,), "row": (1, 8)}
PARAMS = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in SHAPES.items()}
X = jax.random.normal(jax.random.key(0), (4, 5))
PAIRS = jax.random.normal(jax.random.key(1), (4, 2, 5))


def joined(*parts):
    return jnp.concatenate(parts)


VARYING = {
    "concatenated": lambda p: joined(jnp.zeros(4), jnp.ones(4)),
    "rolled": lambda p: jnp.roll(jnp.ones(8), 1),
    "stacked": lambda p: jnp.stack([1.0] * 7 + [2.0]),
}
OWN = {
    "behind a stack of one": lambda p: jnp.stack([p["k"]]),
    "stacked with zeros": lambda p: jnp.stack([jnp.zeros(8), p["k"]]),
    "concatenated with zeros": lambda p: joined(jnp.zeros((1, 8)), p["row"]),
}


@pytest.mark.parametrize("case", VARYING)
def test_joined_constants_along_the_units(case, prove):
    """They are constants that run along the units, as an array of them is."""
    apply = lambda p, x: jnp.tanh(x @ p["a"] + VARYING[case](p)) @ p["h"]
    (group,) = prove(apply, PARAMS, X)
    assert group.tied_to == ("constants",)


def test_joined_constants_of_the_outputs(prove):
    """They have to do with no units."""

    def apply(params, x):
        head = jnp.tanh(x @ params["a"]) @ params["h"] * jnp.stack([1.0, 2.0, 3.0])
        return head + joined(jnp.zeros((2, 3)), jnp.full((2, 3), 2.0))

    (group,) = prove(apply, PARAMS, X)
    assert not group.tied_to


@pytest.mark.parametrize("case", OWN)
def test_a_parameter_joined_with_constants(case, prove):
    """It is followed only where nothing is joined to it."""
    apply = lambda p, x: jnp.tanh(x @ p["a"] + OWN[case](p)) @ p["h"]
    found = prove(apply, PARAMS, PAIRS)
    if case == "behind a stack of one":
        assert found[0].biases[0].path == "k"
    else:
        assert "with a function of" in found.left_out["a"]


SCALARS = {f"s{i}": jax.ShapeDtypeStruct((), jnp.float32) for i in range(8)}
SIDE_BY_SIDE = {
    "scalars": lambda p: jnp.stack([p[f"s{i}"] for i in range(8)]),
    "entries": lambda p: jnp.stack([p["k"][i] for i in range(8)]),
    "one of eight": lambda p: joined(jnp.ones(7), p["s0"][None]),
}


@pytest.mark.parametrize("case", SIDE_BY_SIDE)
def test_scalar_parameters_side_by_side(case, prove):
    """They vary along the units and are no constants."""
    apply = lambda p, x: jnp.tanh(x @ p["a"] * SIDE_BY_SIDE[case](p)) @ p["h"]
    found = prove(apply, PARAMS | SCALARS, X)
    assert "with a function of" in found.left_out["a"]


@pytest.mark.parametrize("act", [jnp.add, jnp.subtract])
def test_an_entry_of_a_parameter_is_not_known_to_be_0(act, prove):
    """What it is added to need not be 0 where the weights are."""
    head = lambda p: jnp.sign(act(p["h"], p["k"][0] + 0))
    found = prove(lambda p, x: jnp.tanh(x @ p["a"]) @ head(p), PARAMS, X)
    assert "not known to be 0" in found.left_out["h"]
