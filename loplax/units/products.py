"""A matrix product for tiny layers that the analysis still knows as one."""

import jax
import jax.numpy as jnp
from jax.extend import core


@jax.jit
def sum_of_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``x @ kernel`` as products and a sum, which a compiler can fuse.

    For layers of a few units and many small networks side by side, this is about twice
    as fast on CPU as a call of the matrix-product routine. ``find`` takes it for what
    it is.

    Args:
      x: activations, ``[..., inputs]``.
      kernel: weights, ``[inputs, outputs]``.

    Returns:
      ``[..., outputs]``.

    Example:
      >>> import jax.numpy as jnp
      >>> sum_of_products(jnp.ones(3), jnp.ones((3, 2))).tolist()
      [3.0, 3.0]
    """
    return jnp.sum(x[..., None] * kernel, axis=-2)


def dimension_numbers(eqn: core.JaxprEqn):
    """Dimension numbers of the product if ``eqn`` is `sum_of_products`, else ``None``.

    The name alone proves nothing, so the traced operations are compared.
    """
    if eqn.params.get("name") != sum_of_products.__name__ or len(eqn.invars) != 2:
        return None
    x, kernel = (var.aval for var in eqn.invars)
    if x.ndim < 1 or kernel.ndim != 2:
        return None
    expected = jax.make_jaxpr(sum_of_products.__wrapped__)(x, kernel)
    if str(expected) != str(eqn.params["jaxpr"]):
        return None
    return (((x.ndim - 1,), (0,)), ((), ()))
