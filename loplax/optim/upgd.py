"""UPGD: perturbed gradient descent that protects useful weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import expected, keys, paths


class UpgdState(NamedTuple):
    """State of `upgd`, the first of its chain.

    Attributes:
      utility: running mean of minus gradient times weight, float32.
      count: steps taken, int32 scalar.
      key: typed random key; step ``count`` draws from ``fold_in(key, count)``.
    """

    utility: optax.Params
    count: jax.Array
    key: jax.Array


def upgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    noise_scale: float | jax.Array,
    weight_decay: float | jax.Array = 0.0,
    decay_rate: float | jax.Array = 0.9999,
    key: jax.Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Utility-based perturbed gradient descent.

    Useful weights are protected from the gradient and from noise, useless ones get
    both. For each weight, with its gradient :math:`g`, standard normal :math:`\xi` and
    the maximum over all weights of the network,

    .. math::
      U &\leftarrow \beta U - (1 - \beta) g w \\
      S &= \operatorname{sigmoid}(U / \max U) \\
      w &\leftarrow (1 - \alpha \lambda) w - \alpha (g + \sigma \xi) (1 - S)

    All weights are equally old, so the bias correction of :math:`U` cancels; inside a
    wrapper that replaces units a new weight counts as useless at first. A step at which
    some :math:`g w` is not finite is left out of :math:`U` for all weights. While no
    utility is positive, :math:`S` is 0 where it is negative and 1/2 where it is 0.

    These are the steps of the paper and of the code of its experiments, but that there
    the maximum is not corrected, so that :math:`S` is near 0 or 1 for the first
    :math:`1 / (1 - \beta)` steps. The authors' later, shorter code (their README)
    doubles all steps, so that a weight of utility 0 makes a whole one: give it twice
    the learning rate and half the weight decay. Its defaults are :math:`\beta` = 0.999
    and :math:`\sigma` = :math:`\lambda` = 0.001; ours of :math:`\beta` is that for
    input-permuted MNIST in the paper.

    By its definition it draws one normal number per weight and step, which on a CPU
    costs more than all the rest of a step with a small batch.

    Args:
      learning_rate: :math:`\alpha`, a number (may be traced) or a schedule.
      noise_scale: :math:`\sigma`, at least 0. May be traced.
      weight_decay: :math:`\lambda`, at least 0. May be traced.
      decay_rate: :math:`\beta`, in [0, 1). May be traced.
      key: typed random key.

    Returns:
      An optimiser; ``update`` needs ``params``.

    Raises:
      ValueError: for values out of range, or without ``params``.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> tx = optim.upgd(1.0, noise_scale=0.0, key=jax.random.key(0))
      >>> params, grads = {"w": jnp.array([0.0, -1.0])}, {"w": jnp.array([4.0, 4.0])}
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> print(updates["w"])  # -4 times 1 - sigmoid([0, 1])
      [-2.        -1.0757657]

    References:
      Elsayed & Mahmood, `Addressing loss of plasticity and catastrophic forgetting in
      continual learning <https://arxiv.org/abs/2404.00781>`_, ICLR 2024, Algorithm 1
      with first-order utility.
    """
    if not callable(learning_rate):
        checks.in_range("learning_rate", learning_rate)
    checks.in_range("noise_scale", noise_scale)
    checks.in_range("weight_decay", weight_decay)
    checks.in_range("decay_rate", decay_rate, 0, 1, below=True)
    checks.typed_key(key)

    def init(params):
        expected.arrays(params)
        utility = optax.tree.zeros_like(params, dtype=jnp.float32)
        return UpgdState(utility, jnp.zeros((), jnp.int32), keys.copy(key))

    def update(grads, state, params=None, **extra_args):
        del extra_args
        expected.required_params(params)

        wide = paths.at_least_float32  # in half precision products vanish
        now = jax.tree.map(lambda g, p: -wide(g) * wide(p), grads, params)
        known = jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), now)
        known = jnp.all(jnp.array(jax.tree.leaves(known)))

        def observe(utility, now):
            mixed = decay_rate * utility + (1 - decay_rate) * now
            return jnp.where(known, mixed, utility).astype(utility.dtype)

        utility = jax.tree.map(observe, state.utility, now)
        tiny = jnp.finfo(jnp.float32).tiny
        highest = jnp.maximum(optax.tree.max(utility), tiny)
        key_noise = keys.at_step(state.key, state.count, "noise")
        noise = optax.tree.random_like(key_noise, grads, jax.random.normal)

        def direction(grad, noise, utility, param):
            useless = jax.nn.sigmoid(-utility / highest)  # 1 - S
            moved = (grad + noise_scale * noise) * useless + weight_decay * wide(param)
            return moved.astype(grad.dtype)

        directions = jax.tree.map(direction, grads, noise, utility, params)
        count = optax.safe_increment(state.count)
        return directions, UpgdState(utility, count, state.key)

    return optax.chain(
        optax.GradientTransformationExtraArgs(init, update),
        optax.scale_by_learning_rate(learning_rate),
    )
