"""Drawing the weights of single units from the distribution of a whole layer."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from loplax.optim import paths

Initializer = Callable[..., jax.Array]
"""``(key, shape, dtype) -> array``."""

Initializers = Initializer | Mapping[str, Initializer] | None
"""One for all parameters, one per path, or `DEFAULT`."""

DEFAULT = jax.nn.initializers.he_uniform()


def one_unit(groups, params, initializer) -> dict[str, Callable]:
    """Makes drawing one unit's weights equal to drawing those of the whole layer.

    The scale of some initialisers (Glorot) depends on the number of units drawn. It is
    measured here, once, on constants: drawn with one key, the first entries of a small
    and of the full array differ by a constant factor, which corrects the small draw.

    Args:
      groups: the ``UnitGroup`` records.
      params: the parameters, or their shapes.
      initializer: ``(key, shape, dtype) -> array``, or one such function per path; the
        units run along the last axis of ``shape``.

    Returns:
      For every path of an incoming weight a function ``(key, dtype) -> weights`` of one
      unit, in the parameter's layout with its unit axis of length 1.

    Raises:
      ValueError: if a path has no initialiser, or one whose draws for one unit are not
        a multiple of its draws for all units.
    """
    leaves = paths.by_path(params).leaves
    return {
        axis.path: _for_one_unit(axis, initializer, leaves[axis.path].shape)
        for group in groups
        for axis in group.incoming
    }


def for_path(initializer, path: str) -> Callable:
    """The initialiser of one parameter: its own, that of all, or ``he_uniform()``.

    Args:
      initializer: ``(key, shape, dtype) -> array``, one per path, or ``None``.
      path: the parameter's path.

    Returns:
      The initialiser.

    Raises:
      ValueError: if there is one per path, but none for this.
    """
    if not isinstance(initializer, Mapping):
        return initializer or DEFAULT
    if path not in initializer:
        raise ValueError(f"initializer: nothing for {path!r}; give it one.")
    return initializer[path]


def _for_one_unit(axis, initializer, shape):
    initializer = for_path(initializer, axis.path)
    place = axis.axis % len(shape)
    fan_in = (*shape[:place], *shape[place + 1 :])
    scale = _scale(initializer, fan_in, shape[place])
    if scale is None:
        raise ValueError(
            f"initializer: its draws for one unit of {axis.path!r} (shape {shape}) are "
            "not a multiple of its draws for all of them, so single units cannot be "
            "drawn; give one whose weights are independent."
        )

    def draw(key, dtype):
        drawn = initializer(key, (*fan_in, 1), dtype)
        drawn = drawn if abs(scale - 1) < 1e-5 else scale * drawn
        return jnp.moveaxis(drawn, -1, place)

    return draw


@functools.lru_cache(maxsize=1024)
def _scale(initializer, fan_in: tuple[int, ...], size: int) -> float | None:
    """Scale of the whole draw over that of one unit, if they differ by a scale."""
    with jax.ensure_compile_time_eval(), jax.threefry_partitionable(True):
        key = functools.partial(jax.random.key, 0, impl="threefry2x32")
        one = initializer(key(), (*fan_in, 1), jnp.float32).ravel()
        whole = initializer(key(), (*fan_in, size), jnp.float32).ravel()[: one.size]
        one, whole = np.asarray(one, float), np.asarray(whole, float)
    if not one.any() and not whole.any():
        return 1.0
    scale = float(np.vdot(one, whole) / np.vdot(one, one))
    return scale if np.allclose(one * scale, whole, rtol=1e-3) else None
