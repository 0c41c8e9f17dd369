"""What every stream of examples is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Stream(NamedTuple):
    """A problem as pure functions; all of them can be jitted and vmapped.

    Examples are drawn ``chunk`` at a time, as small items (an index, say); an item
    becomes an input and a target only in the step that learns from it. So nothing that
    changes slowly is computed at every step, and no chunk of inputs is ever stored.

    Attributes:
      init: ``key -> state``.
      draw: ``state -> (state, items)``, the next ``chunk`` items on a leading axis; the
        task does not change within a chunk.
      example: ``(state, item) -> (input, target)``, with the state that ``draw``
        returned.
      probe: ``state -> (inputs, targets)``, a batch of the current task, for
        diagnostics.
      chunk: number of examples per ``draw``.
    """

    init: Callable[[jax.Array], Any]
    draw: Callable[[Any], tuple[Any, Any]]
    example: Callable[[Any, Any], tuple[jax.Array, jax.Array]]
    probe: Callable[[Any], tuple[jax.Array, jax.Array]]
    chunk: int
