"""How arrays lie on a mesh whose axes are Explicit, where their types say it.

On one device, and on meshes with Auto axes, these functions return what they are given.
"""

import jax
from jax.sharding import NamedSharding, PartitionSpec


def whole(x: jax.Array, *axes: int) -> jax.Array:
    """An array of which every device holds all entries along some axes.

    Args:
      x: the array.
      *axes: the axes; all if none is given.

    Returns:
      The array, sharded as before along its other axes.
    """
    sharding = jax.typeof(x).sharding
    wanted = {axis % x.ndim for axis in axes or range(x.ndim)}
    spec = PartitionSpec(
        *(None if i in wanted else names for i, names in enumerate(sharding.spec))
    )
    return x if spec == sharding.spec else laid(x, sharding.update(spec=spec))


def is_split(x: jax.Array) -> bool:
    """Whether some axis of an array, or of its type, is sharded."""
    kind = x if isinstance(x, jax.core.ShapedArray) else jax.typeof(x)
    return any(kind.sharding.spec)


def laid(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """An array laid out as a type says, ``jax.typeof(other).sharding``."""
    if sharding.mesh.empty or jax.typeof(x).sharding == sharding:
        return x
    return jax.sharding.reshard(x, sharding)
