"""Reading classes from the nearest mean, in place of the output layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from loplax import checks
from loplax.supervised import learning
from loplax.supervised.new_classes import kernel_path
from loplax.supervised.problem import Keeper, Problem, Seen, TrainState
from loplax.units import paths

NAME = "ncm"


class ClassMeans(NamedTuple):
    """Running means of the embeddings of each class.

    Attributes:
      means: of the normalised embeddings, float32 ``[features, classes]``.
      known: the classes that have been seen, bool ``[classes]``.
    """

    means: jax.Array
    known: jax.Array


def keeper(problem: Problem, *, decay_rate) -> Keeper:
    r"""Keeps the means of the classes while the network learns.

    After every step, of the classes in the minibatch, with the embeddings :math:`h` of
    the network as it then is,

    .. math::
      m_c \leftarrow \eta\, m_c + (1 - \eta)
      \operatorname{mean}_{i: y_i = c} \frac{h(x_i)}{\|h(x_i)\|}

    where the first value is the mean itself. So the means follow the network at the
    price of one more forward pass of the minibatch; those over a whole buffer would
    cost one of the buffer at every test. Classes that are not shown again stay where
    they were.

    Args:
      problem: the problem; its network has an ``embed``, its targets are labels.
      decay_rate: :math:`\eta`, 0 to 1; may be traced.

    Returns:
      One of ``Problem.keepers``, with `ClassMeans`.

    Raises:
      ValueError: for a value out of range, or a network without an ``embed``.
    """
    checks.in_range("decay_rate", decay_rate, 0, 1)
    kernel = kernel_path(problem)

    def init(state: TrainState) -> ClassMeans:
        shape = paths.by_path(state.params).leaves[kernel].shape
        return ClassMeans(jnp.zeros(shape), jnp.zeros(shape[1], bool))

    def on_step(state: TrainState, seen: Seen) -> TrainState:
        means, known = state.memory[NAME]
        counts = learning.counted(problem, state, seen)
        labels = jax.nn.one_hot(seen.targets, known.size) * counts[:, None]
        number = labels.sum(axis=0)
        h = _unit(problem.network.embed(state.params, state.stats, seen.inputs), -1)
        now = h.T @ labels / jnp.maximum(number, 1)
        moved = jnp.where(known, decay_rate * means + (1 - decay_rate) * now, now)
        new = ClassMeans(jnp.where(number > 0, moved, means), known | (number > 0))
        return state._replace(memory=state.memory | {NAME: new})

    return Keeper(NAME, init, on_step)


def evaluated(problem: Problem) -> dict[str, Callable[[TrainState], tuple[Any, Any]]]:
    r"""The same network with the class means as its output layer.

    The nearest of the normalised means to a normalised embedding is the one with the
    largest product, so that the outputs :math:`h \cdot m_c / \|m_c\|` are those of a
    layer without a bias; that of a class that was never seen is :math:`-\infty`, or 0
    where the layer has no bias. Of the measures, the accuracy is the one that means
    something.

    Args:
      problem: the problem, with `keeper` among its keepers.

    Returns:
      More of ``Problem.evaluated``: the measures get names that begin with ``ncm_``.

    Raises:
      ValueError: for a network without an ``embed``.

    References:
      Rebuffi et al., `iCaRL <https://arxiv.org/abs/1611.07725>`_, 2017; on the
      stability gap Lapacz et al., `Exploring the stability gap in continual learning:
      the role of the classification head <https://arxiv.org/abs/2411.04723>`_, 2025.
      Both take the means over a buffer, see `keeper`.
    """
    kernel = kernel_path(problem)
    bias = kernel.rpartition("/")[0] + "/bias"

    def read(state: TrainState) -> tuple[Any, Any]:
        means, known = state.memory[NAME]
        params = paths.by_path(state.params)
        params.leaves[kernel] = _unit(means, 0)
        if bias in params.leaves:
            params.leaves[bias] = jnp.where(known, 0, -jnp.inf)
        return params.unflatten(), state.stats

    return {NAME: read}


def _unit(x: jax.Array, axis: int) -> jax.Array:
    """Vectors of length 1, or 0, along an axis."""
    norms = jnp.linalg.norm(x, axis=axis, keepdims=True)
    return x / jnp.where(norms > 0, norms, 1)
