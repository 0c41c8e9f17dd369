"""Continuous continual backprop: many small replacements instead of few whole ones."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks, precision
from loplax.optim import (
    expected,
    initializers,
    keys,
    paths,
    placement,
    replacement,
    utilities,
    wrapper,
)
from loplax.units.groups import UnitGroup


class CcbpState(NamedTuple):
    """State of `ccbp`.

    Attributes:
      inner: state of the inner optimiser.
      utility: running mean of the units' gradients relative to their layer's, one
        float32 ``[size]`` per group name.
      count: updates made, int32 scalar.
      key: typed random key; update ``count`` draws from ``fold_in(key, count)``.
    """

    inner: optax.OptState
    utility: dict[str, jax.Array]
    count: jax.Array
    key: jax.Array


def ccbp(
    inner: optax.GradientTransformation,
    units: Iterable[UnitGroup],
    *,
    replacement_rate: float | jax.Array = 0.015,
    sharpness: float | jax.Array = 16.0,
    threshold: float | jax.Array = 1.0,
    decay_rate: float | jax.Array = 0.99,
    period: int | jax.Array = 1000,
    initializer: initializers.Initializers = None,
    key: jax.Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that hidden units are pulled towards their initialisation.

    The utility of a unit, 1 at first, follows its gradients relative to its layer's,

    .. math::
      U_i \leftarrow \beta U_i + (1 - \beta)
        \frac{\operatorname{mean} |\partial L / \partial W_{\text{in}, i}|}
             {\tfrac{1}{n} \sum_k
              \operatorname{mean} |\partial L / \partial W_{\text{in}, k}|}

    Every ``period`` steps all units are replaced in part, the less useful ones more,

    .. math::
      r_i &= \rho \min(1, 2 \operatorname{sigmoid}(-\kappa (U_i - c))) \\
      W_{\text{in}, i} &\leftarrow (1 - r_i) W_{\text{in}, i} + r_i D, \qquad
      W_{\text{out}, i} \leftarrow (1 - r_i) W_{\text{out}, i}

    with :math:`D` drawn from ``initializer``, and all utilities are 1 again. Biases,
    norm scales and the inner state stay. A layer without any gradient counts as 0, and
    a unit whose gradient is not finite keeps its :math:`U_i`. It must be the last link
    of a chain, and the links before it must not rescale gradients weight by weight.

    Args:
      inner: the optimiser of all parameters; any optax transformation.
      units: the ``UnitGroup`` records of the layers to maintain.
      replacement_rate: :math:`\rho`, the part of the least useful units that is
        replaced, in [0, 1]. May be traced.
      sharpness: :math:`\kappa`, at least 0: 0 pulls all units alike. May be traced.
      threshold: :math:`c`, the utility up to which :math:`r_i = \rho`, at least 0. May
        be traced.
      decay_rate: :math:`\beta`, in [0, 1]. May be traced.
      period: steps between two partial replacements. May be traced.
      initializer: as in `continual_backprop`.
      key: typed random key.

    Returns:
      A transformation whose ``update`` needs ``params``, and no features.

    Raises:
      ValueError: as `continual_backprop`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from loplax import optim, units
      >>> apply = lambda params, x: jnp.tanh(x @ params["w"]) @ params["v"]
      >>> params, x = {"w": jnp.ones((3, 2)), "v": jnp.ones((2, 1))}, jnp.ones((16, 3))
      >>> tx = optim.ccbp(optax.sgd(0.0), units.find(apply, params, x), period=1,
      ...                 replacement_rate=0.25, key=jax.random.key(0))
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["v"].tolist()
      [[0.75], [0.75]]

    References:
      McCutcheon et al., `Calibrated partial resets: preventing policy collapse in
      continual reinforcement learning <https://arxiv.org/abs/2607.24996>`_, 2026,
      there CPR; first as `continuous continual backpropagation
      <https://openreview.net/forum?id=UJqXhFFzKu>`_. Defaults are those of the
      authors' scripts for the slippery ant with a threshold of 1, and of their CPR on
      the delayed ant. Their functions ``ccbp`` and ``cpr`` default to an exponential in
      place of the sigmoid, with a rate of 0.012 and a threshold of 0.95, their
      ``CcbpConfig`` to a rate of 0.01, and an earlier script for the slippery ant to a
      linear one with sharpness 10, threshold 0.5 and decay 0.9.
    """
    checks.in_range("replacement_rate", replacement_rate, 0, 1)
    checks.in_range("sharpness", sharpness)
    checks.in_range("threshold", threshold)
    checks.in_range("decay_rate", decay_rate, 0, 1)
    is_due = expected.period(period)
    checks.typed_key(key)
    groups = expected.groups(units)
    sizes = {group.name: group.size for group in groups}
    inner = expected.optimizer(inner)

    def init(params) -> CcbpState:
        wrapper.check(groups, params)
        return CcbpState(
            inner=inner.init(params),
            utility={name: jnp.ones(n, jnp.float32) for name, n in sizes.items()},
            count=jnp.zeros((), jnp.int32),
            key=keys.copy(key),
        )

    def observe(group, old, slopes) -> tuple[jax.Array, jax.Array]:
        """The utilities of a layer, and the part of each unit that is replaced."""
        score = utilities.mean_magnitude(group.incoming, group.size, slopes)
        score = _relative(score)
        new = jnp.where(
            jnp.isfinite(score), decay_rate * old + (1 - decay_rate) * score, old
        )
        fraction = 2 * jax.nn.sigmoid(-sharpness * (new - threshold))
        return new, replacement_rate * jnp.minimum(1, fraction)

    def update(grads, state, params=None, **extra_args):
        expected.required_params(params)
        wrapper.check(groups, params)
        placement.require_exact(params)
        updates, inner_state = inner.update(grads, state.inner, params, **extra_args)
        count = optax.safe_increment(state.count)
        due = is_due(count)
        slopes, utility, rates = paths.by_path(grads).leaves, {}, {}
        for group in groups:
            name = group.name
            new, rates[name] = observe(group, state.utility[name], slopes)
            utility[name] = jnp.where(due, 1, new)

        draw = replacement.draw_weights(groups, params, initializer, sizes)
        drawn = keys.when(due, draw, state.key, count, "weights")
        updates = _pull(groups, rates, drawn, params, updates, due)
        utility = precision.like(utility, state.utility)
        return updates, CcbpState(inner_state, utility, count, state.key)

    return optax.GradientTransformationExtraArgs(init, update)


def _relative(values: jax.Array) -> jax.Array:
    """Values over their mean, 0 where all are 0; those not finite are left out."""
    mean = jnp.mean(values, where=jnp.isfinite(values))
    return jnp.where(values == 0, values, values / mean)


def _pull(groups, rates, drawn, params, updates, due):
    """Changes the updates so that applying them also replaces each unit in part."""
    old, new = paths.by_path(params).leaves, paths.by_path(updates)
    after = paths.by_path(optax.apply_updates(params, updates)).leaves
    weights = {path: paths.at_least_float32(leaf) for path, leaf in after.items()}

    def pull(axis, group, target):
        param = old[axis.path]
        rate = axis.spread(rates[group.name], param.shape)
        weights[axis.path] = (1 - rate) * weights[axis.path] + rate * target
        change = replacement.difference(weights[axis.path], param)
        new.leaves[axis.path] = jnp.where(due, change, new.leaves[axis.path])

    for group in groups:
        for axis in group.outgoing:
            pull(axis, group, 0.0)
    for group in groups:
        for axis in group.incoming:
            pull(axis, group, drawn[axis.path])
    return new.unflatten()
