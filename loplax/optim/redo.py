"""ReDo: recycle dormant units."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import optax

from loplax.optim import dormant, initializers, utilities, wrapper
from loplax.units.groups import UnitGroup


def redo(
    inner: optax.GradientTransformation,
    units: Iterable[UnitGroup],
    *,
    threshold: float | jax.Array = 0.1,
    period: int | jax.Array = 1000,
    decay_rate: float | jax.Array = 0.0,
    initializer: initializers.Initializers = None,
    reset_inner: bool = True,
    key: jax.Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that dormant hidden units are re-initialised.

    Every ``period`` steps, the units of a layer with

    .. math::
      s_i = \frac{\operatorname{mean} |h_i|}
                 {\tfrac{1}{n} \sum_k \operatorname{mean} |h_k|} \le \tau

    start again: incoming weights drawn from ``initializer``, biases and scales at their
    initial values, outgoing weights 0, and the inner optimiser's state of these weights
    at its initial value. The mean runs over the batch and over all positions at which
    the unit is read. In a layer whose units are all silent, all are dormant. The means
    are bias-corrected; a unit whose activation is not finite keeps its mean and is not
    replaced then. It must be the last link of a chain.

    Args:
      inner: the optimiser of all parameters; any optax transformation.
      units: the ``UnitGroup`` records of the layers to maintain.
      threshold: :math:`\tau`, at least 0. May be traced.
      period: steps between two checks. May be traced.
      decay_rate: decay of the running mean of :math:`|h|`, in [0, 1). The paper's 0
        looks at the current batch alone; an online learner with batches of one example
        needs more. May be traced.
      initializer: as in `continual_backprop`.
      reset_inner: whether the inner state of replaced weights is reset.
      key: typed random key.

    Returns:
      A transformation whose ``update(grads, state, params, *, features)`` takes the
      activations ``[..., size]`` per group name.

    Raises:
      ValueError: as `continual_backprop`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from loplax import optim, units
      >>> apply = lambda params, x: jax.nn.relu(x @ params["w"]) @ params["v"]
      >>> w = jnp.ones((3, 4)).at[:, 1].set(-1.0)
      >>> params, x = {"w": w, "v": jnp.ones((4, 1))}, jnp.ones((16, 3))
      >>> tx = optim.redo(optax.sgd(0.0), units.find(apply, params, x), period=1,
      ...                 key=jax.random.key(0))
      >>> _, features = units.tap(apply)(params, x)
      >>> _, state = tx.update(params, tx.init(params), params, features=features)
      >>> state.replaced["w"].tolist()
      [False, True, False, False]

    References:
      Sokar et al., `The dormant neuron phenomenon in deep reinforcement learning
      <https://arxiv.org/abs/2302.12902>`_, 2023, Algorithm 1.
    """
    return dormant.below_layer_mean(
        inner,
        units,
        _activity,
        needs_features=True,
        threshold=threshold,
        period=period,
        decay_rate=decay_rate,
        initializer=initializer,
        reset_inner=reset_inner,
        key=key,
    )


def _activity(group, step: wrapper.Step) -> jax.Array:
    """Mean absolute activation of each unit, as its first reader sees it."""
    activation = step.features[next(iter(group.features))]
    return utilities.over_positions(jnp.mean, jnp.mean(jnp.abs(activation), axis=0))
