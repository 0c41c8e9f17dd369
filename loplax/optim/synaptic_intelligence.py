"""Synaptic intelligence: weights stay that brought the loss down."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import consolidation, expected, paths, placement


class SynapticIntelligenceState(NamedTuple):
    """State of `synaptic_intelligence`.

    Attributes:
      inner: state of the inner optimiser.
      path: what each weight's steps of this task took from the loss, at least float32.
      anchor: the parameters at the end of the last task, at least float32.
      importance: how strongly they are held; 0 before the first boundary.
    """

    inner: optax.OptState
    path: optax.Params
    anchor: optax.Params
    importance: optax.Params


def synaptic_intelligence(
    inner: optax.GradientTransformation,
    *,
    strength: float | jax.Array,
    xi: float | jax.Array = 0.1,
    through: Callable | None = None,
    path: Callable | None = None,
) -> consolidation.Consolidating:
    r"""Wraps an optimiser so that weights stay that brought the losses down.

    Along the way, a weight's part in the decrease of the loss :math:`L` is summed,

    .. math::
      W \leftarrow W - \nabla L \, \Delta\theta, \qquad
      \Omega \leftarrow \max\left(
        \Omega + \frac{W}{(\theta - \theta^*)^2 + \xi}, 0\right) \text{ and } W = 0
        \text{ at a boundary,}

    where :math:`\theta^*` are the parameters of the boundary before. A product that is
    not finite is left out of :math:`W`, and a weight that is not, or whose
    :math:`\Omega` would not be, stays held as it was. A step descends on the loss and
    :math:`\frac{\lambda}{2} \Omega (\theta - \theta^*)^2`. The paper's :math:`c` is
    :math:`\lambda / 2`. The maximum is that of the authors' code, and so is that the
    loss is without the penalty; in the code of Laborieux et al. the former is missing,
    and the path takes the gradient of both.

    When a task is over, call ``consolidate``. It must be the last link of a chain: the
    steps are those of the inner optimiser. What comes before it in a chain, such as a
    decay, counts as a part of the loss; inside, it does not.

    Args:
      inner: the optimiser of all parameters.
      strength: :math:`\lambda`, at least 0. May be traced.
      xi: :math:`\xi`, above 0. May be traced.
      through: what is held of a weight, as in `elastic_weight_consolidation`.
      path: what of a weight moves along the path, in place of :math:`\theta` in
        :math:`\Delta\theta`: ``jnp.sign`` for the path of binarised weights. The
        distance to :math:`\theta^*` is that of the latent ones all the same, as in the
        code of Laborieux et al. Default: the weight itself.

    Returns:
      The transformation; ``update`` needs ``params``. ``consolidate(state, params)``
      returns the state.

    Raises:
      ValueError: for values out of range, or without ``params``; in ``consolidate``,
        for trees that do not fit.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> tx = optim.synaptic_intelligence(optax.sgd(0.5), strength=1.0, xi=1.0)
      >>> params = jnp.array(0.0)
      >>> state = tx.init(params)
      >>> updates, state = tx.update(jnp.array(-2.0), state, params)
      >>> params = optax.apply_updates(params, updates)  # 1: the path is 2
      >>> state = tx.consolidate(state, params)
      >>> state.importance.item()
      1.0

    References:
      Zenke et al., `Continual learning through synaptic intelligence
      <https://arxiv.org/abs/1703.04200>`_, ICML 2017; binarised: Laborieux et al.,
      `Synaptic metaplasticity in binarized neural networks
      <https://arxiv.org/abs/2003.03533>`_, 2021, the authors' code.
    """
    checks.in_range("strength", strength)
    checks.in_range("xi", xi, float(jnp.finfo(jnp.float32).tiny))
    inner = expected.optimizer(inner)
    wide = paths.at_least_float32
    what, along = through or consolidation.identity, path or consolidation.identity
    held = lambda param: what(wide(param))
    pull = consolidation.pulled(strength, held)

    def init(params) -> SynapticIntelligenceState:
        first = inner.init(params)
        anchor = jax.tree.map(wide, params)
        zeros = lambda: jax.tree.map(jnp.zeros_like, anchor)
        return SynapticIntelligenceState(first, zeros(), anchor, zeros())

    def update(grads, state, params=None, **extra_args):
        expected.required_params(params)
        placement.require_exact()
        anchor = jax.tree.map(held, state.anchor)
        both = jax.tree.map(pull, grads, params, anchor, state.importance)
        updates, inner_state = inner.update(both, state.inner, params, **extra_args)

        def follow(before, grad, old, new):
            moved = along(wide(new)) - along(wide(old))
            after = before - wide(grad) * moved
            return jnp.where(jnp.isfinite(after), after, before).astype(before.dtype)

        new = optax.apply_updates(params, updates)
        way = jax.tree.map(follow, state.path, grads, params, new)
        return updates, state._replace(inner=inner_state, path=way)

    def step(state, params):
        ways, anchors = paths.by_path(state.path), paths.by_path(state.anchor)
        importances = paths.by_path(state.importance)
        params = expected.alike("params", params, anchors.leaves)
        for name, way in ways.leaves.items():
            now = wide(params[name])
            anchor, before = old = anchors.leaves[name], importances.leaves[name]
            new = jnp.maximum(before + way / ((now - anchor) ** 2 + xi), 0)
            both = consolidation.where_finite((now, new), old)
            anchors.leaves[name], importances.leaves[name] = both
            ways.leaves[name] = jnp.zeros_like(way)
        return SynapticIntelligenceState(
            state.inner, ways.unflatten(), anchors.unflatten(), importances.unflatten()
        )

    def consolidate(state, params):
        step_here = lambda mine: step(mine, params)
        return consolidation.where_it_is(SynapticIntelligenceState, step_here, state)

    return consolidation.Consolidating(init, update, consolidate)
