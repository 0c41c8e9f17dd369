"""Outputs that are to stay: those of a teacher, or stored ones of a buffer's examples.

Their problems are learned in sessions, see `loplax.streams.sessions`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from loplax import checks
from loplax.supervised import learning, replay
from loplax.supervised.problem import Keeper, Problem, Seen, TrainState


class Teacher(NamedTuple):
    """A network that does not learn.

    Attributes:
      params: its parameters.
      stats: its statistics.
    """

    params: Any
    stats: Any


def teacher(problem: Problem, name: str) -> Keeper:
    """Keeps a copy of the network as it was at the end of the session before.

    Args:
      problem: the problem; its stream has ``task_ends``.
      name: where the `Teacher` is in the state's memory; first it is the first network.

    Returns:
      One of ``Problem.keepers``.
    """
    init = lambda state: jax.tree.map(jnp.copy, Teacher(state.params, state.stats))

    def on_chunk(state: TrainState) -> TrainState:
        ends = problem.stream.task_ends(state.stream)
        now = Teacher(state.params, state.stats)
        take = lambda new, old: jnp.where(ends, new, old)
        taken = jax.tree.map(take, now, state.memory[name])
        return state._replace(memory=state.memory | {name: taken})

    return Keeper(name, init, on_chunk=on_chunk)


def divergence(
    logits: jax.Array, wanted: jax.Array, classes: jax.Array, temperature
) -> jax.Array:
    r"""Distance of softened predictions from wanted ones, among some classes.

    .. math::
      T^2 \, \mathrm{KL}(\mathrm{softmax}(z' / T) \,\|\, \mathrm{softmax}(z / T))

    The factor keeps the size of the gradient, whatever the temperature.

    Args:
      logits: :math:`z`, ``[..., classes]``.
      wanted: :math:`z'`, ``[..., classes]``.
      classes: which of them there are, bool ``[classes]``; 0 is returned for none.
      temperature: :math:`T`, at least 1. May be traced.

    Returns:
      ``[...]``, in nats.

    Example:
      >>> logits, classes = jnp.array([1.0, 2.0, 9.0]), jnp.array([True, True, False])
      >>> float(divergence(logits, logits - 5, classes, 2.0))
      0.0

    References:
      Hinton et al., `Distilling the knowledge in a neural network
      <https://arxiv.org/abs/1503.02531>`_, 2015.
    """
    least = jnp.finfo(logits.dtype).min / 4  # finite: 0 times it is 0
    among = lambda z: jax.nn.log_softmax(jnp.where(classes, z / temperature, least))
    log_wanted, log_found = among(wanted), among(logits)
    each = jnp.exp(log_wanted) * (log_wanted - log_found)
    return temperature**2 * jnp.sum(each, axis=-1, where=classes)


def learning_without_forgetting(
    problem: Problem, name: str, *, temperature, strength
) -> Callable[[TrainState, Seen], jax.Array]:
    r"""Keeps what a `teacher` says about the classes of before.

    With the logits :math:`z'` of the teacher and the `divergence` :math:`D_T` among the
    classes of earlier sessions, the mean over the minibatch of

    .. math::
      \lambda D_T(z', z)

    Its gradient is 0 when a session begins.

    Args:
      problem: the problem; its stream has ``old_classes``.
      name: where the `Teacher` is in the state's memory.
      temperature: :math:`T`, at least 1. May be traced.
      strength: :math:`\lambda`, at least 0. May be traced.

    Returns:
      One of ``Problem.penalties``.

    Raises:
      ValueError: for numbers out of range.

    References:
      Li & Hoiem, `Learning without forgetting <https://arxiv.org/abs/1606.09282>`_,
      ECCV 2016, equation 2, which has no factor :math:`T^2`.
    """
    checks.in_range("temperature", temperature, 1)
    checks.in_range("strength", strength)

    def penalty(state: TrainState, seen: Seen) -> jax.Array:
        params, stats = state.memory[name]
        wanted = problem.network.predict(params, stats, seen.inputs)
        old = problem.stream.old_classes(state.stream)
        apart = divergence(seen.outputs, wanted, old, temperature)
        return strength * learning.mean(problem, state, seen.item, apart)

    return penalty


def stored_outputs(problem: Problem, name: str) -> Keeper:
    """Keeps what the network said about each example when it entered the buffer.

    Args:
      problem: the problem; its stream is one of `loplax.streams.sessions`, whose buffer
        is filled ``"online"``.
      name: where the outputs are in the state's memory, ``[capacity, outputs]``.

    Returns:
      One of ``Problem.keepers``.
    """

    def init(state: TrainState) -> jax.Array:
        # What is known from the start is in the buffer already.
        inputs, _ = problem.stream.example(state.stream, state.stream.buffer)
        outputs = problem.network.predict(state.params, state.stats, inputs)
        there = state.stream.buffer.index >= 0
        return jnp.where(there[:, None], outputs, 0)

    def on_step(state: TrainState, seen: Seen) -> TrainState:
        outputs, item = state.memory[name], seen.item
        place = jnp.where(item.is_new, item.slot, len(outputs))
        outputs = outputs.at[place].set(seen.outputs, mode="drop")
        return state._replace(memory=state.memory | {name: outputs})

    return Keeper(name, init, on_step=on_step)


def dark_experience(
    problem: Problem, name: str, *, alpha, beta=None
) -> Callable[[TrainState, Seen], jax.Array]:
    r"""Keeps the buffer's examples at their `stored_outputs`.

    With new examples :math:`x`, those of the buffer :math:`x'` and their stored logits
    :math:`z'`, means of

    .. math::
      \ell(h(x), y) + \alpha \|h(x') - z'\|^2 / K + \beta \, \ell(h(x''), y'')

    With :math:`\beta`, the buffer's examples in a minibatch are :math:`x'` and
    :math:`x''` in turn; as each is drawn by itself, these are two minibatches of half
    the size. How the stream weighs its examples does not count.

    Args:
      problem: the problem, as for `stored_outputs`.
      name: where the outputs are in the state's memory.
      alpha: :math:`\alpha`, at least 0. May be traced.
      beta: :math:`\beta`, at least 0, may be traced; None for the form without labels.

    Returns:
      ``Problem.objective``.

    Raises:
      ValueError: for numbers out of range.

    References:
      Buzzega et al., `Dark experience for general continual learning
      <https://arxiv.org/abs/2004.07211>`_, NeurIPS 2020, equations 5 (DER) and 6
      (DER++).
    """
    checks.in_range("alpha", alpha)
    checks.in_range("beta", 0 if beta is None else beta)

    def objective(state: TrainState, seen: Seen) -> jax.Array:
        item, losses = seen.item, problem.loss(seen.outputs, seen.targets)
        new, kept = replay.parts(item)
        stored = state.memory[name].at[item.slot].get(mode="clip")
        square = jnp.mean(jnp.square(seen.outputs - stored), axis=-1)
        value = replay.mean_of(losses, new)
        if beta is None:
            return value + alpha * replay.mean_of(square, kept)
        first = jnp.cumsum(kept) % 2 == 1
        value = value + alpha * replay.mean_of(square, kept & first)
        return value + beta * replay.mean_of(losses, kept & ~first)

    return objective
