"""What the matrix of accuracies says of remembering, learning and transfer.

``matrix`` is ``[..., tasks, tasks]``: accuracy of every task when each session has
ended, from `accuracy_matrix`. Tasks and sessions count from 0.
"""

from loplax.metrics import arrays
from loplax.metrics.arrays import Array


def average_accuracy(matrix: Array) -> Array:
    r"""Mean accuracy over the tasks learned so far, when each session has ended.

    .. math:: A_k = \frac{1}{k+1} \sum_{j \le k} R_{kj}

    Args:
      matrix: ``[..., tasks, tasks]``.

    Returns:
      ``[..., tasks]``; the last is what papers call ACC.

    Raises:
      ValueError: if the matrix is not square.

    Example:
      >>> average_accuracy([[0.5, 0.25], [0.5, 1.0]]).tolist()
      [0.5, 0.75]

    References:
      Lopez-Paz & Ranzato, `Gradient episodic memory <https://arxiv.org/abs/1706.08840>`_,
      2017; Chaudhry et al. 2018.
    """
    xp, matrix = _square(matrix)
    return arrays.mean(xp, matrix, _lower(xp, matrix))


def average_incremental_accuracy(matrix: Array) -> Array:
    r"""The mean over all sessions of the average accuracy at their ends.

    .. math:: \frac{1}{T} \sum_k A_k

    Args:
      matrix: ``[..., tasks, tasks]``.

    Returns:
      ``[...]``.

    Raises:
      ValueError: if the matrix is not square.

    Example:
      >>> float(average_incremental_accuracy([[0.5, 0.25], [0.5, 1.0]]))
      0.625

    References:
      Rebuffi et al., `iCaRL <https://arxiv.org/abs/1611.07725>`_, 2017.
    """
    average = average_accuracy(matrix)
    return average.mean(axis=-1)


def forgetting_from_last(matrix: Array) -> Array:
    r"""How much of what was known at the end of its own session a task has lost.

    .. math:: \frac{1}{k} \sum_{j<k} (R_{jj} - R_{kj})

    Args:
      matrix: ``[..., tasks, tasks]``.

    Returns:
      ``[..., tasks]``, after every session; NaN after the first. Negative where
      learning a task made earlier ones better.

    Raises:
      ValueError: if the matrix is not square.

    Example:
      >>> forgetting_from_last([[0.75, 0.0, 0.0], [1.0, 0.5, 0.0], [0.5, 0.5, 1.0]])
      array([  nan, -0.25 ,  0.125])

    References:
      FORG in De Lange et al., `Continual evaluation for lifelong learning: identifying
      the stability gap <https://arxiv.org/abs/2205.13452>`_, 2023.
    """
    xp, matrix = _square(matrix)
    lost = _own(xp, matrix)[..., None, :] - matrix
    return arrays.mean(xp, lost, _lower(xp, matrix, -1))


def forgetting_from_max(matrix: Array) -> Array:
    r"""How much of the most that was known at the end of an earlier session is lost.

    .. math:: \frac{1}{k} \sum_{j<k} \left(\max_{l<k} R_{lj} - R_{kj}\right)

    Args:
      matrix: ``[..., tasks, tasks]``; in the maximum, what is missing is passed over.

    Returns:
      ``[..., tasks]``, after every session; NaN after the first.

    Raises:
      ValueError: if the matrix is not square.

    Example:
      >>> forgetting_from_max([[0.75, 0.0, 0.0], [1.0, 0.5, 0.0], [0.5, 0.5, 1.0]])
      array([  nan, -0.25,  0.25])

    References:
      Chaudhry et al., `Riemannian walk for incremental learning
      <https://arxiv.org/abs/1801.10112>`_, 2018.
    """
    xp, matrix = _square(matrix)
    known = xp.where(xp.isnan(matrix), -xp.inf, matrix)
    best = arrays.running_max(xp, known, -2)
    before = xp.concatenate([matrix[..., :1, :], best[..., :-1, :]], axis=-2)
    before = xp.where(xp.isinf(before), xp.nan, before)
    return arrays.mean(xp, before - matrix, _lower(xp, matrix, -1))


def backward_transfer(matrix: Array) -> Array:
    r"""What learning the later tasks did for the earlier ones, on average.

    .. math:: \frac{1}{k} \sum_{j<k} (R_{kj} - R_{jj})

    Args:
      matrix: ``[..., tasks, tasks]``.

    Returns:
      ``[..., tasks]``, after every session; NaN after the first. The paper takes the
      last. It is `forgetting_from_last` with the other sign.

    Raises:
      ValueError: if the matrix is not square.

    Example:
      >>> backward_transfer([[0.75, 0.0], [0.5, 0.5]]).tolist()
      [nan, -0.25]

    References:
      Lopez-Paz & Ranzato, `Gradient episodic memory <https://arxiv.org/abs/1706.08840>`_,
      2017.
    """
    return -forgetting_from_last(matrix)


def forward_transfer(matrix: Array, untrained: Array) -> Array:
    r"""What learning the earlier tasks did for those not yet learned, on average.

    .. math:: \frac{1}{T-1} \sum_{j>0} (R_{j-1,j} - b_j)

    Args:
      matrix: ``[..., tasks, tasks]``.
      untrained: b, ``[..., tasks]``, the accuracy of the untrained network: that at the
        start of the first session.

    Returns:
      ``[...]``; NaN of a single task.

    Raises:
      ValueError: if the matrix is not square.

    Example:
      >>> float(forward_transfer([[0.75, 0.25], [0.5, 0.5]], [0.0, 0.125]))
      0.125

    References:
      Lopez-Paz & Ranzato, `Gradient episodic memory <https://arxiv.org/abs/1706.08840>`_,
      2017.
    """
    _square(matrix)
    xp, matrix, untrained = arrays.floats(matrix, untrained)
    before = xp.diagonal(matrix, 1, -2, -1)
    return arrays.mean(xp, before - untrained[..., 1:])


def learning_accuracy(matrix: Array) -> Array:
    r"""Mean accuracy of the tasks, each at the end of its own session.

    .. math:: \frac{1}{T} \sum_k R_{kk}

    Args:
      matrix: ``[..., tasks, tasks]``.

    Returns:
      ``[...]``.

    Raises:
      ValueError: if the matrix is not square.

    Example:
      >>> float(learning_accuracy([[0.75, 0.25], [0.5, 0.5]]))
      0.625

    References:
      Riemer et al., `Learning to learn without forgetting
      <https://arxiv.org/abs/1810.11910>`_, 2019.
    """
    xp, matrix = _square(matrix)
    return arrays.mean(xp, _own(xp, matrix))


def intransigence(matrix: Array, joint: Array) -> Array:
    r"""How much worse a task is learned than by training on all data so far at once.

    .. math:: I_k = R^*_k - R_{kk}

    Args:
      matrix: ``[..., tasks, tasks]``.
      joint: :math:`R^*`, ``[..., tasks]``, accuracy of task k of a network that was
        trained jointly on the tasks up to k.

    Returns:
      ``[..., tasks]``; the lower, the better.

    Raises:
      ValueError: if the matrix is not square.

    Example:
      >>> intransigence([[0.75, 0.25], [0.5, 0.5]], [0.75, 1.0]).tolist()
      [0.0, 0.5]

    References:
      Chaudhry et al., `Riemannian walk for incremental learning
      <https://arxiv.org/abs/1801.10112>`_, 2018.
    """
    _square(matrix)
    xp, matrix, joint = arrays.floats(matrix, joint)
    return joint - _own(xp, matrix)


def _square(matrix):
    xp, matrix = arrays.floats(matrix)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"matrix must be [..., tasks, tasks], got {matrix.shape}.")
    return xp, matrix


def _own(xp, matrix):
    """Accuracy of every task at the end of its own session, ``[..., tasks]``."""
    return xp.diagonal(matrix, 0, -2, -1)


def _lower(xp, matrix, diagonal=0):
    """Which tasks come before each session, or at it, ``[tasks, tasks]``."""
    return xp.tril(xp.ones(matrix.shape[-2:], bool), diagonal)
