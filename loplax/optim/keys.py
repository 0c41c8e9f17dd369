"""Random keys of a transformation: one stream per purpose, told apart by its name."""

import zlib

import jax
import jax.numpy as jnp


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
