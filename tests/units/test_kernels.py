"""Scales enter once and whole; sums of shifted products are depthwise kernels."""

import jax
import jax.numpy as jnp
import pytest

from loplax import units

pytestmark = pytest.mark.usefixtures("quick_compile")

IMAGE = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
TOKENS = jax.random.normal(jax.random.key(1), (2, 4, 3))
PLACES = [(i, j) for i in range(3) for j in range(3)]


def weights(**shapes):
    return {name: jnp.ones(shape) for name, shape in shapes.items()}


def shifts(x):
    """An image seen from the nine neighbours of each pixel."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [x[:, i : i + 4, j : j + 4] for i, j in PLACES]


def add(terms, start=0):
    return sum(terms, start)


def dot(x, kernel):
    """The sum of the nine images times the entries of a kernel."""
    return add(one * entry for one, entry in zip(shifts(x), kernel, strict=True))


KERNELS = {
    "height, width, channels": (
        (3, 3, 6),
        lambda x, w: dot(x, [w[i, j] for i, j in PLACES]),
    ),
    "as XLA has it": (
        (3, 3, 1, 6),
        lambda x, w: dot(x, [w[i, j, 0] for i, j in PLACES]),
    ),
    "channels first": (
        (6, 3, 3),
        lambda x, w: dot(x, [w[:, i, j] for i, j in PLACES]),
    ),
    "reshaped": ((3, 3, 6), lambda x, w: dot(x, w.reshape(9, 6))),
    "from zero": (
        (9, 6),
        lambda x, w: add(
            [s * v for s, v in zip(shifts(x), w, strict=True)], jnp.zeros((2, 4, 4, 6))
        ),
    ),
    "stacked": ((9, 6), lambda x, w: jnp.sum(jnp.stack(shifts(x), -2) * w, -2)),
    "split": ((9, 6), lambda x, w: dot(x, [v[0] for v in jnp.split(w, 9)])),
    "low precision": (
        (9, 6),
        lambda x, w: add(
            (s * v).astype(jnp.float32)
            for s, v in zip(shifts(x), w.astype(jnp.bfloat16), strict=True)
        ),
    ),
}


def convolve(x, kernel):
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=names
    )


def depthwise(kernel):
    def apply(params, x):
        x = jnp.tanh(convolve(x, params["w"]))
        x = jnp.tanh(kernel(x, params["k"]) + params["b"])
        return x.mean((1, 2)) @ params["c"]

    return apply


@pytest.mark.parametrize("case", KERNELS)
def test_a_sum_of_shifted_products_is_a_kernel(case, prove):
    """The parameter is an incoming weight of the units, in any layout."""
    shape, kernel = KERNELS[case]
    params = weights(w=(3, 3, 3, 6), k=shape, b=(6,), c=(6, 2))
    find = prove if case in ("as XLA has it", "stacked") else units.find
    (group,) = find(depthwise(kernel), params, IMAGE)
    axis = shape.index(6)
    assert [(r.path, r.axis) for r in group.incoming] == [("w", 3), ("k", axis)]
    assert [r.path for r in group.biases] == ["b"] and group.scales == ()


def later(x, k):
    """Tokens as they were some steps before."""
    return jnp.pad(x, ((0, 0), (k, 0), (0, 0)))[:, :4]


def test_causal_convolution_of_tokens(prove):
    """A causal depthwise convolution, its bias first, is a kernel too."""

    def apply(params, x):
        x, y = jnp.tanh(x @ params["w"]), params["b"]
        for i in range(3):
            y = y + later(x, i) * params["k"][i]
        return jnp.tanh(y) @ params["c"]

    (group,) = prove(apply, weights(w=(3, 6), k=(3, 6), b=(6,), c=(6, 2)), TOKENS)
    assert [r.path for r in group.incoming] == ["w", "k"]


REFUSED = {
    "an entry is missing": ((9, 6), lambda x, w: add(
        s * v for s, v in zip(shifts(x)[1:], w[1:], strict=True))),
    "an entry twice": ((9, 6), lambda x, w: add(
        s * v for s, v in zip([*shifts(x), x], [*w, w[0]], strict=True))),
    "no sum": ((2, 6), lambda x, w: jnp.tanh(x * w[0]) * w[1]),
    "not all in one sum": ((2, 6), lambda x, w: x + jnp.tanh(x * w[0]) + x * w[1]),
    "a part of the units' axis": ((12,), lambda x, w: x * w[:6] + x * w[6:]),
    "two numbers per unit": ((6, 2), lambda x, w: jnp.tanh(x[..., None] * w).sum(-1)),
    "used twice": ((6,), lambda x, w: jnp.tanh(x * w) * w),
    "both sides of a mean": ((6,), lambda x, w: x * w + jnp.roll(x, 1, 1) * (1 - w)),
    "a kernel used twice": ((2, 6), lambda x, w: add(
        s * v for s, v in zip([jnp.tanh(x * w[0] + x * w[1]), x], w, strict=True))),
    "divided": ((2, 6), lambda x, w: x / (3 + w[0]) + x / (3 + w[1])),
    "a shifted kernel": ((6, 6), lambda x, w: jnp.tanh(x @ (1 + w))),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_neither_scale_nor_kernel_is_left_out(case):
    """The reason names the parameter."""
    shape, kernel = REFUSED[case]
    params = weights(w=(3, 3, 3, 6), k=shape, b=(6,), c=(6, 2))
    found = units.find(depthwise(kernel), params, IMAGE)
    assert "w" not in found.names and "k" in found.left_out["w"].replace("kernel", "")


def test_a_scale_per_unit_and_place(prove):
    """A norm over flattened or whole maps has a number for each."""

    def apply(params, x):
        x = jnp.tanh(convolve(x, params["w"]))
        return jnp.tanh(x * params["k"] + params["b"]).reshape(2, -1) @ params["c"]

    params = weights(w=(3, 3, 3, 6), k=(4, 4, 6), b=(4, 4, 6), c=(96, 2))
    (group,) = prove(apply, params, IMAGE)
    assert [(r.path, r.axis) for r in group.scales] == [("k", 2)]


def test_a_row_of_a_table_of_tasks(prove):
    """Gates that are looked up by a number of the task are incoming weights."""

    def apply(params, x, task):
        return (jnp.tanh(x @ params["w"]) * params["k"][task]) @ params["c"]

    params = weights(w=(3, 6), k=(5, 6), c=(6, 2))
    (group,) = prove(apply, params, TOKENS, jnp.int32(3))
    assert [r.path for r in group.incoming] == ["w", "k"]
