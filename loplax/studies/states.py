"""States of runs between devices, the host and the learner that they belong to."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from loplax.studies import forms, runs


def to_host(
    program: runs.Program, state: Sequence[jax.Array], count: int
) -> dict[str, np.ndarray]:
    """The first ``count`` rows of every leaf of a state, by name, as copies."""
    return {
        name: np.array(jax.random.key_data(leaf) if forms.is_key(leaf) else leaf)[
            :count
        ]
        for name, leaf in zip(program.state, state, strict=True)
    }


def mismatch(
    state: Mapping[str, Any], leaves: Mapping[str, tuple[str, tuple[int, ...]]]
) -> str:
    """How leaves (type and shape) differ from those of a state; empty if not."""
    plain = jax.eval_shape(
        lambda state: jax.tree.map(
            lambda leaf: jax.random.key_data(leaf) if forms.is_key(leaf) else leaf,
            state,
        ),
        dict(state),
    )
    expected = {name: f"{x.dtype}{list(x.shape)}" for name, x in plain.items()}
    found = {name: f"{dtype}{list(shape)}" for name, (dtype, shape) in leaves.items()}
    return "; ".join(
        f"state{name} is {found.get(name)}, not {expected.get(name)}"
        for name in expected | found
        if expected.get(name) != found.get(name)
    )


def to_devices(
    program: runs.Program, leaves: Mapping[str, np.ndarray]
) -> list[jax.Array]:
    """The state that ``to_host`` took to the host, padded to the program's rows."""
    placed = []
    for name, shape in program.state.items():
        rows = np.arange(program.rows) % len(leaves[name])
        array = jax.device_put(leaves[name][rows], program.sharding)
        placed.append(_wrapped(array, shape))
    return placed


def _wrapped(array: jax.Array, leaf: Any) -> jax.Array:
    """The array, or the keys of which it is the data, if the leaf is a key."""
    if not forms.is_key(leaf):
        return array
    kind = jax.random.key_impl(jnp.empty([0], leaf.dtype))
    return jax.random.wrap_key_data(array, impl=kind)


def restored(state: Any, leaves: Mapping[str, np.ndarray]) -> Any:
    """The states of some runs, as the learner has them, from what is on disk.

    Args:
      state: shapes of the state of one run, of ``jax.eval_shape(learner.init, ...)``.
      leaves: its leaves by name, each ``[runs, ...]``, see `checkpoints.load`.

    Returns:
      The state with a leading axis of runs.

    Raises:
      ValueError: if the leaves are not those of such a state.
    """
    forms_of = {name: (str(x.dtype), x.shape[1:]) for name, x in leaves.items()}
    reason = mismatch(forms.named(state), forms_of)
    if reason:
        raise ValueError(f"a state does not go with the learner: {reason}")
    number = len(next(iter(leaves.values())))

    def one(path, leaf):
        if not leaf.size:
            return jnp.empty((number, *leaf.shape), leaf.dtype)
        return _wrapped(jnp.asarray(leaves[jax.tree_util.keystr(path)]), leaf)

    return jax.tree.map_with_path(one, state)
