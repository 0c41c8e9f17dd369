"""Selective weight reinitialization: re-draw the least useful single weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks, sharding
from loplax.optim import expected, initializers, keys, paths, placement, replacement

UTILITIES = {
    "gradient": lambda key, grad, weight: jnp.abs(grad * weight),
    "magnitude": lambda key, grad, weight: jnp.abs(weight),
    "random": lambda key, grad, weight: jax.random.uniform(
        key, weight.shape, weight.dtype
    ),
}


class AverageUtility(NamedTuple):
    """Running means of the utilities, as far as there are any to keep.

    Attributes:
      total: per parameter the sum of its utilities, weighted by the powers of the decay
        rate, ``[1, *shape]``: by the axis more than the parameter has, wrappers that
        reset the state of single weights know that this is none.
      weight: per parameter the sum of these weights, a scalar: all utilities of a
        tensor start again together.
    """

    total: optax.Params
    weight: optax.Params


class SelectiveWeightReinitializationState(NamedTuple):
    """State of `selective_weight_reinitialization`.

    Attributes:
      inner: state of the inner optimiser.
      initial: the value at ``init`` of each parameter with fewer than two axes, and 0
        in the place of each weight tensor.
      average: running means of the utilities; empty where there are none.
      count: steps taken, int32 scalar.
      key: typed random key; step ``count`` draws from ``fold_in(key, count)``.
    """

    inner: optax.OptState
    initial: optax.Params
    average: AverageUtility
    count: jax.Array
    key: jax.Array


def selective_weight_reinitialization(
    inner: optax.GradientTransformation,
    *,
    factor: float | jax.Array,
    period: int | jax.Array,
    utility: str = "gradient",
    pruning: str = "proportional",
    decay_rate: float | jax.Array = 0.0,
    initializer: initializers.Initializers = None,
    key: jax.Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that the least useful weights are drawn again.

    Every ``period`` steps, after the inner optimiser's step, in each parameter tensor
    of :math:`n` weights :math:`w` with gradients :math:`g` (those of the step) and
    utilities :math:`u`

    .. math::
      u = |g w| \quad \text{("gradient")} \qquad u = |w| \quad \text{("magnitude")}
      \qquad u \sim \operatorname{uniform}(0, 1) \quad \text{("random")}

    the :math:`\lfloor \rho n \rfloor` weights of lowest utility and, with probability
    the remaining fraction, one more (``pruning="proportional"``), or those with
    :math:`u \le \rho \operatorname{mean}(u)` (``"threshold"``) start again: weights are
    drawn from ``initializer``; biases and norm scales, tensors with fewer than two
    axes, return to their values at ``init``. With a ``decay_rate`` :math:`\beta`, the
    mean over the steps since the tensor's last re-initialisation takes the place of
    :math:`u`, the utility of :math:`k` steps ago with the weight :math:`\beta^k`.

    Utilities, pruning, and that the averages of a whole tensor start again when one of
    its weights does, are those of the authors' code for the paper (an earlier version,
    for SGD only, adds up fractions of a weight at every step and spares young weights);
    so is that the inner optimiser's state is left as it is. Their averages lack the
    bias correction, which changes nothing: it is common to a tensor. A utility that is
    not finite is never the lowest, and a step with one is left out of the average.

    It must be the last link of a chain. Where parameters have half precision the
    updates are float32, so that a re-drawn weight is as the initialiser draws it.

    Args:
      inner: the optimiser of all parameters.
      factor: :math:`\rho`, at least 0; below 1 if proportional. May be traced, which
        is slower.
      period: steps between two re-initialisations. May be traced.
      utility: ``"gradient"``, ``"magnitude"`` or ``"random"``.
      pruning: ``"proportional"`` or ``"threshold"``.
      decay_rate: :math:`\beta`, in [0, 1); 0 takes the utility of the step alone, and
        keeps no average. Averages of ``"random"`` would be as random, and are refused.
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
    checks.in_range("decay_rate", decay_rate, 0, 1, below=True)
    is_due = expected.period(period)
    checks.typed_key(key)
    averaged = isinstance(decay_rate, jax.core.Tracer) or decay_rate > 0
    if averaged and utility == "random":
        raise ValueError(
            f"decay_rate must be 0 for random utilities, got {decay_rate}."
        )
    # Of a fraction known beforehand only the lowest weights need be sorted.
    most = 1.0 if isinstance(factor, jax.core.Tracer) else float(factor)
    inner = expected.optimizer(inner)

    def init(params):
        expected.arrays(params)
        for path, leaf in paths.by_path(params).leaves.items():
            if paths.is_weight(leaf):
                initializers.for_path(initializer, path)
        keep = lambda p: jnp.zeros((), p.dtype) if paths.is_weight(p) else jnp.copy(p)
        zero = lambda p: jnp.zeros_like(paths.at_least_float32(p))[None]
        empty = AverageUtility((), ())
        if averaged:
            none = jax.tree.map(lambda p: jnp.zeros((), jnp.float32), params)
            empty = AverageUtility(jax.tree.map(zero, params), none)
        return SelectiveWeightReinitializationState(
            inner=inner.init(params),
            initial=jax.tree.map(keep, params),
            average=empty,
            count=jnp.zeros((), jnp.int32),
            key=keys.copy(key),
        )

    def measure(key, grad, weight):
        wide = paths.at_least_float32
        return UTILITIES[utility](key, wide(grad), wide(weight))

    def observe(average, grads, params):
        """The averages, of each tensor whose utilities now are all numbers."""

        def mix(total, weight, grad, param):
            now = measure(None, grad, param)[None]
            known = jnp.all(jnp.isfinite(now))
            pick = lambda new, old: jnp.where(known, new, old).astype(old.dtype)
            total = pick(decay_rate * total + now, total)
            return AverageUtility(total, pick(decay_rate * weight + 1, weight))

        mixed = jax.tree.map(mix, *average, grads, params)
        is_pair = lambda x: isinstance(x, AverageUtility)
        part = lambda i: jax.tree.map(lambda pair: pair[i], mixed, is_leaf=is_pair)
        return AverageUtility(part(0), part(1))

    def choose(key, factor, grads, params, initial, total, weight):
        """Per path, which weights start again, and the tensor as it starts."""
        chosen = {}
        for path, param in params.items():
            own = lambda purpose, path=path: keys.named(key, f"{purpose} of {path}")
            if averaged:
                useful = total[path][0] / weight[path]
            else:
                useful = measure(own("utility"), grads[path], param)
            # What is not a number would be the lowest of all.
            useful = jnp.where(jnp.isfinite(useful), useful, jnp.inf)
            low = jnp.zeros(param.shape, bool)
            if param.size:
                low = PRUNINGS[pruning](useful, factor, own("number"), most)
            value = initial[path]
            if paths.is_weight(param):
                draw = initializers.for_path(initializer, path)
                value = draw(own("weights"), param.shape, param.dtype)
            chosen[path] = low, value
        return chosen

    def update(grads, state, params=None, **extra_args):
        expected.required_params(params)
        placement.require_exact(params)
        updates, inner_state = inner.update(grads, state.inner, params, **extra_args)
        count = optax.safe_increment(state.count)
        after, average = optax.apply_updates(params, updates), state.average
        if averaged:
            average = observe(average, grads, after)
        trees = (grads, after, state.initial, *average)
        leaves = [paths.by_path(tree).leaves for tree in trees]
        chosen = keys.when(
            is_due(count), choose, state.key, count, "resets", factor, *leaves
        )
        old, new = paths.by_path(params).leaves, paths.by_path(updates)
        for path, (again, value) in chosen.items():
            # Rounded to half precision, the change would not lead to the value.
            change = replacement.difference(value, old[path])
            new.leaves[path] = jnp.where(again, change, new.leaves[path])
        if averaged:
            begun = new.treedef.unflatten([jnp.any(chosen[p][0]) for p in new.leaves])
            restart = lambda begun, x: jnp.where(begun, 0, x)
            average = (jax.tree.map(restart, begun, tree) for tree in average)
            average = AverageUtility(*average)
        state = state._replace(inner=inner_state, average=average, count=count)
        return new.unflatten(), state

    return optax.GradientTransformationExtraArgs(init, update)


def _proportional(utility, factor, key, most) -> jax.Array:
    number = jnp.floor(factor * utility.size + jax.random.uniform(key, (), jnp.float32))
    capacity = min(utility.size, int(most * utility.size) + 1)
    low, _ = replacement.lowest(sharding.whole(utility).ravel(), number, capacity)
    return sharding.laid(low.reshape(utility.shape), jax.typeof(utility).sharding)


def _threshold(utility, factor, key, most) -> jax.Array:
    del key, most
    return utility <= factor * jnp.mean(utility, where=jnp.isfinite(utility))


PRUNINGS = {"proportional": _proportional, "threshold": _threshold}
