r"""Accuracies over evaluations and tasks: how a learner's memory is written down.

The arrays, of numpy or of JAX, may have leading axes (runs, seeds), written ``...``:

- ``accuracy``: ``[..., evaluations, tasks]``, accuracy on the test examples of every
  task (or of any other subset) after some updates; NaN where a subset has no examples
  yet.
- ``task``: ``[..., evaluations]``, number of the task that is being learned, from 0. It
  never falls. NaN is no task. A *session* is the time in which it stays the same.
- ``start``: ``[..., sessions, tasks]``, accuracy when a session starts: after what
  happens at the boundary, such as new output weights, and before its first update.
- ``matrix``: ``[..., tasks, tasks]``, :math:`R_{kj}`, accuracy of task j when session k
  has ended, from `accuracy_matrix`.

Leading axes broadcast to those of ``accuracy``. A number that does not exist is NaN,
and never 0: a value that a formula needs and that is missing makes the result NaN,
unless the function says that it passes over NaN.
"""

from loplax.metrics import arrays
from loplax.metrics.arrays import Array

# Names of metrics end in it, where these are of the start of a session.
AT_START = "_start"


def accuracy_matrix(accuracy: Array, task: Array, sessions: int | None = None) -> Array:
    r"""Accuracy of every task when each session has ended: R.

    Args:
      accuracy: ``[..., evaluations, tasks]``.
      task: ``[..., evaluations]``.
      sessions: how many; as many as tasks if None.

    Returns:
      ``[..., sessions, tasks]``, from the last evaluation of each session; NaN if there
      is none.

    Raises:
      ValueError: if the numbers of evaluations differ.

    Example:
      >>> accuracy = [[0.5, 0.1], [0.9, 0.1], [0.6, 0.7], [0.7, 0.8]]
      >>> accuracy_matrix(accuracy, [0, 0, 1, 1]).tolist()
      [[0.9, 0.1], [0.7, 0.8]]

    References:
      Lopez-Paz & Ranzato, `Gradient episodic memory <https://arxiv.org/abs/1706.08840>`_,
      2017.
    """
    xp, accuracy, task = arrays.series(accuracy, task)
    here = _at(xp, task, accuracy.shape[-1] if sessions is None else sessions)
    last = here.shape[-1] - 1 - xp.argmax(here[..., ::-1], axis=-1)
    found = xp.take_along_axis(accuracy, last[..., None], axis=-2)
    return xp.where(xp.any(here, axis=-1)[..., None], found, xp.nan)


def by_session(
    accuracy: Array,
    task: Array,
    sessions: int,
    length: int | None = None,
    start: Array | None = None,
) -> Array:
    """The evaluations of every session apart.

    Args:
      accuracy: ``[..., evaluations, tasks]``.
      task: ``[..., evaluations]``.
      sessions: how many.
      length: evaluations of each that are wanted, from its first; all if None.
      start: ``[..., sessions, tasks]``, to be put before them as the evaluation after 0
        updates; left out if None.

    Returns:
      ``[..., sessions, length (+ 1), tasks]``; NaN behind the end of a shorter session.

    Raises:
      ValueError: if the numbers of evaluations differ.

    Example:
      >>> accuracy = [[0.1], [0.2], [0.3]]
      >>> by_session(accuracy, [0, 0, 1], 2, 2)[..., 0].tolist()
      [[0.1, 0.2], [0.3, nan]]
      >>> by_session(accuracy, [0, 0, 1], 2, 1, [[0.0], [0.5]])[..., 0].tolist()
      [[0.0, 0.1], [0.5, 0.3]]
    """
    xp, accuracy, task = arrays.series(accuracy, task)
    here = _at(xp, task, sessions)
    evaluations = here.shape[-1]
    length = evaluations if length is None else length
    places = xp.argmax(here, axis=-1)[..., None] + xp.arange(length)
    inside = xp.minimum(places, evaluations - 1)
    there = (places < evaluations) & xp.take_along_axis(here, inside, axis=-1)
    flat = inside.reshape(*inside.shape[:-2], sessions * length, 1)
    found = xp.take_along_axis(accuracy, flat, axis=-2)
    found = found.reshape(*inside.shape, accuracy.shape[-1])
    found = xp.where(there[..., None], found, xp.nan)
    if start is None:
        return found
    start = xp.broadcast_to(xp.asarray(start)[..., None, :], found[..., :1, :].shape)
    return xp.concatenate([start, found], axis=-2)


def seen(accuracy: Array, task: Array) -> Array:
    """The accuracy of tasks that have begun; NaN before.

    Args:
      accuracy: ``[..., evaluations, tasks]``.
      task: ``[..., evaluations]``.

    Returns:
      ``[..., evaluations, tasks]``.

    Raises:
      ValueError: if the numbers of evaluations differ.

    Example:
      >>> seen([[0.5, 0.1], [0.6, 0.7]], [0, 1]).tolist()
      [[0.5, nan], [0.6, 0.7]]
    """
    xp, accuracy, task = arrays.series(accuracy, task)
    return xp.where(xp.arange(accuracy.shape[-1]) <= task[..., None], accuracy, xp.nan)


def old_new_all(accuracy: Array, task: Array) -> Array:
    r"""Accuracy on the earlier tasks, on that being learned, and on all of these.

    With k the task being learned:

    .. math::
      \frac{1}{k} \sum_{i<k} A_i, \quad A_k, \quad \frac{1}{k+1} \sum_{i \le k} A_i

    Args:
      accuracy: ``[..., evaluations, tasks]``, or ``[..., sessions, tasks]`` at starts.
      task: ``[..., evaluations]``, or the numbers of the sessions.

    Returns:
      ``[..., evaluations, 3]``: old, new, all. Every task weighs the same, as with test
      sets of one size. No task is old while the first is learned: NaN.

    Raises:
      ValueError: if the numbers of evaluations differ.

    Example:
      >>> old_new_all([[0.5, 0.1], [0.5, 1.0]], [0, 1]).tolist()
      [[nan, 0.5, 0.5], [0.5, 1.0, 0.75]]
    """
    xp, accuracy, task = arrays.series(accuracy, task)
    number, now = xp.arange(accuracy.shape[-1]), task[..., None]
    which = (number < now, number == now, number <= now)
    return xp.stack([arrays.mean(xp, accuracy, where) for where in which], axis=-1)


def _at(xp, task, sessions):
    """Which evaluations each session has, ``[..., sessions, evaluations]``."""
    return task[..., None, :] == xp.arange(sessions)[:, None]
