r"""Proximal policy optimisation: one environment or many, one network, one run.

From ``num_envs`` environments ``num_steps`` transitions each are collected. With the
value :math:`V` of observations :math:`o_t` and of what followed them, :math:`o'_t`,
rewards :math:`r_t`, and :math:`\text{term}_t`, :math:`\text{end}_t \in \{0, 1\}` where
an episode was terminated, or ended for whatever reason,

.. math::
  \delta_t &= r_t + \gamma (1 - \text{term}_t) V(o'_t) - V(o_t) \\
  A_t &= \delta_t + \gamma \lambda (1 - \text{end}_t) A_{t+1}, \quad R_t = A_t + V(o_t)

and with :math:`\hat A` the advantages normalised over all that was collected, each step
on one of the minibatches, in ``epochs`` random orders, lowers the mean of

.. math::
  -\min(\rho \hat A, \operatorname{clip}(\rho, 1 - \epsilon, 1 + \epsilon) \hat A)
  + c_v (V - R)^2 - c_e H, \quad \rho = \pi(a | o) / \pi_\text{old}(a | o)

References:
  Schulman et al., `Proximal policy optimization algorithms
  <https://arxiv.org/abs/1707.06347>`_, 2017; as in Dohare et al., `Loss of plasticity
  in deep continual learning <https://doi.org/10.1038/s41586-024-07711-7>`_, Nature 632,
  2024, Methods.
"""

from loplax.ppo.acting import Transition, collect
from loplax.ppo.learning import Batch, estimate, learn
from loplax.ppo.problem import Build, Episodes, Part, PPOState, Problem, check
from loplax.ppo.run import init, observe, segment

__all__ = [
    "Batch",
    "Build",
    "Episodes",
    "PPOState",
    "Part",
    "Problem",
    "Transition",
    "check",
    "collect",
    "estimate",
    "init",
    "learn",
    "observe",
    "segment",
]
