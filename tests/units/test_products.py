"""Ways to compute products and convolutions that the analysis recognises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import units

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.parametrize(
    ("strides", "padding", "groups"),
    [
        ((1, 1), "VALID", 1),
        ((2, 2), [(1, 1), (1, 1)], 1),
        ((1, 2), [(0, 1), (2, 0)], 1),
        ((1, 1), [(1, 1), (0, 1)], 3),
        ((2, 1), "VALID", 3),
    ],
)
def test_outputs_and_gradients_are_those_of_xla(strides, padding, groups):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (2, 7, 6, 3))
    kernel = jax.random.normal(keys[1], (3, 2, 3 // groups, 4 if groups == 1 else 3))
    names = ("NHWC", "HWIO", "NHWC")
    expected = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=names)

    def both(convolve):
        convolve = functools.partial(convolve, feature_group_count=groups)
        loss = lambda x, w: jnp.sum(jnp.sin(convolve(x, w, strides, padding)))
        return convolve(x, kernel, strides, padding), *jax.grad(loss, (0, 1))(x, kernel)

    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, both(units.convolve_patches), both(expected))


AROUND = [(1, 1), (1, 1)]


@pytest.mark.parametrize(
    ("padding", "side", "last"),
    [("VALID", 8, 3), (AROUND, 8, 3), ("VALID", 6, 3), (AROUND, 8, 11)],
)
def test_units_and_features_are_those_of_a_convolution(padding, side, last):
    """Also where the last one has one place in all, so that its kernel is dense."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "w": jax.random.normal(keys[0], (3, 3, 2, 4)),
        "d": jax.random.normal(keys[3], (2, 2, 1, 4)),
        "v": jax.random.normal(keys[1], (last, last, 4, 1)),
    }
    x = jax.random.normal(keys[2], (2, side, side, 2))
    names = ("NHWC", "HWIO", "NHWC")
    theirs = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=names)

    def found(convolve):
        def apply(params, x):
            hidden = jax.nn.relu(convolve(x, params["w"], (1, 1), padding))
            hidden = jnp.sin(
                convolve(hidden, params["d"], (1, 1), padding, feature_group_count=4)
            )
            return convolve(hidden, params["v"], (1, 1), padding)

        return units.find(apply, params, x), units.tap(apply)(params, x)

    (groups, ours), (same, expected) = found(units.convolve_patches), found(theirs)
    assert groups == same and groups.names == ("w", "d")
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, ours, expected)


def test_a_name_alone_proves_nothing():
    """A function of the same name that does something else is looked into."""

    def convolve_patches_1_1_0_0_0_0(x, kernel):
        return jnp.zeros((1, 1, 1, 3)) + x.sum() + kernel.sum()

    other = jax.jit(convolve_patches_1_1_0_0_0_0)
    params = {"w": jnp.ones((3, 3, 2, 4)), "v": jnp.ones((3, 3, 4, 3))}

    def apply(params, x):
        hidden = units.convolve_patches(x, params["w"], (1, 1), "VALID")
        return other(hidden, params["v"])

    assert not units.find(apply, params, jnp.ones((1, 5, 5, 2)))


def test_other_groups_are_refused():
    """Neither form computes a grouped convolution."""
    x, kernel = jnp.ones((1, 5, 5, 4)), jnp.ones((3, 3, 2, 4))
    with pytest.raises(ValueError, match="must be 1, or 4 with a kernel"):
        units.convolve_patches(x, kernel, (1, 1), "VALID", feature_group_count=2)
