"""Hessian and tangent kernel: known spectra, and the laws of quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import metrics
from loplax.metrics import matrices

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(0)


def quadratic(hessian):
    """A loss of parameters ``{"a": [4], "b": [...]}`` whose Hessian is given."""
    hessian = jnp.asarray(hessian, jnp.float32)

    def loss(params):
        w = jnp.concatenate([params["a"], params["b"]])
        return w @ hessian @ w / 2 + jnp.sum(w)

    return loss, {"a": jnp.ones(4), "b": -jnp.ones(len(hessian) - 4)}


# How often each eigenvalue occurs. Above 0.01 of the largest magnitude are 9 of 15:
# signs do not matter, and 0.04 does not count.
COUNTS = {-8.0: 3, 0.0: 4, 0.04: 2, 1.0: 5, 2.0: 1}
EIGENVALUES = np.repeat(list(COUNTS), list(COUNTS.values())).astype(np.float32)


def test_spectrum_and_rank_of_a_small_hessian_are_exact(orthogonal):
    basis = orthogonal(0, 15)
    loss, params = quadratic((basis * EIGENVALUES) @ basis.T)
    values, weights = metrics.hessian_spectrum(loss, params, KEY, steps=99, probes=3)
    np.testing.assert_allclose(values, EIGENVALUES, atol=1e-5)
    np.testing.assert_allclose(weights, np.full(15, 1 / 15), rtol=1e-6)
    rank = functools.partial(metrics.hessian_rank, loss, params, KEY, steps=15)
    ranks = jax.jit(jax.vmap(lambda threshold: rank(threshold=threshold)))
    thresholds = jnp.array([1e-4, 0.01, 0.2, 0.5, 0.9999])
    np.testing.assert_allclose(ranks(thresholds), [11, 9, 4, 3, 3], rtol=1e-5)


@pytest.mark.parametrize(("steps", "probes"), [(5, 3), (9, 1)])
def test_few_different_eigenvalues_take_few_steps(steps, probes):
    """Random signs weigh the axes alike, so that a diagonal Hessian gets exact shares.

    Steps beyond the number of different eigenvalues find nothing more, and do no harm.
    """
    loss, params = quadratic(np.diag(EIGENVALUES))

    @jax.jit
    def found(key):
        options = {"steps": steps, "probes": probes}
        values, weights = metrics.hessian_spectrum(loss, params, key, **options)
        return values, weights, metrics.hessian_rank(loss, params, key, **options)

    values, weights, rank = found(KEY)
    assert values.shape == weights.shape == (steps * probes,)
    for value, count in COUNTS.items():
        share = jnp.sum(weights, where=jnp.abs(values - value) < 1e-3)
        np.testing.assert_allclose(share, count / 15, rtol=1e-4)
    np.testing.assert_allclose(rank, 9, rtol=1e-5)


def test_moments_are_exact_up_to_the_order_of_the_quadrature():
    """Gauss: n steps integrate all polynomials of a degree below 2n, and no more."""
    eigenvalues = np.linspace(-1, 1.5, 20)
    loss, params = quadratic(np.diag(eigenvalues))
    found = jax.jit(lambda key: metrics.hessian_spectrum(loss, params, key, steps=5))
    values, weights = np.asarray(found(KEY), np.float64)
    for power in range(10):
        moment = np.sum(weights * values**power)
        np.testing.assert_allclose(moment, np.mean(eigenvalues**power), rtol=1e-4)
    assert abs(np.sum(weights * values**10) / np.mean(eigenvalues**10) - 1) > 1e-3


def test_estimate_is_unbiased_and_as_noisy_as_promised(orthogonal):
    """Rank 20 of 200: the standard deviation over keys is about sqrt(2 * 20 / 4)."""
    rng = np.random.default_rng(0)
    eigenvalues = np.zeros(200)
    eigenvalues[:20] = rng.uniform(0.1, 1, 20) * rng.choice([-1, 1], 20)
    basis = orthogonal(0, 200)
    loss, params = quadratic((basis * eigenvalues) @ basis.T)
    rank = lambda key: metrics.hessian_rank(loss, params, key, steps=30, probes=4)
    found = jax.jit(jax.vmap(rank))(jax.random.split(KEY, 64))
    assert abs(np.mean(found) - 20) < 3 * np.sqrt(10) / np.sqrt(64)
    assert 0.75 < np.std(found) / np.sqrt(10) < 1.25


def network(params, x):
    """Two outputs of five tanh units."""
    return jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]


def case(seed):
    """Parameters of `network` (35), and a batch of 8 examples."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return {"w": draw(4, 5), "b": draw(5), "v": draw(5, 2)}, draw(8, 4)


def permuted(params):
    """The same network with its hidden units in another order."""
    order = jnp.array([3, 0, 4, 1, 2])
    w, b, v = params["w"][:, order], params["b"][order], params["v"][order]
    return {"w": w, "b": b, "v": v}


@functools.partial(jax.jit, static_argnames="steps")
def hessian_rank(params, x, scale=1.0, steps=64):
    """Of the mean squared output of `network`."""
    loss = lambda params: scale * jnp.mean(network(params, x) ** 2)
    return metrics.hessian_rank(loss, params, KEY, steps=steps)


@jax.jit
def ntk_rank(params, x, scale=1.0):
    """Of `network`."""
    return metrics.ntk_rank(lambda params, x: scale * network(params, x), params, x)


@jax.jit
def dense_hessian(params, x):
    """``[35, 35]``."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return jax.hessian(lambda w: jnp.mean(network(unravel(w), x) ** 2))(flat)


@jax.jit
def jacobian(params, x):
    """``[examples, outputs, 35]``."""
    leaves = jax.tree.leaves(jax.jacrev(network)(params, x))
    return jnp.concatenate([leaf.reshape(8, 2, -1) for leaf in leaves], axis=-1)


def test_hessian_of_a_network():
    """The count that the dense Hessian gives in double precision."""
    params, x = case(0)
    dense = np.asarray(dense_hessian(params, x), np.float64)
    found = np.abs(np.linalg.eigvalsh(dense))
    expected = np.sum(found > 0.01 * found.max())
    assert 5 < expected < 35
    np.testing.assert_allclose(hessian_rank(params, x), expected, rtol=1e-5)
    estimate = hessian_rank(params, x, steps=25)
    assert abs(estimate - expected) < 2 * np.sqrt(2 * expected)


@pytest.mark.parametrize("rank", [hessian_rank, ntk_rank])
def test_invariances_of_ranks(rank):
    params, x = case(3)
    expected = rank(params, x)
    assert 1 < expected < (8 if rank is ntk_rank else 35)
    found = [
        rank(permuted(params), x),
        rank(params, x[::-1]),
        rank(params, x, 1e-3),
        rank(params, x, -1.0),
    ]
    np.testing.assert_allclose(found, np.full(4, expected), rtol=1e-5)


@pytest.mark.parametrize(
    "rank", [hessian_rank, functools.partial(hessian_rank, steps=25), ntk_rank]
)
def test_ranks_under_vmap(rank):
    cases = [case(seed) for seed in range(3)]
    one_by_one = [rank(*each) for each in cases]
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *cases)
    np.testing.assert_allclose(jax.vmap(rank)(*stacked), one_by_one, rtol=1e-3)


@pytest.mark.parametrize("steps", [3, 8])
def test_hessian_rank_of_extremes(steps):
    @jax.jit
    def rank(scale):
        loss = lambda w: jnp.sum(w + scale * w**2)
        return metrics.hessian_rank(loss, jnp.ones(6), KEY, steps=steps)

    assert rank(0.0) == 0  # no curvature at all
    np.testing.assert_allclose(rank(1.0), 6, rtol=1e-5)
    assert np.isnan(rank(np.nan))
    assert np.isnan(rank(np.inf))


@pytest.mark.parametrize("option", ["steps", "probes"])
def test_numbers_of_steps_and_probes_are_checked(option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        metrics.hessian_rank(jnp.sum, jnp.ones(3), KEY, **{option: 0})


def test_ntk_of_a_linear_model():
    """K = X X^T for each output: with 3 orthogonal kinds of input, the rank is 3."""
    kinds = np.diag([1.0, 2.0, 3.0, 0.0])[:, :3]
    x = jnp.asarray(kinds[[0, 1, 1, 2, 0, 3]], jnp.float32)
    linear = lambda w, x: x @ w
    kernel = metrics.ntk(linear, jnp.ones((3, 2)), x)
    np.testing.assert_allclose(kernel, 2 * x @ x.T, rtol=1e-6)
    # Eigenvalues: 9, 4 + 4, 1 + 1, all times 2.
    rank = jax.jit(functools.partial(metrics.ntk_rank, linear, jnp.ones((3, 2)), x))
    fractions = [(17 + 1) / 19, (9 + 1) / 19, 8 / 19]
    assert [rank(fraction=each) for each in fractions] == [3, 2, 1]


def test_ntk_of_a_network():
    """The product of its Jacobian with itself, summed over the outputs."""
    params, x = case(0)
    each = jacobian(params, x)
    kernel = metrics.ntk(network, params, x)
    expected = jnp.einsum("iop,jop->ij", each, each)
    np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-4)
    # With one output per example, the eigenvalues are squared singular values of it.
    one = lambda params, x: network(params, x)[:, 0]
    kernel = metrics.ntk(one, params, x)
    expected = each[:, 0] @ each[:, 0].T
    np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-4)
    rank = metrics.absolute_approximate_rank(kernel)
    assert 1 < rank == metrics.approximate_rank(each[:, 0])


def test_ntk_rank_of_extremes():
    params, x = case(0)
    assert ntk_rank(params, x, 0.0) == 0
    params["w"] = params["w"].at[0, 0].set(jnp.nan)
    assert ntk_rank(params, x) == -1


@pytest.mark.parametrize("decompose", [matrices.eigh, matrices.singular_values])
def test_vmapped_decompositions_take_one_matrix_at_a_time_on_cpu(decompose):
    """Batched ones, run on several devices of a process at once, wait for ever."""
    batch = jnp.broadcast_to(jnp.diag(jnp.arange(3.0)), (5, 3, 3))
    compiled = jax.jit(jax.vmap(decompose)).lower(batch).compile().as_text()
    calls = [line for line in compiled.splitlines() if "lapack" in line]
    assert calls and not any("5,3" in line for line in calls)


def test_kernels_that_half_precision_cannot_hold():
    """Sums over parameters overflow in float16; both are as those in float32."""
    x = jnp.full((2, 9), 200.0, jnp.float16)
    kernel = metrics.ntk(lambda w, x: x @ w, jnp.ones((9, 1), jnp.float16), x)
    np.testing.assert_array_equal(kernel, np.full((2, 2), 9 * 200.0**2))
    loss = lambda w: jnp.sum(jnp.array([4e4, 1.0]) * w**2)
    values, _ = metrics.hessian_spectrum(
        loss, jnp.ones(2, jnp.float16), jax.random.key(0), steps=2
    )
    np.testing.assert_allclose(values, [2, 8e4], rtol=1e-5)
