"""Statistics of units: what meets the units through one is recorded or ruled out."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loplax import units

pytestmark = pytest.mark.usefixtures("quick_compile")

X = jax.random.normal(jax.random.key(0), (2, 5))
TOKENS = jax.random.normal(jax.random.key(1), (2, 3, 5))
Z = jax.random.normal(jax.random.key(2), (2, 6)) + 1.5
PARAMS = {
    "w": jnp.ones((5, 6)), "u": jnp.ones((5, 6)), "v": jnp.ones((6, 6)),
    "m": jnp.ones((3, 3)), "query": jnp.ones((3, 5)), "c": jnp.ones((6, 2)),
    "k": jnp.ones(6),
}  # fmt: skip


def mean(h):
    return jnp.mean(h, -1, keepdims=True)


def inverse(h):
    return jax.lax.rsqrt(mean(h * h) + 1e-3)


def blocks(h):
    """A statistic of every two units, one for each of them."""
    pairs = h.reshape(*h.shape[:-1], 3, 2)
    return jnp.repeat(jax.lax.rsqrt(jnp.mean(pairs**2, -1) + 1e-3), 2, axis=-1)


def noise(z):
    return jax.random.gamma(jax.random.key(3), jnp.abs(z) + 1, (2, 6))


REFUSED = {
    "tanh of a parameter": (lambda h, k, z: h * (mean(h) + jnp.tanh(k)), "of k"),
    "data": (lambda h, k, z: h * (mean(h) * z), "data that varies along"),
    "one example's data": (lambda h, k, z: h * (mean(h) * z[0]), "data that varies"),
    "parameter in a sum": (lambda h, k, z: h * (inverse(h) + k), "function of k"),
    "exp of a parameter": (lambda h, k, z: h * (inverse(h) * jnp.exp(k)), "of k"),
    "blocks and parameter": (lambda h, k, z: h * (blocks(h) + jnp.tanh(k)), "of k"),
    "blocks and data": (lambda h, k, z: h * (blocks(h) * z), "data that varies"),
    "other blocks": (lambda h, k, z: h * blocks(h)[:, ::-1], "rev|data that varies"),
    "tiled blocks": (
        lambda h, k, z: h * jnp.tile(h.reshape(2, 2, 3).mean(1), (1, 2))[:, ::-1],
        "data that varies",
    ),
    "random numbers of data": (lambda h, k, z: h * noise(z), "data that varies"),
    "random numbers of a parameter": (lambda h, k, z: h * noise(k), "function of k"),
    "maximum of both": (lambda h, k, z: jnp.maximum(h, mean(h) * k), "parameter k"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_statistic_is_no_licence(case):
    """A parameter or data that joins a statistic of the units rules them out."""
    function, reason = REFUSED[case]

    def apply(params, x, z):
        return function(jnp.tanh(x @ params["w"]), params["k"], z) @ params["c"]

    found = units.find(apply, PARAMS, X, Z)
    assert not found and any(word in found.left_out["w"] for word in reason.split("|"))


SPELLINGS = {
    "one by one": lambda h, k: h * inverse(h) * k,
    "together": lambda h, k: h * (inverse(h) * k),
    "shifted": lambda h, k: h * inverse(h) * (1 + k),
    "shifted, together": lambda h, k: h * (inverse(h) * (1 + k)),
    "scale first": lambda h, k: (1 - k) * h * inverse(h),
    "divided": lambda h, k: k * h / jnp.sqrt(mean(h * h) + 1e-3),
    "divisor with a scale": lambda h, k: (k / jnp.sqrt(mean(h * h) + 1e-3)) * h,
    "layer norm": lambda h, k: (h - mean(h)) * (inverse(h - mean(h)) * k),
    "group norm": lambda h, k: h * blocks(h) * k,
    "group norm, together": lambda h, k: h * (blocks(h) * k),
    "reshaped": lambda h, k: h * (inverse(h) * k).reshape(-1, 3, 2).reshape(-1, 6),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_equal_programs_are_treated_alike(case, prove):
    """However a norm is written, its scale is found and the coupling named."""

    def apply(params, x):
        return SPELLINGS[case](jnp.tanh(x @ params["w"]), params["k"]) @ params["c"]

    (group,) = prove(apply, PARAMS, X)
    grouped = "group" in case
    assert [record.path for record in group.scales] == ["k"]
    assert group.blocks == (3 if grouped else 1)
    what = "every 2 units" if grouped else "the units"
    assert group.coupled_by == (f"reduce_sum over {what}",)


def scanned(params, x):
    body = lambda h, _: (jnp.tanh(h @ params["v"]), None)
    return jax.lax.scan(body, jnp.tanh(x @ params["w"]), None, 2)[0]


def weight_normalised(params, x):
    kernel = params["v"] / jnp.linalg.norm(params["v"], axis=0)
    return jnp.tanh(x @ params["w"]) @ kernel


def attended(params, x):
    query = params["query"] @ params["w"]
    weights = jax.nn.softmax(query @ jnp.swapaxes(x @ params["w"], -1, -2))
    return weights @ (x @ params["u"])


def token_mixed(params, x):
    return jnp.einsum("btd,ts->bsd", jnp.tanh(x @ params["w"]), params["m"])


BEHIND = {
    "nothing": (lambda params, x: jnp.tanh(x @ params["w"]), X),
    "scan": (scanned, X),
    "weight norm": (weight_normalised, X),
    "attention": (attended, TOKENS),
    "token mixing": (token_mixed, TOKENS),
}


@pytest.mark.parametrize("case", BEHIND)
def test_a_scale_behind_anything_is_recorded_or_its_units_are_left_out(case, prove):
    before, x = BEHIND[case]

    def apply(params, x):
        h = before(params, x)
        return (h * (inverse(h) * params["k"])) @ params["c"]

    owned = [r.path for group in prove(apply, PARAMS, x) for r in group.scales]
    assert owned == ([] if case in ("scan", "weight norm") else ["k"])


def test_batch_norm_in_training_couples_no_units(prove):
    """Statistics over the batch belong to one unit each."""

    def apply(params, x):
        h = x @ params["w"]
        h = (h - h.mean(0)) * jax.lax.rsqrt(h.var(0) + 1e-3) * params["k"]
        return jnp.tanh(h) @ params["c"]

    (group,) = prove(apply, PARAMS, X)
    assert (group.coupled_by, group.tied_to, group.blocks) == ((), (), 1)


def test_what_runs_along_the_units_is_named(prove):
    """Masks of dropout and running statistics stay when units change places."""

    def apply(params, x, running):
        h = (x @ params["w"] - running) * jax.lax.rsqrt(jnp.mean(x**2) + 1.0)
        h = h * jax.random.bernoulli(jax.random.key(4), 0.5, h.shape)
        return jax.nn.softmax(h) @ params["c"]

    (group,) = found = prove(apply, PARAMS, X, Z[0])
    assert group.tied_to == ("constants", "random numbers") and group.blocks == 6
    assert group.coupled_by == (
        "reduce_max over the units",
        "reduce_sum over the units",
    )
    assert str(found).splitlines()[2:] == [
        "not independent:",
        "  w: units share reduce_max over the units; units share reduce_sum over the "
        "units (a layer norm, say); constants run along the units; random numbers run "
        "along the units",
    ]


def test_masked_weights(prove):
    """A mask on incoming weights ties units to it; readers must see activations."""
    mask = jnp.arange(12.0).reshape(6, 2) % 3

    def apply(params, x):
        kernel = params["w"] * (jnp.arange(30.0).reshape(5, 6) % 4)
        h = jnp.tanh(x @ kernel)
        return jnp.tanh(h @ params["v"]) @ (params["c"] * mask)

    (group,) = found = prove(apply, PARAMS, X)
    assert (group.name, group.tied_to, group.blocks) == ("w", ("constants",), 6)
    assert found.left_out == {
        "v": "dot_general reads the units of v with c times constants that vary along "
        "them"
    }


NORMS = [
    lambda h, s: h,
    lambda h, s: h * s("product", inverse(h)),
    lambda h, s: s("product", h) * inverse(h),
    lambda h, s: (h - mean(h)) * s("shift", inverse(h - mean(h))),
    lambda h, s: s("sum", h - mean(h)) / jnp.sqrt(s("scaled", mean(h * h)) + 1e-1),
    lambda h, s: h * s("product", blocks(h)),
    lambda h, s: s("last", h * blocks(h)),
]
"""Norms that give every place in them to ``s``."""

FACTORS = {
    "parameter": lambda k, z: k,
    "shifted parameter": lambda k, z: 1 + k,
    "function of a parameter": lambda k, z: jnp.tanh(k),
    "data": lambda k, z: z,
}
MEETS = {
    "times": lambda a, b: a * b,
    "plus": lambda a, b: a + b,
    "divided by": lambda a, b: a / (3 + b),
    "below": lambda a, b: jnp.minimum(a, b),
}


@given(
    first=st.integers(0, len(NORMS) - 1),
    second=st.integers(0, len(NORMS) - 1),
    place=st.integers(0, 7),
    factor=st.sampled_from(sorted(FACTORS)),
    meets=st.sampled_from(sorted(MEETS)),
    mixes=st.booleans(),
)
def test_no_factor_gets_lost(first, second, place, factor, meets, mixes):
    """Anywhere in a norm, what varies along the units is recorded or rules them out."""
    places = []

    def apply(params, x, z):
        places.clear()

        def visit(name, value):
            places.append(name)
            if len(places) - 1 != place:
                return value
            return MEETS[meets](value, FACTORS[factor](params["k"], z[:, None]))

        h = jnp.tanh(x @ params["w"])
        h = jnp.einsum("btd,ts->bsd", h, params["m"]) if mixes else h
        h = NORMS[first](h, visit)
        h = NORMS[second](h + jnp.tanh(h @ params["v"]), visit)
        return h @ params["c"]

    found = units.find(apply, PARAMS, TOKENS, Z)
    entered = len(places) > place
    owned = {r.path for g in found for r in (*g.scales, *g.biases)}
    streams = [g for g in found if "c" in {r.path for r in g.outgoing}]
    assert not (entered and streams) or owned == {"k"}
    assert entered or [g.name for g in streams] == ["w"]
    assert not (entered and streams and factor == "data")


def test_interleaved_statistics_in_words():
    """A norm over every third unit couples them; the words claim no more."""

    def apply(params, x):
        h = x @ params["w"]
        parts = h.reshape(-1, 3, 2)
        parts = parts * jax.lax.rsqrt(jnp.mean(parts**2, 1, keepdims=True) + 1e-3)
        return parts.reshape(h.shape) @ params["c"]

    (group,) = units.verify(apply, PARAMS, X)
    assert group.coupled_by == ("reduce_sum over some of the units",)
    assert group.blocks == 6


def test_the_position_of_the_largest_unit(prove):
    """A position does not move with the units: they cannot change places."""

    def apply(params, x):
        h = x @ params["w"]
        return jnp.tanh(h + jnp.argmax(h, -1, keepdims=True)) @ params["c"]

    (group,) = prove(apply, PARAMS, X)
    assert group.coupled_by and group.blocks == group.size


@pytest.mark.parametrize(
    ("axes", "blocks"), [((2, 3), 2), ((3,), 8), ((1, 2, 3), 1), ((1, 3), 16)]
)
def test_blocks_of_reduced_units_are_neighbours(axes, blocks, prove):
    """Units that are reduced together but lie apart count as a block each."""

    def apply(params, x):
        h = (x @ params["w"]).reshape(-1, 2, 4, 2)
        return jnp.tanh(h - h.mean(axes, keepdims=True)).reshape(-1, 16) @ params["c"]

    params = {"w": jnp.ones((5, 16)), "c": jnp.ones((16, 3))}
    (group,) = prove(apply, params, X)
    assert group.blocks == blocks
