"""The running statistics of batch norm, where units are replaced."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from loplax import units


def restart_statistics(
    groups: Iterable[units.UnitGroup], stats: Any, replaced: Mapping[str, jax.Array]
) -> Any:
    """Gives the running statistics of replaced units their initial values.

    A batch norm belongs to a group if its scale or shift is among the group's
    ``scales`` or ``biases``; or, having neither, if it is the ``norm`` inside the
    layer whose ``kernel`` is ``incoming``, as in `BinaryMLP`.

    Args:
      groups: the ``UnitGroup`` records.
      stats: the ``batch_stats`` of a Flax linen module.
      replaced: per group name, which units were replaced, bool ``[size]``, as in the
        state of ``optim.continual_backprop``.

    Returns:
      The statistics, of the replaced units with mean 0 and variance 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from loplax import units
      >>> scale = units.WeightAxis("norm/scale", 0)
      >>> group = units.UnitGroup("conv", 2, (), (), (scale,), ())
      >>> mean, var = jnp.array([3.0, 4.0]), jnp.array([5.0, 6.0])
      >>> replaced = {"conv": jnp.array([True, False])}
      >>> stats = {"norm": {"mean": mean, "var": var}}
      >>> restart_statistics([group], stats, replaced)["norm"]["mean"].tolist()
      [0.0, 4.0]
    """
    flat = traverse_util.flatten_dict(stats, sep="/")
    for group in groups:
        owned = [(_layer(axis), axis) for axis in (*group.scales, *group.biases)]
        for axis in group.incoming:
            layer = f"{_layer(axis)}/norm"
            if axis.path.endswith("kernel") and layer not in dict(owned):
                owned.append((layer, axis._replace(axis=0)))
        for layer, axis in owned:
            for path, initial in ((f"{layer}/mean", 0), (f"{layer}/var", 1)):
                if path in flat:
                    lies = jax.typeof(flat[path]).sharding
                    mask = axis.spread(replaced[group.name], flat[path].shape, lies)
                    flat[path] = jnp.where(mask, initial, flat[path])
    return traverse_util.unflatten_dict(flat, sep="/")


def _layer(axis: units.WeightAxis) -> str:
    return axis.path.rpartition("/")[0]
