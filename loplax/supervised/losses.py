"""Losses and measures of classifiers, of single examples or batches."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log-likelihood of the labels, in nats.

    Args:
      logits: ``[..., classes]``.
      labels: integers ``[...]``.

    Returns:
      ``[...]``.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 where the largest logit is the label's, else 0.

    Args:
      logits: ``[..., classes]``.
      labels: integers ``[...]``.

    Returns:
      float32 ``[...]``.
    """
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def masked(measure):
    """Lets a measure look at some classes only.

    Args:
      measure: ``(logits, labels) -> [...]``.

    Returns:
      ``(logits, (labels, classes)) -> [...]`` with the classes that count, bool
      ``[classes]``: the logits of the others are taken for -infinity.

    Example:
      >>> import jax.numpy as jnp
      >>> logits, seen = jnp.array([1.0, 3.0, 2.0]), jnp.array([True, False, True])
      >>> float(masked(accuracy)(logits, (2, seen)))
      1.0
    """

    def masked_measure(logits, targets):
        labels, classes = targets
        return measure(jnp.where(classes, logits, -jnp.inf), labels)

    return masked_measure
