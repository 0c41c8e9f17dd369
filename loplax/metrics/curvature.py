"""Ranks of the loss surface: of the Hessian, and of the empirical tangent kernel."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from loplax.metrics import matrices, ranks


def hessian_spectrum(
    loss: Callable[[Any], jax.Array],
    params,
    key: jax.Array,
    *,
    steps: int = 100,
    probes: int = 1,
) -> tuple[jax.Array, jax.Array]:
    r"""Values and shares of the eigenvalues of the Hessian of a loss.

    Stochastic Lanczos quadrature: from each of ``probes`` vectors v of random signs,
    ``steps`` Hessian-vector products make the Hessian H tridiagonal in the orthonormal
    basis that the Lanczos recurrence (fully re-orthogonalised) grows from v. The values
    are the eigenvalues of these small matrices, the weights the squares of the first
    entries of their eigenvectors, over ``probes``. Then

    .. math::
      \sum_j w_j f(\lambda_j) \approx
      \operatorname{mean}_v \frac{v^\top f(H) v}{d} \approx
      \frac{1}{d} \operatorname{tr} f(H),

    the first of which is exact for polynomials f up to degree 2 ``steps`` - 1. With as
    many steps as there are parameters, d, H itself is decomposed instead, which costs
    the same: the values are its d eigenvalues and all weights 1 / d, exactly.

    Args:
      loss: ``params -> scalar``, such as the mean over a probe batch.
      params: a tree of arrays, taken in at least float32.
      key: typed random key.
      steps: Hessian-vector products per probe. The basis takes as much memory as
        ``steps`` copies of the parameters.
      probes: random vectors to average over, one after the other.

    Returns:
      ``(values, weights)``, each ``[probes * steps]``, or ``[d]`` if ``steps >= d``.

    Raises:
      ValueError: if ``steps`` or ``probes`` is less than 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> loss = lambda w: jnp.sum(jnp.array([4.0, 1.0, 0.0]) * w**2) / 2
      >>> values, _ = hessian_spectrum(loss, jnp.ones(3), jax.random.key(0), steps=3)
      >>> values.tolist()
      [0.0, 1.0, 4.0]

    References:
      Ghorbani et al., `An investigation into neural net optimization via Hessian
      eigenvalue density <https://arxiv.org/abs/1901.10159>`_, 2019.
    """
    for name, value in (("steps", steps), ("probes", probes)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    flat, unravel = ravel_pytree(_wide(params))
    # Fewer digits would drown the small eigenvalues in the rounding of the large ones.
    with jax.default_matmul_precision("highest"):
        _, product = jax.linearize(jax.grad(lambda w: loss(unravel(w))), flat)
        if steps >= flat.size:
            columns = jax.lax.map(product, jnp.eye(flat.size, dtype=flat.dtype))
            values, _ = matrices.eigh(columns)
            return values, jnp.full_like(values, 1 / flat.size)

        def quadrature(key):
            signs = jax.random.rademacher(key, flat.shape, flat.dtype)
            tridiagonal = _lanczos(product, signs / math.sqrt(flat.size), steps)
            values, vectors = matrices.eigh(tridiagonal)
            return values, vectors[0] ** 2 / probes

        values, weights = jax.lax.map(quadrature, jax.random.split(key, probes))
    return values.ravel(), weights.ravel()


def _wide(params):
    return jax.tree.map(matrices.at_least_float32, params)


def _lanczos(product: Callable, start: jax.Array, steps: int) -> jax.Array:
    """The tridiagonal matrix of ``steps`` Lanczos steps from a unit vector.

    Where the Krylov space ends before, the rest of the matrix is 0.
    """

    def step(carry, i):
        basis, vector, scale = carry
        basis = basis.at[i].set(vector)
        image = product(vector)
        alpha = jnp.vdot(vector, image)
        scale = jnp.maximum(scale, jnp.linalg.norm(image))
        for _ in range(2):  # Once leaves rounding errors of the size of `scale`.
            image -= (basis @ image) @ basis
        beta = jnp.linalg.norm(image)
        ended = beta <= 10 * jnp.finfo(beta.dtype).eps * scale
        vector = jnp.where(ended, 0, image / jnp.where(ended, 1, beta))
        return (basis, vector, scale), (alpha, jnp.where(ended, 0, beta))

    basis = jnp.zeros((steps, start.size), start.dtype)
    carry = basis, start, jnp.zeros((), start.dtype)
    _, (alpha, beta) = jax.lax.scan(step, carry, jnp.arange(steps))
    beside = jnp.diag(beta[:-1], 1)
    return jnp.diag(alpha) + beside + beside.T


def hessian_rank(
    loss: Callable[[Any], jax.Array],
    params,
    key: jax.Array,
    *,
    steps: int = 100,
    threshold: float = 0.01,
    probes: int = 1,
) -> jax.Array:
    r"""Number of directions in which the loss is curved: the eps-rank of its Hessian.

    .. math::
      \#\{i : |\lambda_i| > \epsilon \max_k |\lambda_k|\} \approx
      d \sum_j w_j \, [\, |\hat\lambda_j| > \epsilon \max_k |\hat\lambda_k| \,]

    with the values and weights of `hessian_spectrum`: exact, up to rounding, if
    ``steps`` is at least the number d of parameters. Otherwise an estimate: once the
    steps tell the eigenvalues on both sides of the threshold apart, its mean over keys
    is the rank r, and its standard deviation about sqrt(2 r / ``probes``) for r << d.

    The reference counts the eigenvalues above a fixed threshold, as a share of d; that
    is ``jnp.sum(weights * (abs(values) > threshold))`` of `hessian_spectrum`. It falls
    when the loss is scaled down; this rank does not.

    Args:
      loss: ``params -> scalar``, such as the mean over a probe batch.
      params: a tree of arrays, taken in at least float32.
      key: typed random key.
      steps: Hessian-vector products per probe, as in `hessian_spectrum`.
      threshold: the eps, in [0, 1); float32 resolves no less than about 1e-5. May be
        traced.
      probes: random vectors to average over.

    Returns:
      Scalar in [0, d]; 0 where the Hessian is 0.

    Raises:
      ValueError: as `hessian_spectrum`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> loss = lambda w: jnp.sum(jnp.array([4.0, 1.0, 0.001]) * w**2)
      >>> round(float(hessian_rank(loss, jnp.ones(3), jax.random.key(0))), 4)
      2.0

    References:
      Prakash et al., `Spectral collapse drives loss of plasticity in deep continual
      learning <https://arxiv.org/abs/2509.22335>`_, 2025.
    """
    values, weights = hessian_spectrum(loss, params, key, steps=steps, probes=probes)
    magnitude = jnp.abs(values)
    largest = jnp.max(magnitude)
    share = jnp.sum(weights, where=magnitude > threshold * largest)
    return jnp.where(jnp.isfinite(largest), optax.tree.size(params) * share, jnp.nan)


def ntk(apply: Callable, params, inputs) -> jax.Array:
    r"""The empirical neural tangent kernel on a probe batch.

    .. math::
      K_{ij} = \sum_o \langle \nabla_\theta f_o(x_i), \nabla_\theta f_o(x_j) \rangle

    How much a gradient step on example j moves the outputs for example i. It takes one
    Jacobian-vector and one vector-Jacobian product of the batch per example and output,
    one after the other, and so little more memory than a gradient does.

    Args:
      apply: ``(params, inputs) -> outputs``, ``[examples, ...]``.
      params: a tree of arrays, taken in at least float32.
      inputs: the probe batch, a few hundred examples at most.

    Returns:
      The kernel, ``[examples, examples]``.

    Example:
      >>> import jax.numpy as jnp
      >>> linear = lambda w, x: x @ w
      >>> ntk(linear, jnp.ones((2, 1)), jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
      [[5.0, 11.0], [11.0, 25.0]]

    References:
      Jacot et al., `Neural tangent kernel: convergence and generalization in neural
      networks <https://arxiv.org/abs/1806.07572>`_, 2018.
    """
    with jax.default_matmul_precision("highest"):
        params = _wide(params)
        outputs, push = jax.linearize(lambda params: apply(params, inputs), params)
        pull = jax.linear_transpose(push, params)
        examples = len(outputs)

        def column(index):
            one = jnp.zeros(outputs.size, outputs.dtype).at[index].set(1)
            (gradient,) = pull(one.reshape(outputs.shape))
            moved = push(gradient).reshape(examples, -1)
            return moved[:, index % moved.shape[1]]

        columns = jax.lax.map(column, jnp.arange(outputs.size))
    return jnp.sum(columns.reshape(examples, -1, examples), axis=1)


def ntk_rank(apply: Callable, params, inputs, fraction: float = 0.99) -> jax.Array:
    """Smallest k whose k largest eigenvalues of the `ntk` make up 99% of its trace.

    That is its `absolute_approximate_rank`; with a smaller rank, fewer examples can be
    learned independently of the others. Other ranks: ``effective_rank(ntk(...))``.

    Args:
      apply: ``(params, inputs) -> outputs``, ``[examples, ...]``.
      params: a tree of arrays, taken in at least float32.
      inputs: the probe batch, a few hundred examples at most.
      fraction: of the trace, in (0, 1]. May be traced.

    Returns:
      int32 scalar, at most the number of examples; 0 where all gradients are 0, and -1
      where they are not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> linear = lambda w, x: x @ w
      >>> int(ntk_rank(linear, jnp.ones((3, 1)), jnp.eye(3)[jnp.array([0, 0, 1, 1])]))
      2

    References:
      Tang et al., `Mitigating plasticity loss in continual reinforcement learning by
      reducing churn <https://arxiv.org/abs/2506.00592>`_, 2025: the rank of this kernel
      falls with plasticity.
    """
    return ranks.absolute_approximate_rank(ntk(apply, params, inputs), fraction)
