"""Rehearsal: a buffer of examples of before, as indices, and how it is filled."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from loplax import checks

FILLS = ("after", "online", "before")
WEIGHTINGS = ("examples", "sessions", "fixed")
EMPTY = -1


class Rehearsal(NamedTuple):
    """What is kept of earlier sessions, and shown again.

    Attributes:
      capacity: most examples in the buffer; 0 for as many as there are.
      policy: which stay when it is full: ``"reservoir"``, ``"balanced"``, ``"greedy"``
        or ``"ring"``.
      fill: when examples are offered to it: ``"after"`` their session, all in random
        order; ``"online"``, as they are learned for the first time; or ``"before"``
        their session, all.
      new: examples of the session in a minibatch; None for the stream's ``batch``.
      memory: examples of the buffer in a minibatch, drawn with replacement, once it has
        any; until then they count for nothing.
      per_session: whether ``memory`` is for each session before; the first counts as
        before itself if the buffer is filled before.
      later: ``(new, memory, base)`` of a minibatch from the third session on, if it is
        then composed otherwise: of the session, the sessions between, and the first.
      weighting: how much the session's examples count against those of the buffer:
        ``"examples"``, all the same; ``"sessions"``, as one of the sessions so far; or
        ``"fixed"``, half.
      new_weight: what multiplies their weight, as 1 minus it does that of the others
        before the sum is made 1; 0 to 1, may be traced. At 0.5 it changes nothing, and
        with ``"fixed"`` it is their share.
    """

    capacity: int = 1000
    policy: str = "reservoir"
    fill: str = "after"
    new: int | None = None
    memory: int = 128
    per_session: bool = False
    later: tuple[int, int, int] | tuple[()] = ()
    weighting: str = "examples"
    new_weight: float | jax.Array = 0.5


class Buffer(NamedTuple):
    """Examples that are kept.

    Attributes:
      index: the examples' numbers, int32 ``[capacity]``; -1 where there is none.
      label: their labels, int32 ``[capacity]``.
      session: their sessions, int32 ``[capacity]``.
      arrival: how many had been offered before them, int32 ``[capacity]``.
      offered: examples offered so far, int32 scalar.
    """

    index: jax.Array
    label: jax.Array
    session: jax.Array
    arrival: jax.Array
    offered: jax.Array


def check(rehearsal: Rehearsal) -> None:
    """Raises ``ValueError`` for settings that mean nothing."""
    checks.one_of("policy", rehearsal.policy, tuple(POLICIES))
    checks.one_of("fill", rehearsal.fill, FILLS)
    checks.one_of("weighting", rehearsal.weighting, WEIGHTINGS)
    checks.in_range("new_weight", rehearsal.new_weight, 0, 1)
    for name in ("capacity", "new", "memory"):
        checks.whole(name, getattr(rehearsal, name), 0)
    if rehearsal.new + rehearsal.memory < 1:
        raise ValueError("new and memory must not both be 0.")
    if rehearsal.new == 0 and rehearsal.fill != "before":
        raise ValueError(
            "with new 0, fill must be 'before': the buffer must be filled."
        )
    if not rehearsal.later:
        return
    if (
        len(rehearsal.later) != 3
        or min(rehearsal.later) < 0
        or not any(rehearsal.later)
    ):
        raise ValueError(
            "later must be (new, memory, base), at least 0 and not all 0, got "
            f"{rehearsal.later}."
        )
    if rehearsal.later[0] == 0 and rehearsal.fill != "before":
        raise ValueError(
            f"with later {rehearsal.later}, which has no new examples, fill must be "
            "'before'."
        )


def empty(capacity: int) -> Buffer:
    """A buffer without examples."""
    none = jnp.full(capacity, EMPTY, jnp.int32)
    return Buffer(none, none, none, none, jnp.int32(0))


def offer(
    policy: str,
    classes: int,
    buffer: Buffer,
    index: jax.Array,
    label: jax.Array,
    valid: jax.Array,
    session: jax.Array,
    key: jax.Array,
) -> tuple[Buffer, jax.Array]:
    """Offers examples to a buffer, one after the other.

    Args:
      policy: one of `POLICIES`.
      classes: number of classes.
      buffer: the buffer.
      index: numbers of the examples, int32 ``[n]``.
      label: their labels, int32 ``[n]``.
      valid: which of them are offered at all, bool ``[n]``.
      session: number of their session, int32 scalar.
      key: typed key.

    Returns:
      The buffer, and where each example is in it after all have been offered, int32
      ``[n]``; the capacity where it is not.
    """
    slots = POLICIES[policy](classes, buffer, label, valid, key)
    capacity = buffer.index.size
    # Of those that fell into one slot, the last stays.
    number = jnp.arange(index.size, dtype=jnp.int32)
    last = jnp.full(capacity, EMPTY, jnp.int32).at[slots].max(number, mode="drop")
    stays = jnp.where(last[jnp.minimum(slots, capacity - 1)] == number, slots, capacity)
    put = lambda old, new: old.at[stays].set(new.astype(jnp.int32), mode="drop")
    arrival = buffer.offered + jnp.cumsum(valid) - 1
    return Buffer(
        put(buffer.index, index),
        put(buffer.label, label),
        put(buffer.session, jnp.broadcast_to(session, index.shape)),
        put(buffer.arrival, arrival),
        buffer.offered + jnp.sum(valid, dtype=jnp.int32),
    ), stays


def _reservoir(classes: int, buffer: Buffer, label, valid, key) -> jax.Array:
    """Algorithm R of Vitter 1985: each example offered is kept with one probability.

    Number ``n`` takes place ``n`` while there are any, and then a random one of the
    first ``n``, if that exists.
    """
    del classes, label
    capacity = buffer.index.size
    number = buffer.offered + jnp.cumsum(valid) - 1
    place = jax.random.randint(key, valid.shape, 0, number + 1)
    place = jnp.where(number < capacity, number, place)
    return jnp.where(valid & (place < capacity), place, capacity)


def _one_by_one(choose: Callable) -> Callable:
    """A policy that looks at what is in the buffer before it puts an example there.

    ``choose(classes, labels, arrivals, label, key) -> slot``, for a buffer with such
    labels and arrivals, -1 where there is no example.
    """

    def slots(classes: int, buffer: Buffer, label, valid, key) -> jax.Array:
        def one(carry, each):
            labels, arrivals = carry
            label, valid, arrival, key = each
            slot = choose(classes, labels, arrivals, label, key)
            slot = jnp.where(valid, slot, labels.size)
            labels = labels.at[slot].set(label, mode="drop")
            return (labels, arrivals.at[slot].set(arrival, mode="drop")), slot

        label, keys = label.astype(jnp.int32), jax.random.split(key, valid.size)
        arrival = (buffer.offered + jnp.cumsum(valid) - 1).astype(jnp.int32)
        start = buffer.label, buffer.arrival
        return jax.lax.scan(one, start, (label, valid, arrival, keys))[1]

    return slots


def _balanced(classes: int, labels, arrivals, label, key) -> jax.Array:
    """Takes every example; when full, drops a random one of the largest class.

    That may be the new one. So do Harun & Kanan 2024.
    """
    del arrivals
    counts = _counts(classes, labels)
    largest = jnp.argmax(counts.at[label].add(1))
    of_largest = counts[largest] + (largest == label)
    drop = jax.random.randint(key, (), 0, of_largest)
    return jnp.where(_is_full(labels), _place(labels == largest, drop), _free(labels))


def _greedy(classes: int, labels, arrivals, label, key) -> jax.Array:
    """Takes an example while its class has less than its share of the buffer.

    When full, it takes the place of a random one of the largest class: the greedy
    sampler of GDumb, Prabhu et al. 2020, algorithm 1.
    """
    del arrivals
    counts = _counts(classes, labels)
    share = labels.size // jnp.maximum(jnp.sum(counts > 0), 1)
    wanted = (counts[label] == 0) | (counts[label] < share)
    largest = jnp.argmax(counts)
    drop = jax.random.randint(key, (), 0, counts[largest])
    taken = jnp.where(_is_full(labels), _place(labels == largest, drop), _free(labels))
    return jnp.where(wanted, taken, labels.size)


def _ring(classes: int, labels, arrivals, label, key) -> jax.Array:
    """The newest of each class, all of which have equally many places.

    Lopez-Paz & Ranzato 2017; Chaudhry et al. 2019.
    """
    del key
    each = labels.size // classes
    own = jnp.arange(labels.size) // max(each, 1) == label
    oldest = jnp.argmin(jnp.where(own, arrivals, jnp.iinfo(jnp.int32).max))
    return oldest if each else jnp.int32(labels.size)


def _counts(classes: int, labels: jax.Array) -> jax.Array:
    """Examples of each class in the buffer, ``[classes]``."""
    labels = jnp.where(labels == EMPTY, classes, labels)
    return jnp.zeros(classes, jnp.int32).at[labels].add(1, mode="drop")


def _is_full(labels: jax.Array) -> jax.Array:
    return jnp.all(labels != EMPTY)


def _free(labels: jax.Array) -> jax.Array:
    """The first place without an example."""
    return jnp.argmax(labels == EMPTY).astype(jnp.int32)


def _place(flags: jax.Array, number: jax.Array) -> jax.Array:
    """Where the flag number ``number``, from 0, is; their size if there is none."""
    found = jnp.searchsorted(jnp.cumsum(flags), number + 1)
    return found.astype(jnp.int32)


POLICIES = {
    "reservoir": _reservoir,
    "balanced": _one_by_one(_balanced),
    "greedy": _one_by_one(_greedy),
    "ring": _one_by_one(_ring),
}


def pick(key: jax.Array, flags: jax.Array, number: int) -> jax.Array:
    """Draws places with a flag, with replacement.

    Args:
      key: typed key.
      flags: bool ``[places]``.
      number: how many to draw.

    Returns:
      int32 ``[number]``; the number of places where there is no flag.
    """
    most = jnp.maximum(jnp.sum(flags), 1)
    drawn = jax.random.randint(key, (number,), 0, most)
    return _place(flags, drawn)
