"""The forms of states and metrics that a learner must keep."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def is_key(leaf: Any) -> bool:
    """Whether an array is one of typed random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def named(state: Any) -> dict[str, Any]:
    """The leaves of a state that have elements, by name."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if leaf.size}


def check_state(name: str, before: Any, after: Any) -> None:
    """Refuses a learner whose state changes form."""
    old, new = (
        {
            jax.tree_util.keystr(path): (jnp.result_type(leaf), jnp.shape(leaf))
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (before, after)
    )
    for leaf in [leaf for leaf in old | new if old.get(leaf) != new.get(leaf)]:
        raise ValueError(
            f"the segment of method {name!r} turns state{leaf} from {old.get(leaf)} "
            f"into {new.get(leaf)}; it must keep type and shape"
        )
    # What jax declares here is a name in a module that is compiled, without types.
    if jax.tree.structure(before) != jax.tree.structure(after):  # type: ignore[operator]
        raise ValueError(f"the segment of method {name!r} changes how its state nests")


def check_metrics(
    name: str, metrics: Mapping[str, Any], subsets: Sequence[str]
) -> None:
    """Refuses metrics that are not real numbers, [bins] or [bins, subsets]."""
    shapes = {metric: jnp.shape(values) for metric, values in metrics.items()}
    bins = {shape[:1] for shape in shapes.values()}
    allowed = {(), (len(subsets),)} if subsets else {()}
    if (
        len(bins) != 1
        or bins & {(), (0,)}
        or {s[1:] for s in shapes.values()} - allowed
    ):
        raise ValueError(
            f"metrics of method {name!r} must all have one shape [bins], or [bins, "
            f"{len(subsets)}] for its {len(subsets)} subsets, not {shapes}"
        )
    for metric, values in metrics.items():
        if jnp.issubdtype(values.dtype, jnp.complexfloating) or is_key(values):
            raise ValueError(
                f"metric {metric!r} of method {name!r} has type {values.dtype}; it "
                "must be a real number"
            )
