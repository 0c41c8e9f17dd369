"""Learning that tells the examples of a session from those of a buffer.

The streams are those of `loplax.streams.sessions`, whose minibatches have both.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.supervised import learning, losses
from loplax.supervised.problem import Keeper, Problem, Seen, TrainState


def mean_of(values: jax.Array, flags: jax.Array) -> jax.Array:
    """The mean of the values with a flag; 0 if there is none.

    Args:
      values: ``[examples]``.
      flags: bool ``[examples]``.

    Returns:
      A scalar.

    Example:
      >>> float(mean_of(jnp.array([1.0, 2.0, 6.0]), jnp.array([True, False, True])))
      3.5
    """
    return jnp.sum(values, where=flags) / jnp.maximum(jnp.sum(flags), 1)


def parts(item: Any) -> tuple[jax.Array, jax.Array]:
    """Which examples of a minibatch are the session's, and which the buffer's."""
    return item.counts & item.is_new, item.counts & ~item.is_new


def gradient_of_before(problem: Problem) -> Callable[[TrainState, Seen], Any]:
    """The gradient of the mean loss on the examples of earlier sessions.

    It is that of the minibatch's own examples, with the statistics of the network at
    rest: a reference for `loplax.optim.a_gem`.

    Args:
      problem: the problem.

    Returns:
      ``(TrainState, Seen) -> gradient``, like the parameters; one of
      ``Problem.extra_args``. It is 0 where there are no such examples.

    References:
      Hess et al., `Two complementary perspectives to continual learning
      <https://arxiv.org/abs/2311.04898>`_, 2023, who take the examples that are
      replayed anyway.
    """

    def gradient(state: TrainState, seen: Seen) -> Any:
        before = seen.item.session < problem.stream.task(state.stream)

        def loss(params):
            outputs = problem.network.predict(params, state.stats, seen.inputs)
            values = problem.loss(outputs, seen.targets)
            return mean_of(values, seen.item.counts & before)

        return jax.grad(loss)(state.params)

    return gradient


def classes_seen(problem: Problem, name: str) -> Keeper:
    """Keeps which classes were in any minibatch so far.

    Args:
      problem: the problem; its stream has ``old_classes``, which count from the start.
      name: where they are in the state's memory, bool ``[classes]``.

    Returns:
      One of ``Problem.keepers``.
    """
    old = lambda state: problem.stream.old_classes(state.stream)

    def on_step(state: TrainState, seen: Seen) -> TrainState:
        known = (
            state.memory[name] | old(state) | _present(seen, state.memory[name].size)
        )
        return state._replace(memory=state.memory | {name: known})

    return Keeper(name, old, on_step=on_step)


def asymmetric_cross_entropy(
    problem: Problem, name: str
) -> Callable[[TrainState, Seen], jax.Array]:
    r"""New examples do not push down the logits of classes that they lack.

    From the second session on, the loss of the session's examples is that among the
    classes that are in the minibatch's, and those never seen; the loss of the buffer's
    is that among all. Their mean is as the stream weighs them.

    Args:
      problem: the problem, as for `classes_seen`; its loss is a cross-entropy.
      name: where the classes seen are in the state's memory.

    Returns:
      ``Problem.objective``.

    References:
      Caccia et al., `New insights on reducing abrupt representation change in online
      continual learning <https://arxiv.org/abs/2104.05025>`_, ICLR 2022, section 4;
      that what was never seen stays is from their code.
    """

    def objective(state: TrainState, seen: Seen) -> jax.Array:
        known = state.memory[name] | problem.stream.old_classes(state.stream)
        among = _present(seen, known.size) | ~known
        first = problem.stream.task(state.stream) == 0
        new, _ = parts(seen.item)
        classes = among | first | ~new[:, None]
        values = losses.masked(problem.loss)(seen.outputs, (seen.targets, classes))
        return learning.mean(problem, state, seen.item, values)

    return objective


def _present(seen: Seen, classes: int) -> jax.Array:
    """The classes among the session's examples, bool ``[classes]``."""
    new, _ = parts(seen.item)
    labels = jnp.where(new, seen.targets, classes)
    return jnp.zeros(classes, bool).at[labels].set(True, mode="drop")


def most_interfered(
    problem: Problem, *, step_size, replayed: int
) -> Callable[[TrainState, Seen], jax.Array]:
    r"""Of the buffer's examples those count of which a step would raise the loss most.

    With the loss :math:`\ell_n` of the session's examples, the ``replayed`` largest of

    .. math::
      \ell(\theta - \eta \nabla \ell_n(\theta)) - \ell(\theta)

    The buffer's examples count as much as they do in the stream, all together.

    Args:
      problem: the problem.
      step_size: :math:`\eta`, at least 0. May be traced.
      replayed: how many of the buffer's examples in a minibatch are learned from.

    Returns:
      ``Problem.objective``.

    Raises:
      ValueError: for numbers out of range.

    References:
      Aljundi et al., `Online continual learning with maximally interfered retrieval
      <https://arxiv.org/abs/1908.04742>`_, NeurIPS 2019, algorithm 1.
    """
    checks.in_range("step_size", step_size)
    checks.whole("replayed", replayed, 1)

    def objective(state: TrainState, seen: Seen) -> jax.Array:
        new, kept = parts(seen.item)
        at = jax.lax.stop_gradient(state.params)

        def values(params):
            outputs = problem.network.predict(params, state.stats, seen.inputs)
            return problem.loss(outputs, seen.targets)

        slope = jax.grad(lambda params: mean_of(values(params), new))(at)
        rise = values(optax.tree.add_scale(at, -step_size, slope)) - values(at)
        rank = jnp.argsort(jnp.argsort(-jnp.where(kept, rise, -jnp.inf)))
        chosen = kept & (rank < replayed)
        more = jnp.sum(kept) / jnp.maximum(jnp.sum(chosen), 1)
        weights = problem.stream.weights(state.stream, seen.item)
        weights = weights * jnp.where(kept, more * chosen, 1)
        learned = problem.loss(seen.outputs, seen.targets)
        return jnp.sum(learned * weights, where=weights > 0)

    return objective
