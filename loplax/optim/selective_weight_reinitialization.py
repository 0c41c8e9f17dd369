"""Selective weight reinitialization: re-draw the least useful single weights."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import branch, sharding
from loplax.optim import checks, keys, paths, replacement

UTILITIES = {
    "gradient": lambda grad, weight: jnp.abs(grad * weight),
    "magnitude": lambda grad, weight: jnp.abs(weight),
}


class SelectiveWeightReinitializationState(NamedTuple):
    """State of `selective_weight_reinitialization`.

    Attributes:
      inner: state of the inner optimiser.
      initial: the value at ``init`` of each parameter with fewer than two axes, and 0
        in the place of each weight tensor.
      count: steps taken, int32 scalar.
      key: typed random key; step ``count`` draws from ``fold_in(key, count)``.
    """

    inner: optax.OptState
    initial: optax.Params
    count: jax.Array
    key: jax.Array


def selective_weight_reinitialization(
    inner: optax.GradientTransformation,
    *,
    factor,
    period: int | jax.Array,
    utility: str = "gradient",
    pruning: str = "proportional",
    initializer=None,
    key: jax.Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that the least useful weights are drawn again.

    Every ``period`` steps, after the inner optimiser's step, in each parameter tensor
    of :math:`n` weights :math:`w` with gradients :math:`g` (those of the step) and
    utilities :math:`u`

    .. math::
      u = |g w| \quad \text{("gradient")} \qquad u = |w| \quad \text{("magnitude")}

    the :math:`\lfloor \rho n \rfloor` weights of lowest utility and, with probability
    the remaining fraction, one more (``pruning="proportional"``), or those with
    :math:`u \le \rho \operatorname{mean}(u)` (``"threshold"``) start again: weights are
    drawn from ``initializer``; biases and norm scales, tensors with fewer than two
    axes, return to their values at ``init``. The inner optimiser's state is left as it
    is, as in the authors' code. It must be the last link of a chain.

    Args:
      inner: the optimiser of all parameters.
      factor: :math:`\rho`, at least 0; below 1 if proportional. May be traced, which
        is slower.
      period: steps between two re-initialisations. May be traced.
      utility: ``"gradient"`` or ``"magnitude"``.
      pruning: ``"proportional"`` or ``"threshold"``.
      initializer: distribution of the weights, as in ``jax.nn.initializers`` ``(key,
        shape, dtype) -> array``, or one per path of a weight tensor. Default:
        ``he_uniform()``.
      key: typed random key.

    Returns:
      The transformation; ``update`` needs ``params``.

    Raises:
      ValueError: for values out of range, an unknown name or a weight tensor without
        initialiser, or without ``params``.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> tx = optim.selective_weight_reinitialization(
      ...   optax.sgd(0.0), factor=0.5, period=1, utility="magnitude",
      ...   initializer=jax.nn.initializers.constant(7.0), key=jax.random.key(0))
      >>> params = {"w": jnp.array([[1.0, -4.0], [3.0, 2.0]])}
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [[7.0, -4.0], [3.0, 7.0]]

    References:
      Hernandez-Garcia et al., `Reinitializing weights vs units for maintaining
      plasticity in neural networks <https://arxiv.org/abs/2508.00212>`_, CoLLAs 2025.
    """
    checks.one_of("utility", utility, list(UTILITIES))
    checks.one_of("pruning", pruning, list(PRUNINGS))
    high = 1 if pruning == "proportional" else jnp.inf
    checks.in_range("factor", factor, 0, high, below=True)
    checks.whole("period", period, 1)
    checks.typed_key(key)
    if initializer is None:
        initializer = jax.nn.initializers.he_uniform()
    # Of a fraction known beforehand only the lowest weights need be sorted.
    most = 1.0 if isinstance(factor, jax.core.Tracer) else float(factor)
    period = jnp.asarray(period, jnp.int32)
    inner = optax.with_extra_args_support(inner)

    def draw_for(path):
        if not isinstance(initializer, Mapping):
            return initializer
        if path not in initializer:
            raise ValueError(f"initializer: nothing for {path!r}; give it one.")
        return initializer[path]

    def init(params):
        for path, leaf in paths.by_path(params).leaves.items():
            if paths.is_weight(leaf):
                draw_for(path)
        keep = lambda p: jnp.zeros((), p.dtype) if paths.is_weight(p) else jnp.copy(p)
        return SelectiveWeightReinitializationState(
            inner=inner.init(params),
            initial=jax.tree.map(keep, params),
            count=jnp.zeros((), jnp.int32),
            key=keys.copy(key),
        )

    def choose(key, factor, grads, weights, initial):
        """Per path, which weights start again, and the tensor as it starts."""
        chosen = {}
        for i, (path, weight) in enumerate(weights.items()):
            key_number, key_draw = jax.random.split(jax.random.fold_in(key, i))
            useful = UTILITIES[utility](grads[path], weight)
            low = PRUNINGS[pruning](useful, factor, key_number, most)
            value = initial[path]
            if paths.is_weight(weight):
                value = draw_for(path)(key_draw, weight.shape, weight.dtype)
            chosen[path] = low, value
        return chosen

    def update(grads, state, params=None, **extra_args):
        checks.required_params(params)
        updates, inner_state = inner.update(grads, state.inner, params, **extra_args)
        count = optax.safe_increment(state.count)
        due = count % period == 0
        chosen = branch.cond(
            due,
            choose,
            None,
            keys.at_step(state.key, count, "noise"),
            jnp.asarray(factor),
            paths.by_path(grads).leaves,
            paths.by_path(optax.apply_updates(params, updates)).leaves,
            paths.by_path(state.initial).leaves,
        )
        old, new = paths.by_path(params).leaves, paths.by_path(updates)
        for path, (again, value) in chosen.items():
            change = replacement.difference(value, old[path])
            new.leaves[path] = jnp.where(again, change, new.leaves[path])
        state = state._replace(inner=inner_state, count=count)
        return new.unflatten(), state

    return optax.GradientTransformationExtraArgs(init, update)


def _proportional(utility, factor, key, most) -> jax.Array:
    number = jnp.floor(factor * utility.size + jax.random.uniform(key, (), jnp.float32))
    # What is not a number would be the lowest of all.
    whole = sharding.whole(utility).ravel()
    scores = jnp.where(jnp.isnan(whole), jnp.inf, whole)
    capacity = min(utility.size, int(most * utility.size) + 1)
    low = replacement.lowest(scores, number, capacity)[0].reshape(utility.shape)
    return sharding.laid(low, jax.typeof(utility).sharding)


def _threshold(utility, factor, key, most) -> jax.Array:
    del key, most
    return utility <= factor * jnp.mean(utility)


PRUNINGS = {"proportional": _proportional, "threshold": _threshold}
