"""Output weights of new classes that start from the data of their session."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from loplax import checks
from loplax.supervised import evaluation
from loplax.supervised.problem import Problem, TrainState
from loplax.supervised.tasks import OnTask, in_head
from loplax.units import paths


class Embedded(NamedTuple):
    """Sums over a session's examples, each with an embedding.

    Attributes:
      sums: embeddings of each class, ``[features, classes]``.
      counts: examples of each class, ``[classes]``.
      products: of the embeddings with themselves, ``[features, features]``, or ``()``.
    """

    sums: jax.Array
    counts: jax.Array
    products: Any = ()


def class_mean(problem: Problem) -> OnTask:
    r"""The weights of a new class become the mean of its normalised embeddings.

    .. math::
      w_c = \frac{1}{n_c} \sum_{i: y_i = c} \frac{h(x_i)}{\|h(x_i)\|_2}

    over all examples of the session. The mean is not normalised again, so that
    :math:`\|w_c\| \le 1`. Biases, and the weights of other classes, stay.

    Args:
      problem: the problem; its network has an ``embed``, its stream a ``session`` and
        ``old_classes``.

    Returns:
      One of ``Problem.on_task``.

    Raises:
      ValueError: for a problem that lacks one of these.

    References:
      Harun & Kanan, `Overcoming the stability gap in continual learning
      <https://arxiv.org/abs/2306.01904>`_, TMLR 2024, as in the authors' code.
    """

    def of(h: jax.Array, labels: jax.Array) -> Embedded:
        norms = jnp.linalg.norm(h, axis=-1, keepdims=True)
        normalized = h / jnp.where(norms > 0, norms, 1)
        return Embedded(normalized.T @ labels, labels.sum(axis=0))

    return _start(problem, of, _means)


def least_squares(problem: Problem, *, ridge) -> OnTask:
    r"""The weights of new classes predict them from the embeddings, by least squares.

    .. math::
      W = \frac{1}{n} Y^\top H \left(\frac{1}{n} H^\top H + \lambda s I\right)^{-1}

    with the embeddings :math:`H` of the session's :math:`n` examples of new classes and
    their labels :math:`Y` as rows of 0 and one 1. In a balanced session that is the
    classifier to which features and weights collapse under the squared error,
    :math:`\frac{1}{C} M^\top (\Sigma_T + \mu \mu^\top + \lambda s I)^{-1}`. Here
    :math:`s` is the mean square of a feature, so that :math:`\lambda` has no unit.
    Biases, and the weights of other classes, stay.

    Args:
      problem: as for `class_mean`.
      ridge: :math:`\lambda`, at least 0; above 0 if features may depend on each other.
        May be traced.

    Returns:
      One of ``Problem.on_task``.

    Raises:
      ValueError: as `class_mean`, and for a ridge that is out of range.

    References:
      Harun & Kanan, `A good start matters <https://arxiv.org/abs/2503.06385>`_, 2025;
      the formula is that of Han et al., `Neural collapse under MSE loss
      <https://arxiv.org/abs/2106.02073>`_, 2022; the unit of the ridge is ours.
    """
    checks.in_range("ridge", ridge)

    def of(h: jax.Array, labels: jax.Array) -> Embedded:
        counted = h * labels.sum(axis=-1, keepdims=True)
        return Embedded(h.T @ labels, labels.sum(axis=0), counted.T @ h)

    def solve(found: Embedded) -> jax.Array:
        many = jnp.maximum(found.counts.sum(), 1)
        products, size = found.products / many, len(found.products)
        shrunk = ridge * jnp.trace(products) / size * jnp.eye(size)
        return jnp.linalg.solve(products + shrunk, found.sums / many)

    return _start(problem, of, solve)


def _means(found: Embedded) -> jax.Array:
    return found.sums / jnp.maximum(found.counts, 1)


def _start(
    problem: Problem,
    of: Callable[[jax.Array, jax.Array], Embedded],
    weights: Callable[[Embedded], jax.Array],
) -> OnTask:
    """Puts ``weights``, ``[features, classes]``, where classes are new."""
    stream = problem.stream
    kernel = kernel_path(problem)
    for name in ("session", "old_classes"):
        if getattr(stream, name) is None:
            raise ValueError(f"new classes need sessions: the stream has no {name}.")

    def on_task(state: TrainState, key: jax.Array) -> TrainState:
        del key
        old = stream.old_classes(state.stream)

        def one_batch(params, stats, x, y, counted):
            h = problem.network.embed(params, stats, x)
            labels = jax.nn.one_hot(y, old.size) * (counted[:, None] * ~old)
            return of(h, labels)

        found = evaluation.total(state, stream.session, one_batch)
        params = paths.by_path(state.params)
        before = params.leaves[kernel]
        new = jnp.where(found.counts > 0, weights(found), before)
        params.leaves[kernel] = new.astype(before.dtype)
        return state._replace(params=params.unflatten())

    return on_task


def kernel_path(problem: Problem) -> str:
    """Where the output layer's weights are, ``[features, classes]``.

    Args:
      problem: the problem; its network has an ``embed``, its targets are labels.

    Returns:
      The path of the parameter.

    Raises:
      ValueError: if there is no ``embed``, or no one such parameter.
    """
    if problem.network.embed is None:
        raise ValueError("the network has no embed: what its output layer is given.")
    inside = in_head(problem)
    shapes, _ = jax.eval_shape(problem.network.init, jax.random.key(0))
    leaves = paths.by_path(shapes).leaves
    found = [n for n, leaf in leaves.items() if inside(n) and leaf.ndim == 2]
    if len(found) != 1:
        raise ValueError(
            f"the output layer {problem.head!r} must have one matrix, got {found}."
        )
    return found[0]
