"""Minibatches of new examples and of what is rehearsed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loplax.streams import rehearsal
from loplax.streams.rehearsal import Buffer, Rehearsal


class Minibatch(NamedTuple):
    """What a step learns from.

    Attributes:
      index: numbers of the examples, int32 ``[examples]``. Those that do not count
        repeat those that do, equally often as far as possible, so that what a network
        or a method makes of a whole minibatch knows no other examples.
      counts: whether they count, bool ``[examples]``.
      is_new: whether they are drawn from the session, and not the buffer, bool
        ``[examples]``.
      slot: where the example comes from in the buffer, or is put, int32
        ``[examples]``; the capacity where it is neither.
      number: of the minibatch in its session, from 0, int32 scalar.
      session: numbers of their sessions, int32 ``[examples]``.
    """

    index: jax.Array
    counts: jax.Array
    is_new: jax.Array
    slot: jax.Array
    number: jax.Array
    session: jax.Array


def composition(rules: Rehearsal, number: int) -> np.ndarray:
    """How many examples of each kind a minibatch has.

    Args:
      rules: what is rehearsed.
      number: of sessions.

    Returns:
      Those of the session, of the buffer, and of its base; int ``[sessions, 3]``.
    """
    sessions = np.arange(number)
    more = sessions + (rules.fill == "before") if rules.per_session else 1
    rows = np.stack(np.broadcast_arrays(rules.new, rules.memory * more, 0 * sessions))
    rows = rows.T.copy()
    if rules.later:
        rows[2:] = rules.later
    return rows


def compose(
    composed: np.ndarray,
    number: jax.Array,
    rules: Rehearsal,
    task: jax.Array,
    buffer: Buffer,
    new: jax.Array,
    within: jax.Array,
    key: jax.Array,
) -> Minibatch:
    """A minibatch of new examples and those of the buffer.

    Args:
      composed: as `composition` gives it.
      number: 0, 1 and so on for each example of a minibatch.
      rules: what is rehearsed.
      task: number of the session.
      buffer: the buffer.
      new: new examples, int32 ``[examples]``, of which the first ones are taken.
      within: number of the minibatch in its session.
      key: typed key.

    Returns:
      The minibatch.
    """
    key_memory, key_base = jax.random.split(key)
    until = jnp.cumsum(jnp.asarray(composed)[task])
    filled = buffer.index != rehearsal.EMPTY
    between = filled & (buffer.session > 0) & (buffer.session < task)
    apart = bool(rules.later) & (task > 1)
    flags = jnp.where(apart, between, filled)
    slot = rehearsal.pick(key_memory, flags, number.size)
    if rules.later:
        is_base = filled & (buffer.session == 0)
        of_base = rehearsal.pick(key_base, is_base, number.size)
        slot = jnp.where(number >= until[1], of_base, slot)
    is_new = number < until[0]
    there = slot < filled.size
    place = jnp.minimum(slot, filled.size - 1)
    counts = is_new | (there & (number < until[2]))
    index = jnp.where(is_new, new, jnp.maximum(buffer.index[place], 0))
    session = jnp.where(is_new, task, buffer.session[place])
    first = jnp.argsort(~counts, stable=True)  # those that count
    rank = jnp.cumsum(~counts) - 1
    again = first[rank % jnp.maximum(jnp.sum(counts), 1)]
    source = jnp.where(counts, number, again)
    return Minibatch(
        index=index[source],
        counts=counts,
        is_new=is_new,
        slot=jnp.where(is_new, filled.size, slot),
        number=within,
        session=session[source],
    )


def weights(rules: Rehearsal, task: jax.Array, item: Minibatch) -> jax.Array:
    """How much each example of a minibatch counts.

    Args:
      rules: what is rehearsed.
      task: number of the session.
      item: the minibatch.

    Returns:
      float32 ``[examples]``, of the sum 1.
    """
    parts = [item.counts & item.is_new, item.counts & ~item.is_new]
    sizes = [jnp.sum(part) for part in parts]
    parts_of_new: dict[str, jax.Array | float] = {
        "examples": sizes[0] / jnp.maximum(sum(sizes), 1),
        "sessions": 1 / (task + 1),
        "fixed": 0.5,
    }
    of_new = parts_of_new[rules.weighting]
    new, old = rules.new_weight * of_new, (1 - rules.new_weight) * (1 - of_new)
    share = new / jnp.maximum(new + old, jnp.finfo(jnp.float32).tiny)
    share = jnp.where(sizes[1] == 0, 1.0, jnp.where(sizes[0] == 0, 0.0, share))
    shares = jnp.stack([share, 1 - share]) / jnp.maximum(jnp.stack(sizes), 1)
    return parts[0] * shares[0] + parts[1] * shares[1]
