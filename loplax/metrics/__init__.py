"""Diagnostics of plasticity: pure functions, to be jitted and vmapped at will.

``features`` is always the matrix of activations on a probe batch, ``[examples, units]``
(leading axes are flattened). Several names are used for more than one quantity in the
literature; each docstring gives the formula used here. What is not finite never gives a
number that looks sound: the result is NaN or infinite, and -1 where it is an integer.
A value by itself says little: compare it with that of a freshly initialised network.

What is measured of a stream of tasks (forgetting, transfer, the stability gap) works on
``accuracy [..., evaluations, tasks]``, of numpy or of JAX; `loplax.metrics.continual`
says how it is written down.
"""

from loplax.metrics.calibration import expected_calibration_error
from loplax.metrics.continual import accuracy_matrix, by_session, old_new_all, seen
from loplax.metrics.curvature import hessian_rank, hessian_spectrum, ntk, ntk_rank
from loplax.metrics.features import (
    dead_fraction,
    dormant_fraction,
    rarely_active_fraction,
    saturated_fraction,
)
from loplax.metrics.gaps import (
    Gaps,
    gap,
    gaps,
    learning_curve_area,
    min_accuracy,
    windowed_forgetting,
    windowed_plasticity,
    worst_case_accuracy,
)
from loplax.metrics.gradients import gradient_norm, gradient_sparsity
from loplax.metrics.learning import churn, plasticity, value_churn
from loplax.metrics.parameters import distance, weight_change, weight_magnitude
from loplax.metrics.ranks import (
    absolute_approximate_rank,
    approximate_rank,
    effective_rank,
    stable_rank,
)
from loplax.metrics.recovery import (
    Time,
    drop_depth,
    recovery_time,
    speed_up,
    time_to_fraction,
)
from loplax.metrics.signs import SwitchingCost, switching_cost
from loplax.metrics.transfer import (
    average_accuracy,
    average_incremental_accuracy,
    backward_transfer,
    forgetting_from_last,
    forgetting_from_max,
    forward_transfer,
    intransigence,
    learning_accuracy,
)

__all__ = [
    "Gaps",
    "SwitchingCost",
    "Time",
    "absolute_approximate_rank",
    "accuracy_matrix",
    "approximate_rank",
    "average_accuracy",
    "average_incremental_accuracy",
    "backward_transfer",
    "by_session",
    "churn",
    "dead_fraction",
    "distance",
    "dormant_fraction",
    "drop_depth",
    "effective_rank",
    "expected_calibration_error",
    "forgetting_from_last",
    "forgetting_from_max",
    "forward_transfer",
    "gap",
    "gaps",
    "gradient_norm",
    "gradient_sparsity",
    "hessian_rank",
    "hessian_spectrum",
    "intransigence",
    "learning_accuracy",
    "learning_curve_area",
    "min_accuracy",
    "ntk",
    "ntk_rank",
    "old_new_all",
    "plasticity",
    "rarely_active_fraction",
    "recovery_time",
    "saturated_fraction",
    "seen",
    "speed_up",
    "stable_rank",
    "switching_cost",
    "time_to_fraction",
    "value_churn",
    "weight_change",
    "weight_magnitude",
    "windowed_forgetting",
    "windowed_plasticity",
    "worst_case_accuracy",
]
