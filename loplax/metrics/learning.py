"""What one step of learning does: to its own examples, and to all others."""

import jax
import jax.numpy as jnp

from loplax.metrics import matrices


def plasticity(loss_before: jax.Array, loss_after: jax.Array) -> jax.Array:
    r"""Fraction of the loss that a step takes away, on the example it learned from.

    .. math::
      \max\left(0, \min\left(1, 1 - \frac{L_{after}}{L_{before}}\right)\right)

    Without any loss before the step it is 1 if there is none after it, else 0: the
    limit of the paper's formula, whose denominator is at least a small positive number.

    Args:
      loss_before: losses before the step, ``[...]``, not negative.
      loss_after: losses of the same examples after the step, ``[...]``.

    Returns:
      In [0, 1], ``[...]``: the paper averages it over the examples of a task.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> plasticity(jnp.array([4.0, 4.0, 4.0]), jnp.array([1.0, 0.0, 9.0])).tolist()
      [0.75, 1.0, 0.0]

    References:
      Elsayed & Mahmood, `Addressing loss of plasticity and catastrophic forgetting in
      continual learning <https://arxiv.org/abs/2404.00781>`_, 2024.
    """
    before, after = _alike(loss_before, loss_after)
    ratio = after / jnp.where(before == 0, 1, before)
    ratio = jnp.where(before == 0, jnp.sign(after), ratio)
    finite = jnp.isfinite(before) & jnp.isfinite(after)
    return jnp.where(finite, jnp.clip(1 - ratio, 0, 1), jnp.nan)


def churn(logits_before: jax.Array, logits_after: jax.Array) -> jax.Array:
    r"""How far a step moves the predictions for examples that it did not learn from.

    .. math::
      \frac{1}{n} \sum_i \sum_c p_{ic} \log \frac{p_{ic}}{q_{ic}}

    with p and q the softmax of the logits before and after the step: the mean
    Kullback-Leibler divergence, in nats. The code of the paper takes the cross entropy
    instead, which adds the entropy of p. Logits of -inf exclude classes.

    Args:
      logits_before: on held-out inputs, ``[..., classes]``.
      logits_after: on the same inputs after the step, ``[..., classes]``.

    Returns:
      Scalar, at least 0 (up to rounding).

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> before, after = jnp.array([[0.5, 0.5]]), jnp.array([[0.75, 0.25]])
      >>> round(float(churn(jnp.log(before), jnp.log(after))), 4)  # log(4 / 3) / 2
      0.1438

    References:
      Tang et al., `Mitigating plasticity loss in continual reinforcement learning by
      reducing churn <https://arxiv.org/abs/2506.00592>`_, 2025.
    """
    log_p, log_q = map(jax.nn.log_softmax, _alike(logits_before, logits_after))
    p = jnp.exp(log_p)
    # Not p > 0, which would leave out NaN.
    return jnp.mean(jnp.sum(p * (log_p - log_q), axis=-1, where=p != 0))


def value_churn(outputs_before: jax.Array, outputs_after: jax.Array) -> jax.Array:
    """Mean of (f_after(x) - f_before(x))^2: the churn of values and regressions.

    Args:
      outputs_before: on held-out inputs, ``[...]``.
      outputs_after: on the same inputs after the step, ``[...]``.

    Returns:
      Scalar.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> float(value_churn(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
      2.0

    References:
      Tang & Berseth, `Improving deep reinforcement learning by reducing the chain
      effect of value and policy churn <https://arxiv.org/abs/2409.04792>`_, 2024.
    """
    before, after = _alike(outputs_before, outputs_after)
    return jnp.mean((after - before) ** 2)


def _alike(before: jax.Array, after: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both in at least float32; [n] and [n, 1] would broadcast to all pairs."""
    if jnp.shape(before) != jnp.shape(after):
        raise ValueError(
            "before and after must have the same shape, got "
            f"{jnp.shape(before)} and {jnp.shape(after)}."
        )
    return matrices.at_least_float32(before), matrices.at_least_float32(after)
