"""Types of what is carried from step to step."""

from typing import Any

import jax


def like(new: Any, old: Any) -> Any:
    """A tree with the types of another: what a loop carries must keep its own.

    Where ``jax.enable_x64`` is set, a float64 setting makes float64 of the float32
    moments of an optimiser, or float64 inputs of the float32 statistics of a network.

    Args:
      new: a tree of arrays and typed keys.
      old: a tree of the same form.

    Returns:
      The values of ``new`` in the types of ``old``.

    Example:
      >>> import jax.numpy as jnp
      >>> like({"mu": jnp.arange(2)}, {"mu": jnp.zeros(2, jnp.bfloat16)})["mu"].dtype
      dtype(bfloat16)
    """

    def one(new, old):
        return new if new.dtype == old.dtype else new.astype(old.dtype)

    return jax.tree.map(one, new, old)
