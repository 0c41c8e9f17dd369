"""Random keys of a transformation: one stream per purpose, told apart by its name."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from loplax import branch


def copy(key: jax.Array) -> jax.Array:
    """A copy of a key, so that donating the state leaves the caller's alone."""
    data = jnp.copy(jax.random.key_data(key))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


def named(key: jax.Array, name: str) -> jax.Array:
    """The key that belongs to a name, whatever other names there are."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def at_step(key: jax.Array, count: jax.Array, purpose: str) -> jax.Array:
    """The key of one step for one purpose; ``key`` itself is never consumed."""
    return named(jax.random.fold_in(key, count), purpose)


def when(
    due: jax.Array,
    draw: Callable[..., Any],
    key: jax.Array,
    count: jax.Array,
    purpose: str,
    *args: Any,
) -> Any:
    """Runs ``draw(key_of_the_step, *args)`` at steps at which it is due; else zeros.

    Not even the key is made at the others: that alone would cost more than all the rest
    of a small network's step.
    """
    run = lambda key, count, *args: draw(at_step(key, count, purpose), *args)
    # A clone, as key reuse checks take whatever enters the branch for consumed.
    return branch.cond(due, run, None, jax.random.clone(key), count, *args)
