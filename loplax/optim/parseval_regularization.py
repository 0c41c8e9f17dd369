"""Parseval regularisation: pull the units' incoming weights to be orthogonal."""

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import expected, paths, placement


def parseval_regularization(
    strength: float | jax.Array, *, scale: float | jax.Array = 2.0
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the gradient of the distance of each weight matrix from orthogonality.

    .. math::
      \lambda \sum_l \|W_l W_l^\top - s I\|_F^2

    for :math:`W_l` of shape ``[outputs, inputs]``, the transpose of a kernel of this
    library: the incoming weights of different units are pulled to be orthogonal, those
    of one unit to the squared norm :math:`s`. (The same for the transpose differs by a
    constant only, so that a layer of more units than inputs gets orthogonal outgoing
    weights of its inputs instead.) Kernels of convolutions are flattened to ``[inputs,
    outputs]`` first. Parameters with fewer than two axes get nothing.

    The paper regularises the hidden layers. Leave out the last one with
    ``optax.masked(parseval_regularization(1e-3), mask)``, and chain it before an
    optimiser. A step costs as much as a forward pass of twice as many examples as a
    layer has inputs or outputs, whichever are fewer.

    Args:
      strength: :math:`\lambda`, at least 0. The authors use 1e-3 or 1e-4 times ``(64 /
        width) ** 2``. May be traced.
      scale: :math:`s`, at least 0. Default: that of the authors, the squared gain of
        their orthogonal initialisation. May be traced.

    Returns:
      The transformation, without state; ``update`` needs ``params``.

    Raises:
      ValueError: for values out of range, or without ``params``.

    Example:
      >>> import jax.numpy as jnp
      >>> from loplax import optim
      >>> tx = optim.parseval_regularization(0.5, scale=1.0)
      >>> params = {"w": jnp.array([[2.0]])}
      >>> tx.update({"w": jnp.array([[0.0]])}, tx.init(params), params)[0]["w"].item()
      12.0

    References:
      Chung et al., `Parseval regularization for continual reinforcement learning
      <https://arxiv.org/abs/2412.07224>`_, NeurIPS 2024, and the authors' code.
    """
    checks.in_range("strength", strength)
    checks.in_range("scale", scale)

    def update(grads, state, params=None, **extra_args):
        del extra_args
        expected.required_params(params)
        placement.require_before_optimizer()

        def add(grad, param):
            if not paths.is_weight(param):
                return grad
            kernel = paths.matrix(param)
            # Multiplies from the shorter side.
            cube = jnp.linalg.multi_dot([kernel, kernel.T, kernel])
            pull = 4 * strength * (cube - scale * kernel)
            return (grad + pull.reshape(grad.shape)).astype(grad.dtype)

        return jax.tree.map(add, grads, params), state

    init = lambda params: optax.EmptyState()
    return optax.GradientTransformationExtraArgs(init, update)
