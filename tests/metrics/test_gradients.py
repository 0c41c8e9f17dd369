"""Size and sparsity of gradients: known trees, and a network with a dead unit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import metrics

pytestmark = pytest.mark.usefixtures("quick_compile")

METRICS = (metrics.gradient_norm, metrics.gradient_sparsity)
TREE = {
    "w": jnp.array([[2.0, 0.0], [-1e-30, 0.0]]),
    "b": [jnp.array(-0.0), jnp.ones(5)],
}


def test_by_hand():
    """Only exact zeros count, of either sign, whatever leaf they are in."""
    assert metrics.gradient_norm(TREE) == 3.0  # sqrt(4 + 5 * 1)
    np.testing.assert_allclose(metrics.gradient_sparsity(TREE), 3 / 10)


def test_extremes():
    zeros = jax.tree.map(jnp.zeros_like, TREE)
    assert metrics.gradient_norm(zeros) == 0
    assert metrics.gradient_sparsity(zeros) == 1
    assert metrics.gradient_sparsity(jax.tree.map(jnp.ones_like, TREE)) == 0


def test_a_dead_unit_gets_no_gradient():
    """Of 3 units with 2 incoming weights, a bias and an outgoing weight, 1 is dead."""

    def loss(params):
        h = jax.nn.relu(jnp.ones((4, 2)) @ params["w"] + params["b"])
        return jnp.sum(h @ params["v"])

    params = {"w": jnp.ones((2, 3)), "b": jnp.array([0.0, -9.0, 0.0]), "v": jnp.ones(3)}
    found = metrics.gradient_sparsity(jax.grad(loss)(params))
    np.testing.assert_allclose(found, 4 / 12)


def test_scale():
    scaled = jax.tree.map(lambda g: -8 * g, TREE)
    assert metrics.gradient_norm(scaled) == 8 * metrics.gradient_norm(TREE)
    assert metrics.gradient_sparsity(scaled) == metrics.gradient_sparsity(TREE)


def test_bfloat16():
    """The sum of squares, 257^2, is far from any number of half precision."""
    grads = {"w": jnp.array([255.0, 32.0], jnp.bfloat16)}
    assert float(metrics.gradient_norm(grads)) == 257


def test_float64():
    """What is given in double precision is not rounded."""
    with jax.enable_x64(True):
        longer = metrics.gradient_norm({"w": jnp.array([1.0, 1e-5])}) - 1
    np.testing.assert_allclose(longer, 5e-11, rtol=1e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_under_jit_and_vmap(metric):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.integers(-1, 2, size=shape), jnp.float32)
    grads = {"w": draw(4, 3, 2), "b": draw(4)}
    found = jax.jit(jax.vmap(metric))(grads)
    one_by_one = [metric({"w": grads["w"][i], "b": grads["b"][i]}) for i in range(4)]
    np.testing.assert_allclose(found, one_by_one, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("metric", METRICS)
def test_what_is_not_finite_shows(metric, bad):
    assert not np.isfinite(metric({"w": jnp.array([0.0, bad]), "b": jnp.zeros(3)}))
