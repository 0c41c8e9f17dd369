"""MESU: weights with an uncertainty, which says how far each may still move."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from loplax import checks
from loplax.optim import expected, paths


class Gaussian(NamedTuple):
    r"""Independent normal distributions, one for every weight.

    Attributes:
      mean: :math:`\mu`, a tree like the parameters.
      deviation: :math:`\sigma`, another one of the same shapes.
    """

    mean: Any
    deviation: Any


def gaussian(params: Any, deviation: Any) -> Gaussian:
    """Puts an uncertainty on parameters.

    Args:
      params: the parameters, of which copies become the means.
      deviation: standard deviation of all weights, above 0, or a tree of them like the
        parameters. A number may be traced.

    Returns:
      The distributions, in the types of the parameters.

    Raises:
      ValueError: for a deviation that is not above 0, or not in the type of its
        parameter, for integers, or for a tree that does not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from loplax import optim
      >>> optim.gaussian({"w": jnp.zeros(2)}, 0.5).deviation["w"].tolist()
      [0.5, 0.5]
    """
    means = jax.tree.map(jnp.copy, params)
    if jax.tree_util.treedef_is_leaf(jax.tree.structure(deviation)):
        deviation = jax.tree.map(lambda p: deviation, means)
    _require_form("deviation", deviation, means)
    return Gaussian(means, jax.tree.map(_deviation, means, deviation))


def _deviation(mean: jax.Array, deviation: Any) -> jax.Array:
    """A copy like the mean, in which it must not be 0: from there nothing moves it."""
    kind = mean.dtype
    checks.in_range("deviation", deviation, above=True, scalar=False)
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"an uncertainty is of floating-point parameters, got {kind}.")
    if not isinstance(deviation, jax.core.Tracer):
        with np.errstate(over="ignore"):
            rounded = np.asarray(deviation).astype(kind)
        checks.in_range("deviation", rounded, float(jnp.finfo(kind).tiny), scalar=False)
    return jnp.array(jnp.broadcast_to(deviation, mean.shape), kind)


def sample(weights: Gaussian, key: jax.Array) -> Any:
    r"""Draws parameters, through which gradients pass to both halves.

    .. math::
      \omega = \mu + \sigma \epsilon, \qquad \epsilon \sim \mathcal{N}(0, 1)

    Args:
      weights: the distributions.
      key: typed key, used up.

    Returns:
      A tree like ``weights.mean``.

    Raises:
      ValueError: for what is no `Gaussian`, or an untyped key.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from loplax import optim
      >>> weights = optim.gaussian({"w": jnp.ones(1000)}, 0.1)
      >>> drawn = optim.sample(weights, jax.random.key(0))["w"]
      >>> print(f"{drawn.mean():.2f} {drawn.std():.2f}")
      0.99 0.10
    """
    _require_gaussian("weights", weights)
    checks.typed_key(key)
    noise = optax.tree.random_like(key, weights.mean)
    draw = lambda mean, deviation, epsilon: mean + deviation * epsilon
    return jax.tree.map(draw, weights.mean, weights.deviation, noise)


def mesu(
    window: float | jax.Array,
    *,
    prior_mean: float | jax.Array = 0.0,
    prior_deviation: float | jax.Array = 1.0,
    clip: float | jax.Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Metaplasticity from synaptic uncertainty: learns, and forgets, by Bayes' rule.

    Each weight is a normal distribution. With the loss :math:`C` of a minibatch, a
    **sum** over its examples, expected over weights :math:`\omega = \mu + \sigma
    \epsilon`,

    .. math::
      \Delta \mu &= - \sigma^2 \frac{\partial C}{\partial \mu}
        + \frac{\sigma^2}{N \sigma_p^2} (\mu_p - \mu) \\
      \Delta \sigma &= - \frac{\sigma^2}{2} \frac{\partial C}{\partial \sigma}
        + \frac{\sigma}{2 N \sigma_p^2} (\sigma_p^2 - \sigma^2)

    So what many examples depend on becomes sure, and moves little; what nothing depends
    on goes back to the prior. No task has to have an end. Where :math:`C` has the
    curvature :math:`h` at every step, :math:`\sigma` ends at the posterior of
    :math:`N` minibatches,

    .. math::
      \sigma^{-2} = N h + \sigma_p^{-2}.

    It is the whole optimiser: no learning rate is needed, and one that follows leaves
    this fixed point as it is. It approximates Newton's method by the diagonal, and so
    is stable only while :math:`\sigma^2 h` is well below 1. The authors' runs have
    minibatches of one example, or bound the steps by ``clip``.

    Args:
      window: :math:`N`, the minibatches that are remembered, above 0; the larger, the
        less is forgotten. May be traced, as all numbers here.
      prior_mean: :math:`\mu_p`.
      prior_deviation: :math:`\sigma_p`, above 0.
      clip: no step is longer than this times :math:`\sigma`, in (0, 1), so that
        :math:`\sigma` does not get to 0, which it would not leave. Default: none is
        bounded.

    Returns:
      The transformation of gradients for a `Gaussian`, without state. ``update`` needs
      ``params``, and takes ``examples=``, above 0, by which gradients of a mean over so
      many examples become those of a sum; by default 1.

    Raises:
      ValueError: for numbers out of range; in ``update``, for parameters or gradients
        that are no `Gaussian` or not alike, and for parameters of half precision, in
        which steps of :math:`\sigma / 2 N` are rounded away.

    Example:
      One weight, of which every minibatch says that it is 3 with variance 1:

      >>> import jax, jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> loss = lambda weights, key: 0.5 * (optim.sample(weights, key) - 3.0) ** 2
      >>> tx = optim.mesu(window=99)
      >>> def step(weights, key):
      ...   keys = jax.random.split(key, 100)  # the expectation over weights
      ...   mean = lambda w: jax.vmap(loss, (None, 0))(w, keys).mean()
      ...   updates, _ = tx.update(jax.grad(mean)(weights), (), weights)
      ...   return optax.apply_updates(weights, updates), None
      >>> weights = optim.gaussian(jnp.array(0.0), 0.5)
      >>> weights, _ = jax.lax.scan(
      ...   step, weights, jax.random.split(jax.random.key(0), 1000)
      ... )
      >>> print(f"{weights.mean:.2f} {weights.deviation:.2f}")  # 1 / sqrt(99 + 1)
      2.97 0.10

    References:
      Bonnet et al., `Bayesian continual learning and forgetting in neural networks
      <https://doi.org/10.1038/s41467-025-64601-w>`_, Nature Communications 2025
      (`arXiv <https://arxiv.org/abs/2504.13569>`_); ``clip`` is in the authors' code
      for CIFAR.
    """
    checks.in_range("window", window, above=True)
    checks.in_range("prior_mean", prior_mean, -float("inf"))
    checks.in_range("prior_deviation", prior_deviation, above=True)
    if clip is not None:
        checks.in_range("clip", clip, 0, 1, above=True, below=True)
    trust = 1 / (window * prior_deviation**2)  # in the prior, at each step

    def moves(grads, weights, examples):
        """The steps of one leaf, in its own precision or float32."""
        wide = (paths.at_least_float32(x) for x in (*weights, *grads))
        mean, deviation, slope_mean, slope_deviation = wide
        variance = deviation**2
        to_prior = trust * (prior_mean - mean)
        wider = trust * (prior_deviation**2 - variance)
        move_mean = variance * (to_prior - examples * slope_mean)
        move_deviation = deviation * wider - variance * examples * slope_deviation
        return move_mean, move_deviation / 2

    def update(grads, state, params=None, *, examples=1, **extra_args):
        del extra_args
        expected.required_params(params)
        _require_gaussian("params", params)
        _require_gaussian("grads", grads)
        _require_form("grads", grads, params)
        checks.in_range("examples", examples, above=True)
        weights = paths.by_path(params).leaves
        expected.alike("grads", grads, weights)
        for path, leaf in weights.items():
            expected.wide("uncertain weights", path, leaf)

        def one(mean, deviation, slope_mean, slope_deviation):
            slopes = slope_mean, slope_deviation
            found = moves(slopes, (mean, deviation), examples)
            if clip is not None:
                most = clip * jnp.abs(deviation)
                found = tuple(jnp.clip(move, -most, most) for move in found)
            kinds = (slope.dtype for slope in slopes)
            return Gaussian(*(x.astype(k) for x, k in zip(found, kinds, strict=True)))

        pairs = jax.tree.map(one, *params, *grads)
        is_pair = lambda leaf: isinstance(leaf, Gaussian)
        pick = lambda i: jax.tree.map(lambda pair: pair[i], pairs, is_leaf=is_pair)
        return Gaussian(pick(0), pick(1)), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _require_gaussian(name: str, tree: Any) -> None:
    if not isinstance(tree, Gaussian):
        raise ValueError(
            f"{name} must have an uncertainty, as optim.gaussian(params, deviation) "
            f"and its gradients have, got {type(tree).__name__}."
        )


def _require_form(name: str, tree: Any, like: Any) -> None:
    found, wanted = jax.tree.structure(tree), jax.tree.structure(like)
    if found != wanted:  # type: ignore[operator]
        raise ValueError(f"{name} must be a tree like params, {wanted}, got {found}.")
