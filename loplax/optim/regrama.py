"""ReGraMa: recycle units that learn nothing, as their gradients say."""

from collections.abc import Iterable

import jax
import optax

from loplax.optim import dormant, initializers, utilities, wrapper
from loplax.units.groups import UnitGroup


def regrama(
    inner: optax.GradientTransformation,
    units: Iterable[UnitGroup],
    *,
    threshold: float | jax.Array = 0.01,
    period: int | jax.Array = 1000,
    decay_rate: float | jax.Array = 0.0,
    initializer: initializers.Initializers = None,
    reset_inner: bool = True,
    key: jax.Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that hidden units without gradient are re-initialised.

    It is `redo` by another measure, which holds for any activation function: every
    ``period`` steps, the units of a layer with

    .. math::
      G_i = \frac{\operatorname{mean} |\partial L / \partial W_{\text{in}, i}|}
                 {\tfrac{1}{n} \sum_k
                  \operatorname{mean} |\partial L / \partial W_{\text{in}, k}|}
          \le \tau

    are replaced, where the means run over a unit's incoming weights, without biases.
    :math:`L` is the loss of the batch, so gradients of single examples may cancel. In
    a layer without any gradient all units are replaced. It must be the last link of a
    chain, and the links before it must not rescale gradients weight by weight.

    Args:
      inner: the optimiser of all parameters; any optax transformation.
      units: the ``UnitGroup`` records of the layers to maintain.
      threshold: :math:`\tau`, at least 0. May be traced.
      period: steps between two checks. A unit has no gradient at the step after its
        replacement, when its outgoing weights are still 0: with a period of 1 it would
        be replaced for ever. May be traced.
      decay_rate: decay of the running mean of the gradients' magnitude, in [0, 1). The
        paper's 0 looks at the current batch alone. May be traced.
      initializer: as in `continual_backprop`.
      reset_inner: whether the inner state of replaced weights is reset.
      key: typed random key.

    Returns:
      A transformation whose ``update`` needs ``params``, and no features.

    Raises:
      ValueError: as `continual_backprop`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from loplax import optim, units
      >>> apply = lambda params, x: jax.nn.relu(x @ params["w"]) @ params["v"]
      >>> w = jnp.ones((3, 4)).at[:, 1].set(-1.0)
      >>> params, x = {"w": w, "v": jnp.ones((4, 1))}, jnp.ones((16, 3))
      >>> tx = optim.regrama(optax.sgd(0.1), units.find(apply, params, x), period=1,
      ...                    key=jax.random.key(0))
      >>> grads = jax.grad(lambda params: apply(params, x).sum())(params)
      >>> _, state = tx.update(grads, tx.init(params), params)
      >>> state.replaced["w"].tolist()
      [False, True, False, False]

    References:
      Liu et al., `Measure gradients, not activations! Enhancing neuronal activity in
      deep reinforcement learning <https://arxiv.org/abs/2505.24061>`_, 2025, equation 2
      and Algorithm 1; the gradient of the weights stands for that of the unit as in
      the authors' code.
    """
    return dormant.below_layer_mean(
        inner,
        units,
        _learning,
        needs_features=False,
        threshold=threshold,
        period=period,
        decay_rate=decay_rate,
        initializer=initializer,
        reset_inner=reset_inner,
        key=key,
    )


def _learning(group, step: wrapper.Step) -> jax.Array:
    """Mean absolute gradient of each unit's incoming weights."""
    return utilities.mean_magnitude(group.incoming, group.size, step.grads)
