"""Which examples belong to which session."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Split(NamedTuple):
    """Divides the examples of a data set among sessions, for every run anew.

    Attributes:
      sessions: their number.
      of: ``key -> (train, test)``, the number of each example's session, int32.
      smallest: no session has fewer training examples; at least 1.
      largest: nor more than this.
    """

    sessions: int
    of: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    smallest: int
    largest: int


def given(train: np.ndarray, test: np.ndarray) -> Split:
    """The same sessions in every run.

    Args:
      train: the session of every training example, integers from 0.
      test: the same of those to test on.

    Returns:
      The split.

    Raises:
      ValueError: for numbers below 0, or a session without training examples.

    Example:
      >>> given(np.array([0, 1, 1]), np.array([0, 1])).largest
      2
    """
    train, test = np.asarray(train, np.int32), np.asarray(test, np.int32)
    if min(train.min(), test.min()) < 0 or test.max() > train.max():
        raise ValueError(
            "sessions must be numbered from 0, and have training examples; got "
            f"{train.min()} to {train.max()}, and {test.min()} to {test.max()} to test."
        )
    sizes = np.bincount(train)
    if not sizes.all():
        raise ValueError(f"session {np.argmin(sizes)} has no training examples.")
    both = jnp.asarray(train), jnp.asarray(test)
    return Split(sizes.size, lambda key: both, int(sizes.min()), int(sizes.max()))


def class_incremental(
    train: np.ndarray, test: np.ndarray, sizes: Sequence[int], *, fixed: int = 0
) -> Split:
    """New classes in every session, in an order that every run draws.

    Args:
      train: label of every training example, integers from 0.
      test: the same of those to test on.
      sizes: number of classes of each session; they sum to the number of classes.
      fixed: the first so many classes keep their place: those of a base, say.

    Returns:
      The split.

    Raises:
      ValueError: if the sizes do not sum to the classes, or a class has no training
        examples.

    Example:
      >>> split = class_incremental(np.arange(6), np.arange(6), (2, 2, 2), fixed=2)
      >>> sessions, _ = split.of(jax.random.key(0))
      >>> sessions[:2].tolist(), sorted(sessions.tolist())
      ([0, 0], [0, 0, 1, 1, 2, 2])
    """
    counts = np.bincount(train)
    if min(sizes, default=0) < 1 or sum(sizes) != counts.size:
        raise ValueError(f"sizes {tuple(sizes)} must sum to {counts.size} classes.")
    if not counts.all():
        raise ValueError(f"class {np.argmin(counts)} has no training examples.")
    if not 0 <= fixed <= counts.size:
        raise ValueError(f"fixed must be 0 to {counts.size} classes, got {fixed}.")
    if np.size(test) and not 0 <= np.min(test) <= np.max(test) < counts.size:
        raise ValueError(
            f"labels of tests must be 0 to {counts.size - 1}, as those of training, "
            f"got {np.min(test)} to {np.max(test)}."
        )
    session = jnp.repeat(jnp.arange(len(sizes)), np.array(sizes))
    of_train, of_test = jnp.asarray(train), jnp.asarray(test)

    def of(key):
        places = jax.random.permutation(key, np.arange(fixed, counts.size))
        place = jnp.concatenate([jnp.arange(fixed), places])
        of_class = session[place].astype(jnp.int32)
        return of_class[of_train], of_class[of_test]

    ordered = np.sort(counts)
    smallest = min(int(ordered[:size].sum()) for size in sizes)
    largest = max(int(ordered[counts.size - size :].sum()) for size in sizes)
    return Split(len(sizes), of, smallest, largest)


def data_incremental(
    train: np.ndarray, test: np.ndarray, sessions: int, *, base: int = 0
) -> Split:
    """The examples in random parts: every class may come in every session.

    Args:
      train: label of every training example, integers from 0.
      test: the same of those to test on.
      sessions: number of parts.
      base: the first so many classes are a session of their own, before the others.

    Returns:
      The split. What is tested belongs to the base, or to the first session after it.

    Raises:
      ValueError: if there are fewer examples than sessions.

    Example:
      >>> split = data_incremental(np.zeros(6, int), np.zeros(2, int), 3)
      >>> sessions, _ = split.of(jax.random.key(0))
      >>> sorted(sessions.tolist())
      [0, 0, 1, 1, 2, 2]
    """
    train, test = np.asarray(train), np.asarray(test)
    first = int(base > 0)
    new = np.flatnonzero(train >= base)
    if not 1 <= sessions <= new.size:
        raise ValueError(f"sessions must be 1 to {new.size} examples, got {sessions}.")
    parts = np.arange(new.size) * sessions // new.size
    sizes = [*np.bincount(parts), *[train.size - new.size] * first]
    if min(sizes) < 1:
        raise ValueError(f"no training example is of the first {base} classes.")
    tested = jnp.asarray(np.where(test >= base, first, 0), jnp.int32)

    def of(key):
        found = jnp.zeros(train.size, jnp.int32)
        mixed = jax.random.permutation(key, parts + first)
        return found.at[new].set(mixed), tested

    return Split(sessions + first, of, int(min(sizes)), int(max(sizes)))
