"""Arrays of numpy or of JAX, each in its own namespace, some values missing."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any
"""An array of numpy or of JAX, as what it is computed from; nested lists go in too."""


def floats(*values) -> tuple:
    """The namespace of some arrays, then they themselves, all in one precision.

    The namespace is JAX's if any of them is JAX's, else numpy's; the precision is the
    highest of those that are arrays of floats, and at least float32. A number of Python
    is compared with what an array of float32 holds as if it were one of them.
    """
    xp = jnp if any(isinstance(x, jax.Array) for x in values) else np
    kinds = [x.dtype for x in values if hasattr(x, "dtype")]
    kinds = [kind for kind in kinds if jnp.issubdtype(kind, jnp.floating)]
    kind = xp.result_type(np.float32, *(kinds or map(xp.asarray, values)))
    return xp, *(xp.asarray(x, kind) for x in values)


def series(accuracy, task) -> tuple:
    """The namespace, ``accuracy [..., evaluations, tasks]``, ``task`` as many times."""
    xp, accuracy, task = floats(accuracy, task)
    if accuracy.ndim < 2 or task.shape[-1:] != accuracy.shape[-2:-1]:
        raise ValueError(
            "accuracy must be [..., evaluations, tasks] and task [..., evaluations], "
            f"got {accuracy.shape} and {task.shape}."
        )
    return xp, accuracy, xp.broadcast_to(task, accuracy.shape[:-1])


def mean(xp: ModuleType, values, where=True):
    """Mean over the last axis of what counts: NaN of nothing, or if any of it is."""
    where = xp.broadcast_to(where, values.shape)
    number = xp.sum(where, axis=-1)
    total = xp.sum(values, axis=-1, where=where)
    return total / xp.where(number == 0, xp.nan, number)


def running_max(xp: ModuleType, values, axis: int):
    """The largest value up to each place; NaN from the first NaN on."""
    if xp is np:
        return np.maximum.accumulate(values, axis)
    return jax.lax.cummax(values, axis % values.ndim)


def present(xp: ModuleType, values, otherwise: float):
    """The values, and another in place of NaN."""
    return xp.where(xp.isnan(values), otherwise, values)


def existing(xp: ModuleType, values):
    """The values, NaN in place of infinite ones."""
    return xp.where(xp.isinf(values), xp.nan, values)
