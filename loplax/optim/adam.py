"""Adam whose bias correction starts again with every replaced unit."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import expected, paths, replacement
from loplax.units.groups import UnitGroup


class ScaleByUnitAdamState(NamedTuple):
    """State of `scale_by_unit_adam`.

    Attributes:
      count: steps taken, int32 scalar; counts for weights of no unit.
      unit_count: steps since each unit started, int32 ``[size]`` per group name.
      mu: running mean of the gradients.
      nu: running mean of the squared gradients.
    """

    count: jax.Array
    unit_count: replacement.PerUnit
    mu: optax.Updates
    nu: optax.Updates


def scale_by_unit_adam(
    units: Iterable[UnitGroup] | None,
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
    eps_hat: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The scaling of `adam`, without its learning rate."""
    groups = () if units is None else expected.groups(units, replaced=False)
    for name, value in (("b1", b1), ("b2", b2)):
        checks.in_range(name, value, 0, 1, below=True)
    checks.in_range("eps", eps)

    def init(params):
        expected.arrays(params)
        counts = {group.name: jnp.zeros(group.size, jnp.int32) for group in groups}
        return ScaleByUnitAdamState(
            count=jnp.zeros((), jnp.int32),
            unit_count=replacement.PerUnit(counts),
            mu=optax.tree.zeros_like(params),
            nu=optax.tree.zeros_like(params),
        )

    def update(grads, state, params=None, **extra_args):
        del params, extra_args
        count = optax.safe_increment(state.count)
        unit_count = jax.tree.map(optax.safe_increment, state.unit_count)
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, b2, 2)
        first = _corrections(groups, grads, b1, count, unit_count.values)
        second = _corrections(groups, grads, b2, count, unit_count.values)

        def scale(m, v, c1, c2):
            c1, c2 = c1.astype(m.dtype), c2.astype(v.dtype)
            if eps_hat:
                return m * (jnp.sqrt(c2) / c1) / (jnp.sqrt(v) + eps)
            return (m / c1) / (jnp.sqrt(v / c2) + eps)

        updates = jax.tree.map(scale, mu, nu, first, second)
        mu, nu = optax.tree.cast_like(mu, state.mu), optax.tree.cast_like(nu, state.nu)
        return updates, ScaleByUnitAdamState(count, unit_count, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def adam(
    learning_rate: optax.ScalarOrSchedule,
    units: Iterable[UnitGroup] | None,
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
    *,
    eps_hat: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with one step count per hidden unit.

    The bias correction of a weight uses the steps since the younger of the two units
    it connects was replaced,

    .. math::
      t_w = \min_{u \ni w} t_u, \quad
      \hat m_w = m_w / (1 - \beta_1^{t_w}), \quad \hat v_w = v_w / (1 - \beta_2^{t_w}),

    so that a replaced unit's first steps are not too large by orders of magnitude, as
    they are when the moments are reset and the count is not. Equal to ``optax.adam``
    while nothing is replaced.

    With ``eps_hat`` the small number is added before the correction:

    .. math::
      \Delta w = -\alpha \frac{\sqrt{1 - \beta_2^{t_w}}}{1 - \beta_1^{t_w}}
      \frac{m_w}{\sqrt{v_w} + \epsilon}

    That differs where gradients are as small as :math:`\epsilon`, as those of a decay
    alone are.

    Args:
      learning_rate: a number (may be traced) or a schedule.
      units: the ``UnitGroup`` records given to the wrapper that replaces units, or None
        for one count in all, where nothing is replaced.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the denominator.
      eps_hat: whether it is added to the root of the moment that is not corrected.

    Returns:
      An optimiser to wrap in `continual_backprop` or `redo`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> import jax, optax
      >>> from loplax import optim, units
      >>> apply = lambda params, x: jax.nn.relu(x @ params["w"]) @ params["v"]
      >>> params = {"w": jax.numpy.ones((3, 8)), "v": jax.numpy.ones((8, 1))}
      >>> groups = units.find(apply, params, jax.numpy.ones((4, 3)))
      >>> tx = optim.continual_backprop(optim.adam(1e-3, groups), groups,
      ...                               replacement_rate=1e-4, key=jax.random.key(0))
      >>> int(optax.tree.get(tx.init(params), "unit_count").values["w"][0])
      0

    References:
      Kingma & Ba, `Adam <https://arxiv.org/abs/1412.6980>`_, 2014, with both places of
      :math:`\epsilon` (section 2); counts per weight as in the code of Dohare et al.,
      Nature 632, 2024.
    """
    if not callable(learning_rate):
        checks.in_range("learning_rate", learning_rate)
    return optax.chain(
        scale_by_unit_adam(units, b1, b2, eps, eps_hat),
        optax.scale_by_learning_rate(learning_rate),
    )


def _corrections(groups, tree, decay, count, unit_count):
    """``1 - decay ** t`` for every weight, as arrays that broadcast to it.

    The correction grows with the count, so the smallest count has the smallest
    correction: powers are taken per unit and not per weight.
    """
    found = paths.by_path(tree)
    power = lambda t: 1 - decay**t  # as optax.tree.bias_correction, in any precision
    leaves = dict.fromkeys(found.leaves, power(count))
    for group in groups:
        correction = power(unit_count[group.name])
        for axis in group.incoming + group.biases + group.scales + group.outgoing:
            if axis.path in leaves:
                shape = found.leaves[axis.path].shape
                mine = axis.spread(correction, shape)
                mine = jnp.where(mine == 0, 1, mine)
                leaves[axis.path] = jnp.minimum(leaves[axis.path], mine)
    return jax.tree.unflatten(found.treedef, list(leaves.values()))
