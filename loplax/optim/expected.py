"""Checks of what is handed to a transformation, before anything is computed."""

from collections.abc import Callable, Iterable, Mapping
from numbers import Number

import jax
import jax.numpy as jnp
import optax

from loplax import checks, sharding, spelling
from loplax.units import paths
from loplax.units.groups import UnitGroup


def optimizer(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """The optimiser inside a wrapper, which takes the further arguments of ``update``.

    Raises:
      ValueError: if it is none; in ``init``, as `arrays`.
    """
    parts = [getattr(inner, part, None) for part in ("init", "update")]
    if not all(map(callable, parts)):
        what = f"the function {getattr(inner, '__name__', inner)!r}; call it"
        raise ValueError(
            "What is wrapped must be a transformation such as optax.adam(1e-3), got "
            f"{what if callable(inner) else type(inner).__name__}."
        )
    inner = optax.with_extra_args_support(inner)

    def init(params):
        arrays(params)
        return inner.init(params)

    return optax.GradientTransformationExtraArgs(init, inner.update)


def arrays(params) -> None:
    """Raises ``ValueError`` if a leaf of the parameters is neither array nor number."""
    for keys, leaf in jax.tree.leaves_with_path(params):
        if not (hasattr(leaf, "dtype") or isinstance(leaf, Number)):
            raise ValueError(
                f"params: {paths.name(keys)!r} is no array, but {type(leaf).__name__}. "
                "Of an Equinox module pass eqx.filter(model, eqx.is_inexact_array)."
            )


def period(value) -> Callable[[jax.Array], jax.Array]:
    """Checks a number of steps; returns ``count -> bool``, whether it has passed."""
    checks.whole("period", value, 1)
    period = jnp.asarray(value, jnp.int32)
    return lambda count: count % period == 0


def required_params(params) -> None:
    """Raises ``ValueError`` if ``update`` was called without the parameters."""
    if params is None:
        raise ValueError("update(grads, state, params) needs params, got None.")


def alike(name: str, tree, like: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Those leaves of a tree that have the paths and shapes of others.

    Raises:
      ValueError: if there is no such leaf, or it has another shape.
    """
    named = paths.by_path(tree).leaves
    for path, leaf in like.items():
        found = jnp.shape(named[path]) if path in named else "nothing"
        if found != leaf.shape:
            raise ValueError(
                f"{name} must have {path!r}, {leaf.shape}, got {found}; it has "
                f"{list(named)}."
            )
    return {path: named[path] for path in like}


def wide(name: str, path: str, leaf: jax.Array) -> None:
    """Raises ``ValueError`` for a parameter of half precision."""
    if jnp.finfo(leaf.dtype).bits < 32:
        raise ValueError(
            f"{name} need float32 or more, got {leaf.dtype} for {path!r}: half "
            "precision rounds away the small steps by which they grow sure. Round in "
            "the forward pass instead."
        )


def activations(
    units: Iterable[UnitGroup], features: Mapping[str, jax.Array] | None
) -> dict[str, jax.Array]:
    """Checks the features of all groups.

    Returns:
      Per key, float32 ``[batch, *positions, size]``.

    Raises:
      ValueError: if a group has no features, or their last axes are not the positions
        and the units that its outgoing weights read.
    """
    if features is None:
        raise ValueError(
            "update needs features=..., which units.tap(apply) returns. A flax "
            "TrainState passes them on if it is loplax.flax.TrainState."
        )
    if not isinstance(features, Mapping):
        raise ValueError(
            "features must be the dict that units.tap(apply) returns beside the "
            f"output, got {type(features).__name__}."
        )
    found = {}
    for group in units:
        for name, positions in group.features.items():
            if name not in features:
                hint = spelling.hint(name, features)
                raise ValueError(
                    f"features: nothing for layer {name!r}, only for "
                    f"{list(features)}{hint}. loplax.units.tap(apply) returns them "
                    "all; if apply returns more than the output, both find and tap "
                    "need has_aux=True."
                )
            value, last = features[name], (*positions, group.size)
            if jnp.shape(value)[-len(last) :] != last:
                shape = ", ".join(map(str, last))
                raise ValueError(
                    f"features[{name!r}] must have shape [..., {shape}], "
                    f"got {jnp.shape(value)}."
                )
            # Each device needs all units of its part of the batch.
            batched = int(value.ndim > len(last))
            value = sharding.whole(value, *range(batched, value.ndim))
            found[name] = value.reshape(-1, *last).astype(jnp.float32)
    return found


def groups(
    units: Iterable[UnitGroup],
    *,
    replaced: bool = True,
    bias_transfer: bool = False,
    released: bool = False,
) -> tuple[UnitGroup, ...]:
    """Returns the groups as a tuple, checked as far as possible without parameters.

    Raises:
      ValueError: if there are none, a name occurs twice, ``bias_transfer`` is wanted
        and some outgoing weight has no bias to take the mean or is no plain factor, or
        units are to be ``released`` whose weights enter by more than their sign.
    """
    left_out = getattr(units, "left_out", {})
    units = tuple(units) if isinstance(units, Iterable) else (units,)
    wrong = {
        type(group).__name__ for group in units if not isinstance(group, UnitGroup)
    }
    if wrong:
        raise ValueError(
            f"units must be what loplax.units.find returns, got {', '.join(wrong)}."
        )
    layers = [group.name for group in units]
    if not units:
        reasons = f"; left out: {left_out}" if left_out else ""
        raise ValueError(
            f"units: no hidden layer given; one of a single unit is none{reasons}."
        )
    if len(set(layers)) < len(layers):
        raise ValueError(f"units: layer names must differ, got {layers}.")
    for group in units:
        if replaced and not (group.incoming and group.outgoing):
            raise ValueError(f"units: {group.name!r} must be read and written to.")
        for axis in group.outgoing:
            if bias_transfer and axis.bias is None:
                raise ValueError(
                    f"bias_transfer: {axis.path!r}, which reads layer {group.name!r}, "
                    "adds no bias."
                )
            if bias_transfer and axis.through:
                raise ValueError(
                    f"bias_transfer: {axis.path!r} enters through a function, so it "
                    "does not tell what its layer loses; use plain weights."
                )
        for axis in (*group.incoming, *group.outgoing):
            if released and axis.through != "sign":
                raise ValueError(
                    f"release: {axis.path!r} of layer {group.name!r} enters by more "
                    "than its sign, so its size cannot change alone; all incoming and "
                    f"outgoing weights need through='sign', not {axis.through!r}."
                )
    return units
