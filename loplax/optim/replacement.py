"""What it means to replace a hidden unit, shared by every method that does.

A replaced unit starts again: its incoming weights are re-drawn from the initial
distribution, its biases and scales return to their initial values (`restart_values`),
all its outgoing weights become 0, and the inner optimiser forgets what it knew of these
weights. A weight between two units that are replaced at the same step is an outgoing
weight first and an incoming weight second, so it ends up re-drawn.

The number of units that a step can replace is static (``capacity``), so that only that
many columns are ever drawn. Everything else is a masked select, which the compiler
fuses into the inner optimiser's own update.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import sharding
from loplax.optim import initializers, keys, paths, utilities


class PerUnit(NamedTuple):
    """Optimiser state that belongs to units instead of weights.

    An inner optimiser that wraps such state in ``PerUnit`` has it reset, unit by unit,
    to the value that its ``init`` gives (``loplax.optim.adam`` keeps its step counts
    so).

    Attributes:
      values: one array ``[size]`` per group name.
    """

    values: dict[str, jax.Array]


class Replacement(NamedTuple):
    """The units replaced at one step, and the weights drawn for them.

    Attributes:
      replaced: per group name, which units are replaced, bool ``[size]``.
      column: per group name, each replaced unit's place among the drawn columns,
        int32 ``[size]``.
      drawn: per path of an incoming weight, the parameter's shape with its unit axis
        cut to the capacity.
    """

    replaced: dict[str, jax.Array]
    column: dict[str, jax.Array]
    drawn: dict[str, jax.Array]


def lowest(scores: jax.Array, wanted: jax.Array, capacity: int):
    """Marks the lowest scores.

    Args:
      scores: ``[size]``; ``inf`` is never chosen.
      wanted: how many to choose, a scalar; a fraction of one waits.
      capacity: static bound.

    Returns:
      ``(chosen, column)``: bool ``[size]``, and each chosen entry's rank, int32
      ``[size]``.
    """
    if capacity == 1:
        order = jnp.argmin(scores, keepdims=True)
    else:
        order = jax.lax.top_k(-scores, capacity)[1]
    taken = (jnp.arange(1, capacity + 1) <= wanted) & jnp.isfinite(scores[order])
    places = jnp.arange(capacity, dtype=jnp.int32)
    chosen = jnp.zeros(len(scores), bool).at[order].set(taken)
    return chosen, jnp.zeros(len(scores), jnp.int32).at[order].set(places)


def draw_weights(groups, params, initializer, capacity) -> Callable:
    """Makes the function that draws the incoming weights of a step's new units.

    Args:
      groups: the ``UnitGroup`` records.
      params: the parameters, for their shapes.
      initializer: ``(key, shape, dtype) -> array``, or one per path.
      capacity: how many units to draw, per group name.

    Returns:
      ``key -> drawn``, as in `Replacement`.
    """
    leaves = paths.by_path(params).leaves
    draws = initializers.one_unit(groups, params, initializer)

    def draw(key) -> dict[str, jax.Array]:
        drawn = {}
        for group in groups:
            for axis in group.incoming:
                key_axis = keys.named(key, axis.path)
                # One key per column: what is drawn does not depend on the capacity.
                fold = functools.partial(jax.random.fold_in, key_axis)
                key_columns = jax.vmap(fold)(jnp.arange(capacity[group.name]))
                one = functools.partial(draws[axis.path], dtype=leaves[axis.path].dtype)
                columns = jax.vmap(one)(key_columns)
                place = axis.axis % (columns.ndim - 1)
                columns = jnp.squeeze(columns, place + 1)
                drawn[axis.path] = jnp.moveaxis(columns, 0, place)
        return drawn

    return draw


def restart_values(groups, params) -> dict[str, jax.Array]:
    """The values to which biases and scales of replaced units return.

    The model alone does not tell them: a norm scale starts at 1, the slope of a PReLU
    at .25, a LayerScale at 1e-6. So scales return to the values they have in
    ``params``, which the transformation's ``init`` is given. Biases do so too where
    they are all equal (0, or 1 of a gate); else, drawn at random or trained before,
    they return to 0, as published.

    Args:
      groups: the ``UnitGroup`` records.
      params: the parameters at ``init``.

    Returns:
      Per path of a bias or scale, an array that broadcasts to the parameter.
    """
    leaves = paths.by_path(params).leaves
    values = {}
    if not leaves:  # a placeholder of optax.tree.map_params
        owned = [axis for group in groups for axis in group.biases + group.scales]
        return {axis.path: jnp.zeros(()) for axis in owned}
    for group in groups:
        for axis in group.biases:
            bias = sharding.whole(leaves[axis.path])
            first = bias[(0,) * bias.ndim]
            values[axis.path] = jnp.where(jnp.all(bias == first), first, 0)
        for axis in group.scales:
            values[axis.path] = jnp.copy(leaves[axis.path])
    return values


def replace_weights(groups, replacement: Replacement, initial, params, updates):
    """Changes ``updates`` so that applying them replaces the chosen units.

    Args:
      groups: the ``UnitGroup`` records.
      replacement: what to replace, and with what.
      initial: what `restart_values` gave.
      params: parameters before the step.
      updates: the inner optimiser's updates.

    Returns:
      The updates.
    """
    old, new = paths.by_path(params).leaves, paths.by_path(updates)

    def assign(axis, group, value):
        param = old[axis.path]
        replaced, lies = replacement.replaced[group.name], jax.typeof(param).sharding
        mask = axis.spread(replaced, param.shape, lies)
        change = difference(value, param)
        new.leaves[axis.path] = jnp.where(mask, change, new.leaves[axis.path])

    for group in groups:
        for axis in group.outgoing:
            assign(axis, group, 0.0)
    for group in groups:
        for axis in group.biases + group.scales:
            assign(axis, group, initial[axis.path])
        for axis in group.incoming:
            value = replacement.drawn[axis.path]
            if value.shape[axis.axis] > 1:
                column = replacement.column[group.name]
                value = jnp.take(value, column, axis=axis.axis)
            assign(axis, group, value)
    return new.unflatten()


def release_weights(groups, released: Mapping, magnitude, params, weights, updates):
    """Changes ``updates`` so that the chosen units' weights are small, of one size.

    They keep the signs that they have after the inner optimiser's step. Where the size
    would be lost beside the old weight in rounding, it is a little larger.

    Args:
      groups: the ``UnitGroup`` records.
      released: per group name, which units are released, bool ``[size]``.
      magnitude: of the released weights.
      params: parameters before the step.
      weights: the parameters by path, after the inner optimiser's step.
      updates: the inner optimiser's updates.

    Returns:
      The updates.
    """
    old, new = paths.by_path(params).leaves, paths.by_path(updates)
    for group in groups:
        for axis in (*group.incoming, *group.outgoing):
            param = old[axis.path]
            mask = axis.spread(
                released[group.name], param.shape, jax.typeof(param).sharding
            )
            wide = paths.at_least_float32(param)  # as which the change is formed
            size = jnp.maximum(magnitude, 2 * jnp.finfo(wide.dtype).eps * abs(wide))
            change = difference(jnp.sign(weights[axis.path]) * size, param)
            new.leaves[axis.path] = jnp.where(mask, change, new.leaves[axis.path])
    return new.unflatten()


def difference(value, param: jax.Array) -> jax.Array:
    """The update that makes ``param`` the value, exactly but for its own rounding.

    In half precision the difference itself would be rounded, and a re-drawn weight not
    be what was drawn; so it is formed, and returned, in float32.
    """
    return value - param.astype(jnp.promote_types(param.dtype, jnp.float32))


def transfer_means(groups, replaced: Mapping, means: Mapping, weights, updates):
    """Lets the biases of the next layers absorb the mean output of replaced units.

    Args:
      groups: the ``UnitGroup`` records.
      replaced: per group name, which units are replaced, bool ``[size]``.
      means: per key of an activation, its mean, ``[*positions, size]``.
      weights: the parameters by path, after the inner optimiser's step.
      updates: the updates.

    Returns:
      The updates, with every bias moved by the sum of weight times mean activation.
    """
    new = paths.by_path(updates)
    for group in groups:
        for axis in group.outgoing:
            mean = means[axis.feature or group.name]
            gone = utilities.along(replaced[group.name], mean)
            lost = jnp.where(gone, mean, 0)
            weight, bias = weights[axis.path], new.leaves[axis.bias]
            terms = weight * axis.spread(lost, weight.shape)
            others = set(range(weight.ndim)) - {axis.block_axis % weight.ndim}
            total = jnp.sum(terms, axis=tuple(others) if bias.size > 1 else None)
            new.leaves[axis.bias] = bias + total.reshape(bias.shape).astype(bias.dtype)
    return new.unflatten()


def reset_state(inner, state, groups, replaced: Mapping, params):
    """Gives the inner optimiser's state of replaced weights and units its first value.

    Called before the next step instead of after the replacement, the reset is fused
    into the inner optimiser's own pass over its state.

    State with a parameter's structure but another shape than the parameter (Adafactor's
    factored moments) belongs to no single weight and is left as it is.

    Args:
      inner: the inner optimiser.
      state: its state.
      groups: the ``UnitGroup`` records.
      replaced: per group name, which units were replaced, bool ``[size]``.
      params: the parameters after the replacement.

    Returns:
      The state, with the value of ``inner.init(params)`` at these weights and units.
    """
    found = paths.by_path(params)
    masks = dict.fromkeys(found.leaves, False)
    for group in groups:
        for axis in group.incoming + group.biases + group.scales + group.outgoing:
            param = found.leaves[axis.path]
            lies = jax.typeof(param).sharding
            mask = axis.spread(replaced[group.name], param.shape, lies)
            masks[axis.path] = masks[axis.path] | mask
    absent = lambda value: isinstance(value, optax.MaskedNode)
    shaped = lambda value, param: jnp.shape(value) == param.shape
    masks = optax.tree.map_params(
        inner,
        lambda value, param, mask: (
            value if absent(value) else mask if shaped(value, param) else False
        ),
        state,
        params,
        jax.tree.unflatten(found.treedef, list(masks.values())),
        transform_non_params=lambda value: False,
        is_leaf=absent,
    )
    fresh = inner.init(params)
    again = lambda mask, fresh, value: (
        value if mask is False else jnp.where(mask, fresh, value)
    )
    state = jax.tree.map(again, masks, fresh, state)
    return jax.tree.map(
        lambda fresh, value: _reset_units(fresh, value, replaced),
        fresh,
        state,
        is_leaf=lambda x: isinstance(x, PerUnit),
    )


def _reset_units(fresh: Any, value: Any, replaced: Mapping):
    if not isinstance(value, PerUnit):
        return value
    start_again = lambda name, x: jnp.where(replaced[name], fresh.values[name], x)
    return PerUnit({name: start_again(name, x) for name, x in value.values.items()})
