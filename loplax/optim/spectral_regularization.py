"""Spectral regularisation: pull the largest singular value of each weight to 1."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import expected, paths, placement


class SpectralRegularizationState(NamedTuple):
    """State of `spectral_regularization`.

    Attributes:
      anchors: per weight tensor the estimate of its first right singular vector,
        ``[outputs]``; per other parameter its value at ``init``.
    """

    anchors: optax.Params


def spectral_regularization(
    strength: float | jax.Array, *, exponent: float | jax.Array = 2
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the gradient of the spectral penalty.

    .. math::
      \lambda \sum_l \left( (\sigma_1(W_l)^k - 1)^2 + \|b_l\|_2^{2k} \right)

    where :math:`\sigma_1` is the largest singular value, estimated by one step of power
    iteration per update from the singular vector of the last one; kernels of
    convolutions are flattened to ``[inputs, outputs]``. For parameters with fewer than
    two axes :math:`b` is the distance from their value at ``init``, so that biases that
    start at 0 are pulled to 0 and norm scales to 1.

    Chain it before an optimiser: ``optax.chain(spectral_regularization(1e-3),
    optax.adam(1e-3))``. ``optax.masked`` restricts it to some of the parameters.

    Args:
      strength: :math:`\lambda`, at least 0; in the paper 1e-4 to 1e-2. May be traced.
      exponent: :math:`k`, at least 1. May be traced.

    Returns:
      The transformation; ``update`` needs ``params``.

    Raises:
      ValueError: for values out of range, or without ``params``.

    Example:
      >>> import jax.numpy as jnp
      >>> from loplax import optim
      >>> tx = optim.spectral_regularization(0.5)
      >>> params = {"w": jnp.array([[2.0]])}
      >>> tx.update({"w": jnp.array([[0.0]])}, tx.init(params), params)[0]["w"].item()
      12.0

    References:
      Lewandowski et al., `Learning continually by spectral regularization
      <https://arxiv.org/abs/2406.06811>`_, ICLR 2025.
    """
    checks.in_range("strength", strength)
    checks.in_range("exponent", exponent, 1)

    def init(params):
        expected.arrays(params)
        return SpectralRegularizationState(jax.tree.map(_anchor, params))

    def update(grads, state, params=None, **extra_args):
        del extra_args
        expected.required_params(params)
        placement.require_before_optimizer()
        anchors = jax.tree.map(_iterate, params, state.anchors)

        def add(grad, param, anchor):
            slope = _slope_weight if paths.is_weight(param) else _slope_bias
            pull = strength * slope(param, anchor, exponent)
            return (grad + pull.reshape(grad.shape)).astype(grad.dtype)

        grads = jax.tree.map(add, grads, params, anchors)
        return grads, SpectralRegularizationState(anchors)

    return optax.GradientTransformationExtraArgs(init, update)


def _anchor(param: jax.Array) -> jax.Array:
    wide = paths.at_least_float32(param)
    if not paths.is_weight(param):
        return wide
    # Any vector that is not orthogonal to the singular vector will do as a start.
    return jax.random.normal(jax.random.key(0), wide.shape[-1:], wide.dtype)


def _iterate(param, anchor) -> jax.Array:
    """One step of power iteration for the singular vector of a weight tensor."""
    if not paths.is_weight(param):
        return anchor
    weight = paths.matrix(param)
    new = weight.T @ (weight @ anchor)
    length = jnp.linalg.norm(new)
    # A weight of 0 has no singular vectors, but may have some one step later.
    return jnp.where(length > 0, new / jnp.where(length > 0, length, 1), anchor)


def _slope_weight(param, vector, exponent) -> jax.Array:
    left = paths.matrix(param) @ vector
    sigma = jnp.linalg.norm(left)
    left = left / jnp.where(sigma > 0, sigma, 1)
    slope = 2 * (sigma**exponent - 1) * exponent * sigma ** (exponent - 1)
    return slope * jnp.outer(left, vector)


def _slope_bias(param, initial, exponent) -> jax.Array:
    bias = param - initial
    return 2 * exponent * jnp.sum(bias**2) ** (exponent - 1) * bias
