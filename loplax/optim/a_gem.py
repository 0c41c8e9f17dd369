"""A-GEM: no step along which the loss of what was learned before rises."""

import functools

import jax
import jax.numpy as jnp
import optax

from loplax.optim import expected, paths, placement


def a_gem() -> optax.GradientTransformationExtraArgs:
    r"""Projects gradients so that they do not oppose a reference.

    With the gradient :math:`g` and that of examples of before, :math:`g_r`, each of all
    parameters as one vector,

    .. math::
      g \leftarrow g - \frac{\min(\langle g, g_r \rangle, 0)}{\langle g_r, g_r \rangle}
      g_r

    and :math:`g` is left as it is where :math:`g_r = 0`: while there is nothing to
    remember. Chain it before an optimiser. Inside ``optax.masked`` or
    ``optax.partition`` it sees, of both, the parameters of that part only.

    Returns:
      The transformation; ``update`` needs ``reference``, :math:`g_r`: like the
      gradients, or a tree with the same names.

    Raises:
      ValueError: in ``update``, without ``reference`` or one of its parameters.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> tx = optax.chain(optim.a_gem(), optax.sgd(1.0))
      >>> params = {"w": jnp.array([0.0, 0.0])}
      >>> grads, reference = {"w": jnp.array([1.0, 3.0])}, {"w": jnp.array([-2.0, 0.0])}
      >>> updates, _ = tx.update(grads, tx.init(params), params, reference=reference)
      >>> updates["w"].tolist()
      [-0.0, -3.0]

    References:
      Chaudhry et al., `Efficient lifelong learning with A-GEM
      <https://arxiv.org/abs/1812.00420>`_, ICLR 2019, equation 11.
    """

    def update(grads, state, params=None, *, reference=None, **extra_args):
        del params, extra_args
        placement.require_before_optimizer()
        found = paths.by_path(grads)
        wide = {p: paths.at_least_float32(leaf) for p, leaf in found.leaves.items()}
        other = _named_alike(wide, reference)
        square = _dot(other, other)
        share = jnp.minimum(_dot(wide, other), 0) / jnp.where(square > 0, square, 1)
        for path, grad in found.leaves.items():
            found.leaves[path] = (wide[path] - share * other[path]).astype(grad.dtype)
        return found.unflatten(), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _named_alike(grads: dict[str, jax.Array], reference) -> dict[str, jax.Array]:
    """What the reference has under the gradients' names, the largest being 1 or -1.

    So no square of a small number is 0.
    """
    if reference is None:
        raise ValueError(
            "update needs reference=..., the gradient on examples of before."
        )
    alike = expected.alike("reference", reference, grads)
    alike = {path: paths.at_least_float32(leaf) for path, leaf in alike.items()}
    each = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in alike.values()]
    least: jax.Array | float = 0.0
    largest = functools.reduce(jnp.maximum, each, least)
    scale = jnp.where(largest > 0, largest, 1)
    return {path: leaf / scale for path, leaf in alike.items()}


def _dot(one: dict[str, jax.Array], other: dict[str, jax.Array]) -> jax.Array | int:
    return sum(jnp.sum(leaf * other[path]) for path, leaf in one.items())
