"""ReDo: recycle dormant units."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax.optim import checks, replacement
from loplax.units import checks as unit_checks


class RedoState(NamedTuple):
    """State of `redo`; every dict holds one array per group name.

    Attributes:
      inner: state of the inner optimiser; for the units in ``replaced`` it is reset
        when the next update begins.
      magnitude: running mean of |activation|, float32 ``[size]``.
      discount: ``decay_rate`` to the power of the steps in that mean, ``[size]``.
      replaced: units replaced at the last step, bool ``[size]``.
      count: steps taken, int32 scalar.
      key: typed random key; step ``count`` draws from ``fold_in(key, count)``.
    """

    inner: optax.OptState
    magnitude: dict[str, jax.Array]
    discount: dict[str, jax.Array]
    replaced: dict[str, jax.Array]
    count: jax.Array
    key: jax.Array


def redo(
    inner: optax.GradientTransformation,
    units,
    *,
    threshold=0.1,
    period: int | jax.Array = 1000,
    decay_rate=0.0,
    initializer=None,
    reset_inner: bool = True,
    key: jax.Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that dormant hidden units are re-initialised.

    Every ``period`` steps, the units of a layer with

    .. math::
      s_i = \frac{\operatorname{mean} |h_i|}
                 {\tfrac{1}{n} \sum_k \operatorname{mean} |h_k|} \le \tau

    start again: incoming weights drawn from ``initializer``, biases 0, norm scales 1,
    outgoing weights 0, and the inner optimiser's state of these weights at its initial
    value. In a layer whose units are all silent, all are dormant. The means are
    bias-corrected. It must be the last link of a chain.

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
    checks.number("threshold", threshold)
    checks.integer("period", period, 1)
    checks.number("decay_rate", decay_rate, 0, 1, below=True)
    checks.typed_key(key)
    period = jnp.asarray(period, jnp.int32)
    if initializer is None:
        initializer = jax.nn.initializers.he_uniform()
    groups = checks.groups(units)
    capacity = {group.name: group.size for group in groups}
    inner = optax.with_extra_args_support(inner)

    def init(params) -> RedoState:
        if jax.tree.leaves(params):  # not a placeholder of optax.tree.map_params
            unit_checks.check(groups, params)
        return RedoState(
            inner=inner.init(params),
            magnitude={group.name: jnp.zeros(group.size) for group in groups},
            discount={group.name: jnp.ones(group.size) for group in groups},
            replaced={group.name: jnp.zeros(group.size, bool) for group in groups},
            count=jnp.zeros((), jnp.int32),
            key=replacement.own(key),
        )

    def update(grads, state, params=None, *, features=None, **extra_args):
        checks.given_params(params)
        activations = checks.activations(groups, features)
        inner_state = state.inner
        if reset_inner:
            inner_state = replacement.reset_state(
                inner, inner_state, groups, state.replaced, params
            )
        updates, inner_state = inner.update(
            grads, inner_state, params, features=features, **extra_args
        )
        count = optax.safe_increment(state.count)
        due = count % period == 0
        magnitude, discount, ranking, number = {}, {}, {}, {}
        for name, old in state.magnitude.items():
            new = jnp.mean(jnp.abs(activations[name]), axis=0)
            old = jnp.where(jnp.isfinite(old), old, new)
            magnitude[name] = new + decay_rate * (old - new)
            discount[name] = decay_rate * state.discount[name]
            corrected = magnitude[name] / (1 - discount[name])
            finite = jnp.isfinite(corrected)
            # s <= tau without the division, so that an all-silent layer is all dormant.
            mean = jnp.mean(corrected, where=finite)
            dormant = due & finite & (corrected <= threshold * mean)
            ranking[name] = jnp.where(dormant, corrected, jnp.inf)
            number[name] = jnp.sum(dormant)

        chosen = replacement.choose(
            groups,
            params,
            initializer,
            capacity,
            rank=lambda magnitude: magnitude,
            operands=ranking,
            number=number,
            key=state.key,
            count=count,
        )
        updates = replacement.replace_weights(groups, chosen, params, updates)
        forget = lambda tree, value: {
            name: jnp.where(chosen.replaced[name], value, x) for name, x in tree.items()
        }
        state = RedoState(
            inner=inner_state,
            magnitude=forget(magnitude, 0),
            discount=forget(discount, 1),
            replaced=chosen.replaced,
            count=count,
            key=state.key,
        )
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)
