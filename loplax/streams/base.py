"""What every stream of examples is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class HeldOut(NamedTuple):
    """Examples that are not learned from, in batches.

    Attributes:
      batch: ``(state, i) -> (inputs, targets, weights)``, batch number ``i`` (traced);
        ``weights`` are 0 for examples that do not belong to the task: ``[examples]``,
        or ``[examples, subsets]`` where there are subsets.
      batches: their number.
      subsets: names of what is measured apart, such as the tasks, or base, old, new and
        all. An example may belong to several; a subset may have none yet.
    """

    batch: Callable[[Any, jax.Array], tuple[Any, Any, jax.Array]]
    batches: int
    subsets: tuple[str, ...] = ()


class Stream(NamedTuple):
    """A problem as pure functions; all of them can be jitted and vmapped.

    Examples are drawn ``chunk`` at a time, as small items (an index, say); an item
    becomes an input and a target only in the step that learns from it. So nothing that
    changes slowly is computed at every step, and no chunk of inputs is ever stored. An
    item may stand for one example or for a minibatch.

    Attributes:
      init: ``key -> state``.
      draw: ``state -> (state, items)``, the next ``chunk`` items on a leading axis; the
        task does not change within a chunk.
      example: ``(state, item) -> (inputs, targets)``, with the state that ``draw``
        returned.
      probe: ``state -> (inputs, targets)``, a batch of the current task, for
        diagnostics.
      chunk: number of items per ``draw``.
      task: ``state -> int``, number of the task of the chunk just drawn, from 0; -1
        before the first draw.
      test: what the current task is tested on, if there is such a thing.
      validation: what the stopping time is chosen on, if there is such a thing.
      epoch_ends: ``state -> bool``, whether an epoch ends with the chunk just drawn,
        where there are epochs.
      task_ends: ``state -> bool``, the same for a task.
      weights: ``(state, item) -> [examples]``, how much each example of a minibatch
        counts, of the sum 1; all the same if there is none.
      progress: ``(state, item) -> float``, the part of the task's items that came
        before this one, from 0 to less than 1, where a task has a length.
      session: the examples that this task learns from, where it has a set of them.
      old_classes: ``state -> bool [classes]``, those that were there before this task,
        where there are classes.
      rehearse: ``settings -> Stream``, the same with what is rehearsed, where that can
        be chosen; see `sessions`.
    """

    init: Callable[[jax.Array], Any]
    draw: Callable[[Any], tuple[Any, Any]]
    example: Callable[[Any, Any], tuple[Any, Any]]
    probe: Callable[[Any], tuple[Any, Any]]
    chunk: int
    task: Callable[[Any], jax.Array]
    test: HeldOut | None = None
    validation: HeldOut | None = None
    epoch_ends: Callable[[Any], jax.Array] | None = None
    task_ends: Callable[[Any], jax.Array] | None = None
    weights: Callable[[Any, Any], jax.Array] | None = None
    progress: Callable[[Any, Any], jax.Array] | None = None
    session: HeldOut | None = None
    old_classes: Callable[[Any], jax.Array] | None = None
    rehearse: Callable[[Any], "Stream"] | None = None


def scaled(inputs: jax.Array, index: jax.Array) -> jax.Array:
    """The inputs of some examples: bytes as fractions, numbers as they are."""
    chosen = jnp.asarray(inputs)[index]
    return chosen / 255.0 if inputs.dtype == jnp.uint8 else chosen
