"""NaP: keep every weight matrix at its initial norm."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax.optim import expected, paths, placement


class NormalizeAndProjectState(NamedTuple):
    """State of `normalize_and_project`.

    Attributes:
      inner: state of the inner optimiser.
      norms: Frobenius norm of each parameter that ``init`` was given, a scalar.
    """

    inner: optax.OptState
    norms: optax.Params


def normalize_and_project(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that weights turn but do not grow.

    After each step of the inner optimiser, for every weight tensor :math:`W` (two axes
    or more) and its value :math:`W_0` at ``init``,

    .. math::
      W \leftarrow \frac{\|W_0\|_F}{\|W\|_F} W

    This is the *project* of normalize-and-project. The *normalize* belongs into the
    network: layer normalisation before each nonlinearity makes its outputs independent
    of :math:`\|W\|_F`, which otherwise grows and so lowers the effective learning rate.
    Biases, and learned scales and offsets of the normalisation, are left as they are
    (the paper also holds the joint norm of a layer's scales and offsets), and so are
    tensors that start at 0. To leave more free, such as the last layer, give it to
    another optimiser by ``optax.partition``. It must be the last link of a chain.

    Args:
      inner: the optimiser of all parameters.

    Returns:
      The transformation; ``update`` needs ``params``.

    Raises:
      ValueError: without ``params``.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> tx = optim.normalize_and_project(optax.sgd(1.0))
      >>> params = {"w": jnp.array([[5.0, 0.0]])}
      >>> grads = {"w": jnp.array([[-1.0, -8.0]])}
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [[3.0, 4.0]]

    References:
      Lyle et al., `Normalization and effective learning rates in reinforcement learning
      <https://arxiv.org/abs/2407.01800>`_, NeurIPS 2024.
    """
    inner = expected.optimizer(inner)

    def init(params):
        return NormalizeAndProjectState(inner.init(params), jax.tree.map(_norm, params))

    def update(grads, state, params=None, **extra_args):
        placement.require_last()
        expected.required_params(params)
        with placement.changing("normalize_and_project"):
            updates, inner_state = inner.update(
                grads, state.inner, params, **extra_args
            )

        def project(update, param, norm):
            if not paths.is_weight(param):
                return update
            param = paths.at_least_float32(param)
            new = param + update
            now = _norm(new)
            held = (norm > 0) & (now > 0)
            back = norm / jnp.where(held, now, 1) * new - param
            return jnp.where(held, back, update).astype(update.dtype)

        updates = jax.tree.map(project, updates, params, state.norms)
        return updates, NormalizeAndProjectState(inner_state, state.norms)

    return optax.GradientTransformationExtraArgs(init, update)


def _norm(param: jax.Array) -> jax.Array:
    return jnp.linalg.norm(paths.at_least_float32(param))
