"""The one-cycle schedule, in each session anew."""

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import expected, placement


def one_cycle(
    inner: optax.GradientTransformation,
    *,
    pct_start: float | jax.Array = 0.3,
    div_factor: float | jax.Array = 25.0,
    final_div_factor: float | jax.Array = 1e4,
    argument: str = "progress",
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that its step size rises and falls once in a session.

    It multiplies the updates, and so the learning rate, by

    .. math::
      \begin{cases}
        c(1/d, 1; p / s) & p < s \\
        c(1, 1/(d e); (p - s) / (1 - s)) & p \ge s
      \end{cases}
      \qquad c(a, b; t) = b + \frac{a - b}{2} (1 + \cos \pi t)

    with the part :math:`p` of the session's steps that are made, at most 1. So it is
    ``optax.cosine_onecycle_schedule``, which begins again by itself, and whose numbers
    may be traced. PyTorch's ``OneCycleLR`` also cycles the momentum by default; this
    does not.

    Args:
      inner: the optimiser; its learning rate is the largest.
      pct_start: :math:`s`, the part of the steps in which it rises, 0 to 1.
      div_factor: :math:`d`, the largest over the first rate, at least 1.
      final_div_factor: :math:`e`, the first over the last rate, at least 1.
      argument: name of the further argument of ``update`` with :math:`p`, a scalar.

    Returns:
      The transformation; its state is that of ``inner``.

    Raises:
      ValueError: for values out of range, and in ``update``, without the argument.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> tx = optim.one_cycle(optax.sgd(1.0), pct_start=0.5, div_factor=4.0)
      >>> params = jnp.array(0.0)
      >>> state = tx.init(params)
      >>> for progress in (0.0, 0.5):
      ...   updates, state = tx.update(jnp.array(1.0), state, params, progress=progress)
      ...   print(float(updates))
      -0.25
      -1.0

    References:
      Smith & Topin, `Super-convergence <https://arxiv.org/abs/1708.07120>`_, 2018; with
      these defaults Harun & Kanan, `Overcoming the stability gap in continual learning
      <https://arxiv.org/abs/2306.01904>`_, TMLR 2024.
    """
    checks.in_range("pct_start", pct_start, 0, 1)
    checks.in_range("div_factor", div_factor, 1)
    checks.in_range("final_div_factor", final_div_factor, 1)
    inner = expected.optimizer(inner)
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)

    def update(grads, state, params=None, **extra_args):
        progress = extra_args.pop(argument, None)
        if progress is None:
            raise ValueError(
                f"update needs {argument}=..., the part of the steps made."
            )
        progress = jnp.clip(jnp.asarray(progress, jnp.float32), 0, 1)
        with placement.changing("one_cycle"):
            updates, state = inner.update(grads, state, params, **extra_args)
        rising = _cosine(first, 1, progress, pct_start)
        falling = _cosine(1, last, progress - pct_start, 1 - pct_start)
        factor = jnp.where(progress < pct_start, rising, falling)
        return jax.tree.map(lambda u: (factor * u).astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _cosine(start, end, made, all_) -> jax.Array:
    """From one value to another, at ``made`` of ``all_`` steps."""
    part = made / jnp.maximum(all_, jnp.finfo(jnp.float32).tiny)
    return end + (start - end) / 2 * (1 + jnp.cos(jnp.pi * part))
