"""What is tested apart while sessions come in turn."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from loplax.streams import base

# What is tested apart, by name: the subsets, and which they are, given an example's
# session, that of the run, and the last one that has something to test.
SUBSETS = {
    "old_new": {
        "base": lambda own, now, last: own == 0,
        # Random parts of the data, without a base, are tested on the same.
        "old": lambda own, now, last: jnp.where(
            last > 0, own < jnp.minimum(now, last), now > 0
        ),
        "new": lambda own, now, last: own == jnp.minimum(now, last),
        "all": lambda own, now, last: own <= now,
    },
    "recent": {
        "old": lambda own, now, last: own == now - 1,
        "new": lambda own, now, last: own == now,
        "all": lambda own, now, last: (own == now - 1) | (own == now),
    },
    "last_five": {
        "before": lambda own, now, last: own == now - 1,
        "old": lambda own, now, last: (own > now - 5) & (own < now),
        "new": lambda own, now, last: own == now,
        "all": lambda own, now, last: (own > now - 5) & (own <= now),
    },
}


def held_out(
    test: tuple[jax.Array, jax.Array], sessions: int, subsets: str, size: int
) -> base.HeldOut:
    """All tests, the subsets of which change as sessions begin.

    Args:
      test: inputs ``[tests, ...]`` and labels ``[tests]``.
      sessions: number of sessions.
      subsets: a name of `SUBSETS`; else each session is one, from its beginning on.
      size: examples tested at a time.

    Returns:
      The tests, given the state of `loplax.streams.sessions`.
    """
    tests = test[1].size
    sessions_apart = {str(i): functools.partial(_seen, i) for i in range(sessions)}
    kinds = SUBSETS.get(subsets, sessions_apart)

    def some(state, i):
        places = i * size + jnp.arange(size)
        there, places = places < tests, jnp.minimum(places, tests - 1)
        own, last = state.tested_in[places], state.tested_in[-1]
        inside = [kind(own, state.task, last) for kind in kinds.values()]
        counted = there[:, None] & jnp.stack(inside, axis=1)
        return *_at(test, state, places), counted.astype(jnp.float32)

    return base.HeldOut(some, -(-tests // size), tuple(kinds))


def probe(test: tuple[jax.Array, jax.Array], number: int) -> Callable[[Any], Any]:
    """The examples of the diagnostics: ``state -> (inputs, labels)`` of the session.

    Args:
      test: inputs ``[tests, ...]`` and labels ``[tests]``.
      number: how many; where the session has fewer tests, they come again.
    """

    def batch(state):
        now = jnp.minimum(state.task, state.tested_in[-1])
        first = jnp.searchsorted(state.tested_in, now)
        size = jnp.searchsorted(state.tested_in, now, side="right") - first
        return _at(test, state, first + jnp.arange(number) % jnp.maximum(size, 1))

    return batch


def _seen(session: int, own, now, last) -> jax.Array:
    """Which examples are of one session, once it has begun."""
    return (own == session) & (own <= now)


def _at(test, state, places) -> tuple[jax.Array, jax.Array]:
    index = state.tested[places]
    labels = jnp.asarray(test[1])[index].astype(jnp.int32)
    return base.scaled(test[0], index), labels
