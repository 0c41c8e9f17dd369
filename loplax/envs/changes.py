"""What changes from task to task: values for the ``change`` of `Changing`.

Each function here returns a pure ``change(key, task, params) -> params``. The first
task, number 0, has the parameters as they are, except with `listed`. Fields are those
of the environment's parameters: ``gravity`` and ``length`` of CartPole, ``friction`` of
`Brax`. CartPole's ``total_mass`` and ``polemass_length`` follow from its other fields.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.classic_control import cartpole

from loplax.envs import checks

Change = Callable[[jax.Array, jax.Array, Any], Any]

_DERIVED = ("total_mass", "polemass_length")


def scaled(**ranges: tuple[float, float]) -> Change:
    r"""Multiplies fields by a factor each, drawn log-uniformly for every task.

    .. math::
      \log c \sim U(\log a, \log b)

    Args:
      **ranges: per field, the smallest factor :math:`a > 0` and the largest :math:`b`.
        May be traced.

    Returns:
      The change.

    Raises:
      ValueError: for a range out of order; by `Changing`, for an unknown field.

    Example:
      >>> import jax, gymnax
      >>> _, params = gymnax.make("CartPole-v1")
      >>> new = scaled(length=(2.0, 2.0))(jax.random.key(0), 1, params)
      >>> round(float(new.length), 3), round(float(new.polemass_length), 3)
      (1.0, 0.1)
    """
    for field, bounds in ranges.items():
        low, high = bounds
        traced = any(isinstance(bound, jax.core.Tracer) for bound in bounds)
        if not traced and not 0 < low <= high < np.inf:
            raise ValueError(f"{field} must have 0 < low <= high, got {bounds}.")

    def change(key, task, params):
        _check(ranges, params)
        keys = dict(zip(ranges, jax.random.split(key, len(ranges)), strict=True))

        def scale(field):
            low, high = jnp.log(jnp.asarray(ranges[field]))
            factor = jnp.exp(jax.random.uniform(keys[field], minval=low, maxval=high))
            return getattr(params, field) * jnp.where(task == 0, 1.0, factor)

        return _replace(params, {field: scale(field) for field in ranges})

    return change


def listed(**values: Sequence[float]) -> Change:
    """Takes fields from lists, one value per task, over and over.

    Args:
      **values: per field, its values from task 0 on. May be traced.

    Returns:
      The change.

    Raises:
      ValueError: for an empty list; by `Changing`, for an unknown field.

    Example:
      >>> import jax, gymnax
      >>> _, params = gymnax.make("Pendulum-v1")
      >>> change = listed(g=(10.0, 5.0))
      >>> [float(change(jax.random.key(0), task, params).g) for task in range(3)]
      [10.0, 5.0, 10.0]
    """
    for field, items in values.items():
        if len(items) == 0:
            raise ValueError(f"{field} needs at least one value, got {items!r}.")

    def change(key, task, params):
        del key
        _check(values, params)
        take = lambda items: jnp.asarray(items)[task % len(items)]
        return _replace(params, {field: take(values[field]) for field in values})

    return change


def permuted() -> Change:
    """Draws a permutation of the observation for every task, for `Perturbed`.

    Returns:
      The change.

    Raises:
      ValueError: by `Changing`, if the environment is not `Perturbed`.

    Example:
      >>> import jax, gymnax
      >>> from loplax import envs
      >>> params = envs.Perturbed(gymnax.make("Acrobot-v1")[0]).default_params
      >>> sorted(permuted()(jax.random.key(0), 1, params).permutation.tolist())
      [0, 1, 2, 3, 4, 5]
    """

    def change(key, task, params):
        _check(("permutation",), params)
        own = params.permutation
        drawn = jax.random.permutation(key, own.size)
        return _replace(params, {"permutation": jnp.where(task == 0, own, drawn)})

    return change


def shifted(scale) -> Change:
    r"""Draws an offset of the observation for every task, for `Perturbed`.

    .. math::
      \Delta \sim N(0, \sigma^2)

    Args:
      scale: standard deviation :math:`\sigma`, at least 0, in units of the observation:
        one number, or one per element. May be traced.

    Returns:
      The change.

    Raises:
      ValueError: for a negative or non-finite scale; by `Changing`, if the environment
        is not `Perturbed`.

    Example:
      >>> import jax, gymnax
      >>> from loplax import envs
      >>> params = envs.Perturbed(gymnax.make("Acrobot-v1")[0]).default_params
      >>> shifted(0.5)(jax.random.key(0), 1, params).offset.shape
      (6,)
    """
    if not isinstance(scale, jax.core.Tracer):
        size = np.asarray(scale, dtype=float)
        if not np.all(np.isfinite(size) & (size >= 0)):
            raise ValueError(f"scale must be in [0, inf), got {scale}.")

    def change(key, task, params):
        _check(("offset",), params)
        own = params.offset
        drawn = jnp.asarray(scale) * jax.random.normal(key, own.shape)
        return _replace(params, {"offset": jnp.where(task == 0, own, drawn)})

    return change


def _check(fields: Iterable[str], params) -> None:
    known = [field.name for field in dataclasses.fields(params)]
    if isinstance(params, cartpole.EnvParams):
        known = [name for name in known if name not in _DERIVED]
    for field in fields:
        checks.one_of("field", field, known)


def _replace(params, values: Mapping[str, jax.Array]):
    """``params`` with new values, of the fields' own types."""
    own_type = lambda field: jnp.result_type(getattr(params, field))
    params = params.replace(
        **{field: value.astype(own_type(field)) for field, value in values.items()}
    )
    if isinstance(params, cartpole.EnvParams):
        params = params.replace(
            total_mass=params.masscart + params.masspole,
            polemass_length=params.masspole * params.length,
        )
    return params
