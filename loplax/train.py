"""The supervised learner: one stream, one network, one transformation."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from loplax import branch, diagnostics, metrics, optim, precision, units
from loplax.problem import Build, Problem, TrainState
from loplax.streams import base


def init(
    build: Build, key: jax.Array, hparams: dict[str, jax.Array], data: Any = ()
) -> TrainState:
    """Starts a run.

    Args:
      build: ``(hparams, key_tx, data) -> Problem``.
      key: the run's key.
      hparams: the numeric settings.
      data: arrays that all runs share.

    Returns:
      The state before the first example.
    """
    key_task, key_stream, key_net, key_tx, key_fresh = jax.random.split(key, 5)
    problem = build(hparams, key_tx, data)
    params, stats = problem.network.init(key_net)
    state = TrainState(
        params=params,
        stats=stats,
        initial=jax.tree.map(jnp.copy, params),  # so that the state can be donated
        opt=problem.tx.init(params),
        stream=problem.stream.init(key_stream),
        memory=(),
        hparams=hparams,
        key_tx=key_tx,
        key_task=key_task,
        key_fresh=key_fresh,
    )
    if problem.keeper:
        state = state._replace(memory=problem.keeper.init(state))
    return state


def segment(
    build: Build,
    state: TrainState,
    data: Any = (),
    *,
    bins: int,
    chunks: int,
    unroll: int = 1,
    fresh: bool = True,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Learns from ``bins * chunks * stream.chunk`` items, one after the other.

    Args:
      build: as for `init`.
      state: where the run stands.
      data: as for `init`.
      bins: number of bins of the metrics.
      chunks: draws from the stream per bin.
      unroll: steps per iteration of the compiled loop.
      fresh: whether a freshly initialised network learns the first chunk too.

    Returns:
      The state, and metrics ``[bins]``:

      - ``loss`` and the problem's other measures: means over the bin, of each item
        before it is learned from;
      - the same with ``test_`` before the name: of what the stream tests, at the end of
        the bin;
      - the diagnostics of `diagnostics.observe` at the end of the bin, on the task of
        the next chunk, and ``weight_change``, the bin's ``sum|change|``;
      - if ``fresh``, ``loss_first``, ``loss_fresh`` and so on: the measures over the
        segment's first chunk, of this run and of a freshly initialised network
        (repeated).
    """
    problem = build(state.hparams, state.key_tx, data)

    def one_chunk(state, _):
        stream, items = problem.stream.draw(state.stream)
        state = _begin_task(problem, state._replace(stream=stream))
        state, found = learn(problem, state, items, unroll)
        if problem.keeper:
            state = problem.keeper.update(state)
        return state, jax.tree.map(jnp.mean, found)

    def one_bin(state, _):
        before = state.params
        state, measured = jax.lax.scan(one_chunk, state, None, length=chunks)
        found = jax.tree.map(jnp.mean, measured)
        if problem.stream.test:
            tested = evaluate(problem, state, problem.stream.test)
            found |= {f"test_{name}": value for name, value in tested.items()}
        found["weight_change"] = metrics.weight_change(before, state.params)
        stream, items = problem.stream.draw(state.stream)
        after = _begin_task(problem, state._replace(stream=stream))
        item = jax.tree.map(lambda x: x[0], items)
        found |= diagnostics.observe(problem, after, lambda s: step(problem, s, item))
        return state, (found, jax.tree.map(lambda x: x[0], measured))

    # A key of its own: what is learned does not depend on where segments end.
    key, key_fresh = jax.random.split(state.key_fresh)
    state = state._replace(key_fresh=key)
    stream, items = problem.stream.draw(state.stream)
    state, (found, measured) = jax.lax.scan(one_bin, state, None, length=bins)
    if fresh:
        other = init(build, key_fresh, state.hparams, data)._replace(stream=stream)
        _, beginner = learn(problem, other, items, unroll)
        for name, values in measured.items():
            found[f"{name}_first"] = jnp.broadcast_to(values[0], (bins,))
            found[f"{name}_fresh"] = jnp.broadcast_to(beginner[name].mean(), (bins,))
    return state, found


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
        found = jax.tree.map(jnp.mean, measure(problem, outputs, y))
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


def measure(problem: Problem, outputs: Any, targets: Any) -> dict[str, jax.Array]:
    """The problem's loss and other measures.

    Args:
      problem: what to learn.
      outputs: the network's.
      targets: what they should be.

    Returns:
      Their values by name, ``[examples]`` or scalars as the problem gives them.
    """
    measures = {"loss": problem.loss, **problem.measures}
    return {name: value(outputs, targets) for name, value in measures.items()}


def evaluate(
    problem: Problem, state: TrainState, held_out: base.HeldOut
) -> dict[str, jax.Array]:
    """Measures the network on examples that it does not learn from.

    Args:
      problem: what is learned.
      state: where the run stands.
      held_out: the examples; a batch without weight costs nothing.

    Returns:
      Weighted means by name.
    """

    def one_batch(i, params, stats, stream):
        x, y, weights = held_out.batch(stream, i)
        values = measure(problem, problem.network.predict(params, stats, x), y)
        # Where there is no weight, the loss may be infinite: of a masked class, say.
        weigh = lambda value: jnp.sum(value * weights, where=weights > 0)
        return jax.tree.map(weigh, values)

    def add(i, carry):
        total, number = carry
        _, _, weights = held_out.batch(state.stream, i)
        used = jnp.sum(weights)
        found = branch.cond(used > 0, one_batch, None, i, *needed)
        return jax.tree.map(jnp.add, total, found), number + used

    needed = state.params, state.stats, state.stream
    shapes = jax.eval_shape(one_batch, 0, *needed)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, number = jax.lax.fori_loop(0, held_out.batches, add, (zeros, 0.0))
    return jax.tree.map(lambda x: x / number, total)


def _begin_task(problem: Problem, state: TrainState) -> TrainState:
    """Lets ``on_task`` act if the chunk just drawn begins a new task."""
    if problem.on_task is None:
        return state

    key, key_task = jax.random.split(state.key_task)
    begins = problem.stream.begins(state.stream)
    leave = lambda state, key: state
    state = state._replace(key_task=key)
    return branch.cond(begins, problem.on_task, leave, state, key_task)
