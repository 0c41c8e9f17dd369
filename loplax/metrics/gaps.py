r"""The stability gap and its like: accuracies between the ends of the tasks.

Arrays are those of `loplax.metrics.continual`. A *curve* is the series of one session
and one subset, ``[..., evaluations]``, with NaN behind its end: see `by_session`.
"""

from typing import NamedTuple

from loplax.metrics import arrays
from loplax.metrics.arrays import Array


def min_accuracy(accuracy: Array, task: Array) -> Array:
    r"""min-ACC: mean over the earlier tasks of the lowest accuracy since they ended.

    With k the task being learned at evaluation t, and :math:`|T_i|` the last evaluation
    while task i was learned:

    .. math:: \frac{1}{k} \sum_{i<k} \min_{|T_i| < n \le t} A_i(n)

    Args:
      accuracy: ``[..., evaluations, tasks]``, on the same examples each time: the
        minimum over samples drawn anew is biased.
      task: ``[..., evaluations]``.

    Returns:
      ``[..., evaluations]``; NaN while the first task is learned.

    Raises:
      ValueError: if the numbers of evaluations differ.

    Example:
      >>> accuracy = [[0.9, 0.1], [0.3, 0.5], [0.6, 0.7]]
      >>> min_accuracy(accuracy, [0, 1, 1]).tolist()
      [nan, 0.3, 0.3]

    References:
      De Lange et al., `Continual evaluation for lifelong learning: identifying the
      stability gap <https://arxiv.org/abs/2205.13452>`_, 2023.
    """
    xp, accuracy, task = arrays.series(accuracy, task)
    later = xp.arange(accuracy.shape[-1]) < task[..., None]
    lowest = -arrays.running_max(xp, xp.where(later, -accuracy, -xp.inf), -2)
    return arrays.mean(xp, lowest, later)


def worst_case_accuracy(accuracy: Array, task: Array) -> Array:
    r"""WC-ACC: the current task's accuracy and the lowest ones of the earlier tasks.

    .. math:: \frac{1}{k+1} A_k(t) + \frac{k}{k+1} \text{min-ACC}(t)

    with k, from 0, the task being learned; see `min_accuracy`.

    Args:
      accuracy: ``[..., evaluations, tasks]``.
      task: ``[..., evaluations]``.

    Returns:
      ``[..., evaluations]``; while the first task is learned its accuracy.

    Raises:
      ValueError: if the numbers of evaluations differ.

    Example:
      >>> accuracy = [[0.9, 0.1], [0.25, 0.5], [0.6, 0.75]]
      >>> worst_case_accuracy(accuracy, [0, 1, 1]).tolist()
      [0.9, 0.375, 0.5]

    References:
      De Lange et al. 2023, as for `min_accuracy`.
    """
    xp, accuracy, task = arrays.series(accuracy, task)
    own = xp.arange(accuracy.shape[-1]) == task[..., None]
    earlier = xp.where(task == 0, 0, task * min_accuracy(accuracy, task))
    return (arrays.mean(xp, accuracy, own) + earlier) / (task + 1)


def windowed_forgetting(accuracy: Array, window: int) -> Array:
    r"""WF: the largest fall of accuracy within a few evaluations, so far.

    .. math::
      \text{WF}^w_i(t) = \max_{n \le t} \; \max_{n - w < m \le n} A_i(m) - A_i(n)

    Args:
      accuracy: ``[..., evaluations, tasks]``, without what is not to count: `seen`
        leaves out the tasks that have not begun. NaN is passed over.
      window: w, evaluations (not updates) in a window, at least 2.

    Returns:
      ``[..., evaluations, tasks]``, at least 0; NaN before the first value. The paper
      takes the mean over the tasks seen.

    Raises:
      ValueError: if the window has no two evaluations.

    Example:
      >>> windowed_forgetting([[0.75], [0.5], [0.25], [1.0]], 2)[:, 0].tolist()
      [0.0, 0.25, 0.25, 0.25]
      >>> windowed_forgetting([[0.75], [0.5], [0.25], [1.0]], 3)[:, 0].tolist()
      [0.0, 0.25, 0.5, 0.5]

    References:
      De Lange et al. 2023, as for `min_accuracy`.
    """
    if window < 2 or window % 1:
        raise ValueError(f"window must be a whole number, 2 or more, got {window}.")
    xp, accuracy = arrays.floats(accuracy)
    evaluations = accuracy.shape[-2]
    highest, width = arrays.present(xp, accuracy, -xp.inf), 1
    while width < min(window, evaluations):  # the maxima of windows twice as wide
        shift = min(width, window - width, evaluations - width)
        earlier = xp.full_like(highest[..., :shift, :], -xp.inf)
        earlier = xp.concatenate([earlier, highest[..., :-shift, :]], axis=-2)
        highest, width = xp.maximum(highest, earlier), width + shift
    fall = arrays.present(xp, highest - accuracy, -xp.inf)
    return arrays.existing(xp, arrays.running_max(xp, fall, -2))


def windowed_plasticity(accuracy: Array, window: int) -> Array:
    r"""WP: the largest rise of accuracy within a few evaluations, so far.

    .. math::
      \text{WP}^w_i(t) = \max_{n \le t} \; \max_{n - w < m \le n} A_i(n) - A_i(m)

    Args:
      accuracy: ``[..., evaluations, tasks]``, as for `windowed_forgetting`.
      window: w, evaluations (not updates) in a window, at least 2.

    Returns:
      ``[..., evaluations, tasks]``, at least 0; NaN before the first value.

    Raises:
      ValueError: if the window has no two evaluations.

    Example:
      >>> windowed_plasticity([[0.0], [0.25], [0.75], [0.5]], 2)[:, 0].tolist()
      [0.0, 0.25, 0.5, 0.5]

    References:
      De Lange et al. 2023, as for `min_accuracy`.
    """
    xp, accuracy = arrays.floats(accuracy)
    return windowed_forgetting(-accuracy, window)


def learning_curve_area(curve: Array, evaluations: int = 10) -> Array:
    r"""LCA: mean accuracy over the first evaluations of a task that is being learned.

    .. math:: \frac{1}{n} \sum_{l < n} A(l)

    Args:
      curve: ``[..., evaluations]``, accuracy on the task of the session.
      evaluations: n. De Lange et al. take 10, of which the first comes before any
        update; LCA of Chaudhry et al. after b updates has n = b + 1.

    Returns:
      ``[...]``; the papers take the mean over the tasks.

    Raises:
      ValueError: if n is less than 1 or more than there are.

    Example:
      >>> float(learning_curve_area([0.0, 0.5, 1.0, 1.0], 3))
      0.5

    References:
      Chaudhry et al., `Efficient lifelong learning with A-GEM
      <https://arxiv.org/abs/1812.00420>`_, 2019.
    """
    xp, curve = arrays.floats(curve)
    if not 1 <= evaluations <= curve.shape[-1]:
        raise ValueError(
            f"evaluations must be in [1, {curve.shape[-1]}], got {evaluations}."
        )
    return arrays.mean(xp, curve[..., :evaluations])


def gap(accuracy: Array, reference: Array) -> Array:
    r"""How far accuracy stays below a reference, on average over sessions and updates.

    .. math::
      1 - \frac{1}{J} \sum_j \frac{1}{L_j} \sum_l \frac{\alpha_{jl}}{\alpha^*_{jl}}

    Args:
      accuracy: :math:`\alpha`, ``[..., sessions, evaluations]``. What is NaN is not
        counted, nor is a session without any value.
      reference: :math:`\alpha^*`, likewise or ``[..., sessions, 1]``. Where accuracy
        has a value and the reference is not above 0, the result is NaN.

    Returns:
      ``[...]``: 0 where accuracy equals the reference, negative where it is better.

    Example:
      >>> float(gap([[0.5, 0.75], [0.25, 0.5]], [[1.0], [0.5]]))
      0.3125

    References:
      Harun & Kanan, `Overcoming the stability gap in continual learning
      <https://arxiv.org/abs/2306.01904>`_, 2024.
    """
    xp, accuracy, reference = arrays.floats(accuracy, reference)
    counts = ~xp.isnan(accuracy)
    ratio = accuracy / xp.where(reference > 0, reference, xp.nan)
    return 1 - arrays.mean(xp, arrays.mean(xp, ratio, counts), xp.any(counts, axis=-1))


class Gaps(NamedTuple):
    """The three gaps of Harun & Kanan; the lower, the better.

    Attributes:
      stability: of accuracy on what was learned before the session, ``[...]``.
      plasticity: of that on what the session brings, ``[...]``.
      continual_knowledge: of that on all seen so far, ``[...]``.
    """

    stability: Array
    plasticity: Array
    continual_knowledge: Array


def gaps(curves: Array, reference: Array) -> Gaps:
    r"""The stability, plasticity and continual-knowledge gaps of a run.

    Each is the `gap` on one subset of classes or tasks: old, new and all, in this
    order, which `old_new_all` makes of tasks. The literature leaves three choices open,
    so say which you take:

    - Does the evaluation before the first update count? It does if the curves are from
      `by_session` with its ``start``.
    - The reference: accuracy of a jointly trained network, on the same subsets at the
      end of each session (that of the paper), or of the network itself before the
      session, which is ``start``. Of new classes the latter is near chance, or 0, and
      says little.
    - Is old what the network was pre-trained on, or with it all earlier sessions?

    Args:
      curves: ``[..., sessions, evaluations, 3]``; the first session may have no old.
      reference: ``[..., sessions, 3]``.

    Returns:
      The gaps.

    Raises:
      ValueError: if there are not three subsets.

    Example:
      >>> from loplax.metrics import by_session
      >>> curves = by_session([[0.75, 0.5, 0.5], [0.5, 1.0, 0.75]], [0, 0], 1)
      >>> [float(x) for x in gaps(curves, [[1.0, 1.0, 1.0]])]
      [0.375, 0.25, 0.375]

    References:
      Harun & Kanan 2024, as for `gap`.
    """
    xp, curves, reference = arrays.floats(curves, reference)
    if curves.shape[-1] != 3 or reference.shape[-1] != 3:
        raise ValueError(
            "curves and reference need the subsets old, new and all as last axis, got "
            f"{curves.shape} and {reference.shape}."
        )
    return Gaps(*(gap(curves[..., i], reference[..., i, None]) for i in range(3)))
