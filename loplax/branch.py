"""A branch that stays a branch under ``vmap``."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from loplax import sharding


def cond(
    flag: jax.Array,
    body: Callable[..., Any],
    otherwise: Callable[..., Any] | None,
    *args: Any,
) -> Any:
    """``jax.lax.cond``, but under ``vmap`` ``body`` runs only if some flag is set.

    A vmapped ``lax.cond`` becomes a select that always runs both sides. Here the batch
    runs both and selects if any of its elements needs ``body``, and ``otherwise`` alone
    if none does. It has the derivatives of ``lax.cond``, forward and reverse.

    The two functions may return what lies differently on a mesh with Explicit axes: the
    result lies as ``otherwise`` returns it. In a ``shard_map`` it varies over the axes
    over which either varies.

    Args:
      flag: bool scalar.
      body: ``(*args) -> tree of arrays``, where the flag is set.
      otherwise: ``(*args) -> tree`` of the same form, where it is not; zeros if None.
      *args: trees of arrays. Both functions may also close over traced values.

    Returns:
      The tree.

    Example:
      >>> double = lambda flag, x: cond(flag, lambda x: 2 * x, lambda x: -x, x)
      >>> jax.vmap(double)(jnp.array([True, False]), jnp.array([1.0, 3.0])).tolist()
      [2.0, -3.0]
    """
    body, body_consts, shapes, new = _hoist(body, args)
    if otherwise is None:
        otherwise = lambda *_: jax.tree.map(jnp.zeros_like, shapes)
    otherwise, other_consts, _, old = _hoist(otherwise, args)
    run = lambda consts, args: _cast(body(consts[0], args), new, old)
    rest = lambda consts, args: _cast(otherwise(consts[1], args), new, old)
    anywhere, here = _flags(flag)

    def each(*operands):
        # As data: under vmap, operands pass through selects that would reuse keys.
        again = lambda function: (
            lambda data: function(*jax.tree.map(_wrap_key, data, operands))
        )
        data = jax.tree.map(_unwrap_key, operands)
        if any(map(sharding.is_split, [*jax.tree.leaves(operands), *new, *old])):
            return jax.tree.map(
                functools.partial(_select, here), again(run)(data), again(rest)(data)
            )
        return jax.lax.cond(here, again(run), again(rest), data)

    return jax.lax.cond(anywhere, each, rest, (body_consts, other_consts), args)


@jax.custom_batching.custom_vmap
def _flags(flag):
    """Whether any element of a batch needs the body, and whether this one does.

    Without a batch the second answer is a constant, which the compiler folds. Nothing
    that has derivatives passes through this function.
    """
    return flag, jnp.array(True)


@_flags.def_vmap
def _flags_of_batch(axis_size, in_batched, flag):
    del axis_size, in_batched
    return (_flags(jnp.any(flag))[0], flag), (False, True)


def _select(flag: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """A select of what is sharded; JAX's own for a batched ``lax.cond`` refuses it."""
    lies = jax.typeof(new).sharding
    flags = jnp.broadcast_to(flag, new.shape, out_sharding=lies)
    return jnp.where(flags, new, old)


def _hoist(function: Callable[..., Any], args: Any):
    """The function traced once, with what it closes over as an argument."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    structure = jax.tree.structure(shapes)

    def run(consts, args):
        found = jax.core.eval_jaxpr(closed.jaxpr, consts, *jax.tree.leaves(args))
        return jax.tree.unflatten(structure, found)

    return run, closed.consts, shapes, closed.out_avals


def _cast(tree: Any, new: list, old: list) -> Any:
    """What one function returned, laid out as the two functions' types say."""

    def cast(x, new, old):
        x = sharding.laid(x, new.sharding if old.sharding.mesh.empty else old.sharding)
        varying = [kind.manual_axis_type.varying for kind in (new, old, jax.typeof(x))]
        missing = sorted((varying[0] | varying[1]) - varying[2])
        return jax.lax.pcast(x, tuple(missing), to="varying")

    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, map(cast, leaves, new, old))


def _is_key(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _unwrap_key(x: Any) -> Any:
    return jax.random.key_data(x) if _is_key(x) else x


def _wrap_key(x: Any, like: Any) -> Any:
    impl = jax.random.key_impl(like) if _is_key(like) else None
    return x if impl is None else jax.random.wrap_key_data(x, impl=impl)
