"""Dynamic soft targets: what is not the label stays near what is predicted already."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.supervised import learning
from loplax.supervised.problem import Keeper, Problem, Seen, TrainState

NAME = "soft_targets"
WEIGHTINGS = ("examples", "stream")


class Predicted(NamedTuple):
    """What was predicted of the examples of each class, where rightly, in a session.

    Attributes:
      sums: of their probabilities, float32 ``[classes, classes]``.
      counts: how many they were, float32 ``[classes]``.
    """

    sums: jax.Array
    counts: jax.Array

    @property
    def means(self) -> jax.Array:
        """``[classes, classes]``; uniform for a class without examples."""
        many = self.counts[:, None]
        uniform = jnp.full_like(self.sums, 1 / self.counts.size)
        return jnp.where(many > 0, self.sums / jnp.maximum(many, 1), uniform)


def soft_targets(
    probabilities: jax.Array, labels: jax.Array, means: jax.Array, old: jax.Array
) -> jax.Array:
    r"""Targets that keep the shape of what a network predicts.

    With probabilities :math:`p`, predicted class :math:`\hat y`, label :math:`y` and
    :math:`K` classes, the target is :math:`v / \sum_k v_k` of

    .. math::
      v = M_y \text{ if } y \text{ is old, else } p; \quad
      v_{\hat y} \leftarrow 1 / K; \quad v_y \leftarrow 1

    Args:
      probabilities: :math:`p`, ``[..., classes]``; no gradient passes.
      labels: :math:`y`, integers ``[...]``.
      means: :math:`M`, the mean probabilities of each class, ``[classes, classes]``.
      old: which classes are of earlier sessions, bool ``[classes]``.

    Returns:
      The targets, ``[..., classes]``; they sum to 1, and the label's is the largest.

    Example:
      >>> p = jnp.array([0.25, 0.5, 0.125, 0.125])
      >>> uniform, none = jnp.full((4, 4), 0.25), jnp.zeros(4, bool)
      >>> (soft_targets(p, jnp.array(0), uniform, none) * 3).tolist()
      [2.0, 0.5, 0.25, 0.25]

    References:
      Harun & Kanan, `Overcoming the stability gap in continual learning
      <https://arxiv.org/abs/2306.01904>`_, TMLR 2024; the formula is that of the
      authors' code.
    """
    number = probabilities.shape[-1]
    mean = jnp.where(old[labels][..., None], means[labels], probabilities)
    predicted = jax.nn.one_hot(jnp.argmax(probabilities, -1), number, dtype=bool)
    is_label = jax.nn.one_hot(labels, number, dtype=bool)
    value = jnp.where(is_label, 1.0, jnp.where(predicted, 1 / number, mean))
    return jax.lax.stop_gradient(value / jnp.sum(value, axis=-1, keepdims=True))


def add(
    known: Predicted, probabilities: jax.Array, labels: jax.Array, counts: jax.Array
) -> Predicted:
    """Adds the examples of a minibatch that are predicted rightly.

    Args:
      known: the sums so far.
      probabilities: ``[examples, classes]``.
      labels: integers ``[examples]``.
      counts: which examples count, bool ``[examples]``.

    Returns:
      The new sums.
    """
    right = counts & (jnp.argmax(probabilities, axis=-1) == labels)
    ones = jax.nn.one_hot(labels, known.counts.size) * right[:, None]
    return Predicted(known.sums + ones.T @ probabilities, known.counts + ones.sum(0))


def objective(
    problem: Problem, *, weighting: str = "examples"
) -> Callable[[TrainState, Seen], jax.Array]:
    """The cross-entropy with the soft targets, of the means before the step.

    Args:
      problem: the problem; `keeper` is among its keepers.
      weighting: ``"examples"``, all that count alike, as the authors have it; or
        ``"stream"``, as ``Stream.weights`` says.

    Returns:
      ``Problem.objective``.

    Raises:
      ValueError: for an unknown weighting, or a stream without classes in sessions.
    """
    checks.one_of("weighting", weighting, WEIGHTINGS)
    _check(problem)

    def loss(state: TrainState, seen: Seen) -> jax.Array:
        logits, labels = seen.outputs, seen.targets
        old = problem.stream.old_classes(state.stream)
        means = state.memory[NAME].means
        targets = soft_targets(jax.nn.softmax(logits), labels, means, old)
        values = optax.softmax_cross_entropy(logits, targets)
        if weighting == "stream":
            return learning.mean(problem, state, seen.item, values)
        counts = learning.counted(problem, state, seen)
        return jnp.sum(values, where=counts) / jnp.maximum(jnp.sum(counts), 1)

    return loss


def keeper(problem: Problem) -> Keeper:
    """Keeps what is predicted, from the beginning of each session.

    Args:
      problem: the problem; its outputs are logits, its targets labels.

    Returns:
      One of ``Problem.keepers``, with a `Predicted`.

    Raises:
      ValueError: for a stream without classes in sessions.
    """
    _check(problem)

    def init(state: TrainState) -> Predicted:
        old = jax.eval_shape(problem.stream.old_classes, state.stream)
        return Predicted(jnp.zeros((old.size, old.size)), jnp.zeros(old.size))

    def on_step(state: TrainState, seen: Seen) -> TrainState:
        counts = learning.counted(problem, state, seen)
        probabilities = jax.nn.softmax(seen.outputs)
        known = add(state.memory[NAME], probabilities, seen.targets, counts)
        return state._replace(memory=state.memory | {NAME: known})

    def on_chunk(state: TrainState) -> TrainState:
        over = problem.stream.task_ends(state.stream)
        reset = lambda x: jnp.where(over, 0, x)
        known = jax.tree.map(reset, state.memory[NAME])
        return state._replace(memory=state.memory | {NAME: known})

    return Keeper(NAME, init, on_step, on_chunk)


def _check(problem: Problem) -> None:
    for name in ("old_classes", "task_ends"):
        if getattr(problem.stream, name) is None:
            raise ValueError(
                "soft_targets needs a problem of classes that is learned in sessions: "
                f"the stream has no {name}."
            )
