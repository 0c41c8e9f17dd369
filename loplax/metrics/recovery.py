"""How deep accuracy falls in a session, and how long it takes to rise.

A *curve* is the accuracy in one session on one subset, ``[..., evaluations]``, with NaN
behind its end, as `by_session` gives it. What does not come within the session is
censored: its time is infinite, and ``reached`` is False.
"""

from typing import NamedTuple

from loplax.metrics import arrays
from loplax.metrics.arrays import Array


class Time(NamedTuple):
    """When something is reached.

    Attributes:
      updates: after how many updates of the session, ``[...]``; infinite if it is not
        reached by its end, NaN if there is nothing to reach.
      reached: whether it is, ``[...]``.
    """

    updates: Array
    reached: Array


def drop_depth(curve: Array, start: Array, *, smoothed: bool = False) -> Array:
    r"""How far accuracy falls below that before the session.

    .. math:: A(0) - \min_l A(l)

    A minimum of noisy values is too low. Smoothed, it is that of the medians of three
    evaluations in a row, to which a single outlier is of no account.

    Args:
      curve: ``[..., evaluations]``. NaN is passed over.
      start: A(0), ``[...]``.
      smoothed: whether to take the medians.

    Returns:
      ``[...]``; negative if accuracy is always higher than at the start. NaN if there
      is no value, or no three in a row to smooth.

    Example:
      >>> float(drop_depth([0.5, 0.0, 0.25, 0.5], 0.75))
      0.75
      >>> float(drop_depth([0.5, 0.0, 0.25, 0.5], 0.75, smoothed=True))
      0.5

    References:
      The drop is that of De Lange et al., `Continual evaluation for lifelong learning:
      identifying the stability gap <https://arxiv.org/abs/2205.13452>`_, 2023.
    """
    xp, curve, start = arrays.floats(curve, start)
    if smoothed:
        first, middle, last = curve[..., :-2], curve[..., 1:-1], curve[..., 2:]
        low, high = xp.minimum(first, middle), xp.maximum(first, middle)
        curve = xp.maximum(low, xp.minimum(high, last))
    lowest = xp.min(arrays.present(xp, curve, xp.inf), axis=-1, initial=xp.inf)
    return start - arrays.existing(xp, lowest)


def recovery_time(curve: Array, reference: Array, updates: Array | None = None) -> Time:
    r"""Updates until accuracy is back at a reference, after its lowest point.

    .. math:: \min \{u_l : A(l) \ge A^*, \; l > \arg\min_m A(m)\}

    It is 0 if accuracy is never below the reference. What comes before the lowest point
    does not count: the first wavering around the reference is not a recovery.

    Args:
      curve: ``[..., evaluations]``.
      reference: :math:`A^*`, ``[...]``: accuracy before the session, or a jointly
        trained network's.
      updates: u, ``[evaluations]``, updates of the session before each evaluation; 1,
        2, 3 and so on if None.

    Returns:
      The time.

    Example:
      >>> [x.tolist() for x in recovery_time([0.5, 0.25, 0.5, 0.75], 0.5)]
      [3.0, True]
      >>> [x.tolist() for x in recovery_time([0.5, 0.25, 0.5, 0.75], 1.0)]
      [inf, False]
    """
    xp, curve, reference = arrays.floats(curve, reference)
    known = arrays.present(xp, curve, xp.inf)
    lowest = xp.argmin(known, axis=-1)[..., None]
    back = (curve >= reference[..., None]) & (xp.arange(curve.shape[-1]) > lowest)
    time = xp.where(xp.min(known, axis=-1) >= reference, 0.0, _first(xp, back, updates))
    return _time(xp, time, xp.any(~xp.isnan(curve), axis=-1) & ~xp.isnan(reference))


def time_to_fraction(
    curve: Array,
    target: Array | None = None,
    fraction: float = 0.99,
    updates: Array | None = None,
) -> Time:
    r"""Updates until accuracy is at a fraction of a target.

    .. math:: \min \{u_l : A(l) \ge f A^*\}

    Args:
      curve: ``[..., evaluations]``, such as that of the new classes.
      target: :math:`A^*`, ``[...]``. If None the best of the curve itself: then methods
        are timed to different ends, so a common target belongs beside it.
      fraction: f, in (0, 1].
      updates: u, ``[evaluations]``, as for `recovery_time`.

    Returns:
      The time.

    Raises:
      ValueError: if the fraction is out of range.

    Example:
      >>> [x.tolist() for x in time_to_fraction([0.25, 0.5, 0.75, 1.0], fraction=0.75)]
      [3.0, True]
      >>> [x.tolist() for x in time_to_fraction([0.25, 0.5, 0.75, 1.0], 0.5)]
      [2.0, True]

    References:
      Harun & Kanan, `Overcoming the stability gap in continual learning
      <https://arxiv.org/abs/2306.01904>`_, 2024: 99% of the own best.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}.")
    xp, curve, *given = arrays.floats(curve, *(() if target is None else (target,)))
    best = xp.max(arrays.present(xp, curve, -xp.inf), axis=-1)
    (target,) = given or (arrays.existing(xp, best),)
    time = _first(xp, curve >= fraction * target[..., None], updates)
    return _time(xp, time, ~xp.isinf(best) & ~xp.isnan(target))


def speed_up(
    time: Array, reference: Array, cost: Array = 1.0, reference_cost: Array = 1.0
) -> Array:
    r"""How many times cheaper something is reached than by a reference.

    .. math:: \frac{t^* c^*}{t c}

    Args:
      time: t, ``[...]``, updates that it takes.
      reference: :math:`t^*`, ``[...]``, updates that the reference takes, such as
        joint training.
      cost: c, of one update, such as FLOPs; with costs of 1 it is the ratio of updates.
      reference_cost: :math:`c^*`, of one of the reference's.

    Returns:
      ``[...]``; NaN if either is not reached, or costs nothing.

    Example:
      >>> speed_up(100.0, 400.0).item(), speed_up(100.0, 400.0, 3.0, 6.0).item()
      (4.0, 8.0)

    References:
      Harun & Kanan 2024, as for `time_to_fraction`.
    """
    xp, *factors = arrays.floats(time, reference, cost, reference_cost)
    own, other = factors[0] * factors[2], factors[1] * factors[3]
    comparable = xp.isfinite(own) & xp.isfinite(other) & (own > 0) & (other > 0)
    return xp.where(comparable, other, xp.nan) / xp.where(comparable, own, 1)


def _first(xp, where, updates):
    """Updates at the first place; infinite if there is none."""
    updates = xp.arange(1, where.shape[-1] + 1) if updates is None else updates
    return xp.min(xp.where(where, xp.asarray(updates), xp.inf), axis=-1)


def _time(xp, updates, exists) -> Time:
    return Time(xp.where(exists, updates, xp.nan), exists & xp.isfinite(updates))
