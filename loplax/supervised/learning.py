"""Learning: a step on one item, a chunk of items."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from loplax import optim, precision, units
from loplax.supervised import evaluation
from loplax.supervised.problem import Problem, TrainState


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

    def one(carry, item):
        params, stats, opt = carry
        now = state._replace(params=params, stats=stats, opt=opt)
        now, found = step(problem, now, item)
        return precision.like((now.params, now.stats, now.opt), carry), found

    carry = (state.params, state.stats, state.opt)
    (params, stats, opt), found = jax.lax.scan(one, carry, items, unroll=unroll)
    return state._replace(params=params, stats=stats, opt=opt), found


def step(
    problem: Problem, state: TrainState, item: Any
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Learns from one item: one example or one minibatch.

    Args:
      problem: what to learn.
      state: where the run stands.
      item: one of the items that ``stream.draw`` returned.

    Returns:
      The state, and the measures before the step, means over the minibatch.
    """
    network = problem.network
    forward = problem.forward or units.tap(network.apply, has_aux=True)

    def objective(params, stats, x, y):
        (outputs, stats), features = forward(params, stats, x)
        found = jax.tree.map(jnp.mean, evaluation.measure(problem, outputs, y))
        return found["loss"], (stats, features, found)

    x, y = problem.stream.example(state.stream, item)
    differentiate = jax.grad(objective, has_aux=True)
    grads, (stats, features, found) = differentiate(state.params, state.stats, x, y)
    updates, opt = problem.tx.update(grads, state.opt, state.params, features=features)
    replaced = optim.newly_replaced(state.opt, opt)
    if replaced:
        stats = network.restart(stats, replaced)
    params = optax.apply_updates(state.params, updates)
    return state._replace(params=params, stats=stats, opt=opt), found
