"""Learning: a step on one item, a chunk of items."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from loplax import optim, precision, units
from loplax.supervised import evaluation
from loplax.supervised.problem import Problem, Seen, TrainState

CARRIED = ("params", "stats", "opt", "memory")  # what a step may change


def learn(
    problem: Problem, state: TrainState, items: Any, unroll: int = 1
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Learns from a chunk of items, one after the other.

    Args:
      problem: what to learn.
      state: where the run stands, its stream at the chunk's task.
      items: the chunk, as ``stream.draw`` returned it.
      unroll: steps per iteration of the compiled loop.

    Returns:
      The state, and the measures before each step, ``[chunk]``.
    """
    pick = lambda state: {name: getattr(state, name) for name in CARRIED}

    def one(carry, item):
        now, found = step(problem, state._replace(**carry), item)
        return precision.like(pick(now), carry), found

    carry, found = jax.lax.scan(one, pick(state), items, unroll=unroll)
    return state._replace(**carry), found


def mean(problem: Problem, state: TrainState, item: Any, values: jax.Array):
    """The mean of values of an item's examples, as the stream weighs them.

    Args:
      problem: what to learn.
      state: where the run stands.
      item: one of the items that ``stream.draw`` returned.
      values: ``[examples]``, or a scalar for a single example.

    Returns:
      Their mean.
    """
    weigh = problem.stream.weights
    if weigh is None:
        return jnp.mean(values)
    weights = weigh(state.stream, item)
    return jnp.sum(values * weights)


def counted(problem: Problem, state: TrainState, seen: Seen) -> jax.Array:
    """Which examples of a minibatch count at all, as the stream weighs them.

    Args:
      problem: what to learn.
      state: where the run stands.
      seen: the minibatch.

    Returns:
      bool ``[examples]``.
    """
    if problem.stream.weights is None:
        return jnp.ones(seen.targets.shape, bool)
    return problem.stream.weights(state.stream, seen.item) > 0


def step(
    problem: Problem, state: TrainState, item: Any
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Learns from one item: one example or one minibatch.

    Args:
      problem: what to learn.
      state: where the run stands.
      item: one of the items that ``stream.draw`` returned.

    Returns:
      The state, and the measures before the step, means over the minibatch as the
      stream weighs it.
    """
    network = problem.network
    forward = problem.forward or units.tap(network.apply, has_aux=True)

    x, y = problem.stream.example(state.stream, item)

    def objective(params):
        (outputs, stats), features = forward(params, state.stats, x)
        now, seen = state._replace(params=params), Seen(item, x, y, outputs, features)
        measured = evaluation.measure(problem, outputs, y)
        found = jax.tree.map(lambda x: mean(problem, state, item, x), measured)
        own = problem.objective
        value = own(now, seen) if own else found["loss"]
        for penalty in problem.penalties:
            value = value + penalty(now, seen)
        return value, (stats, outputs, features, found)

    grads, aux = jax.grad(objective, has_aux=True)(state.params)
    stats, outputs, features, found = aux
    seen = Seen(item, x, y, outputs, features)
    extra = {name: of(state, seen) for name, of in problem.extra_args.items()}
    updates, opt = problem.tx.update(
        grads, state.opt, state.params, features=features, **extra
    )
    replaced = optim.newly_replaced(state.opt, opt)
    if replaced:
        stats = network.restart(stats, replaced)
    params = optax.apply_updates(state.params, updates)
    state = state._replace(params=params, stats=stats, opt=opt)
    for keeper in problem.keepers:
        state = keeper.on_step(state, seen) if keeper.on_step else state
    return state, found
