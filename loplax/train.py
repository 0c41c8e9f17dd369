"""The supervised online learner: one stream, one network, one transformation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import metrics, units
from loplax.streams import base


class TrainState(NamedTuple):
    """State of a run.

    Attributes:
      params: network parameters.
      initial: the parameters at the start.
      opt: state of the transformation.
      stream: state of the stream.
      hparams: the numeric settings, float scalars.
      key_tx: key given to the transformation.
      key: key of what is still to be drawn.
    """

    params: Any
    initial: Any
    opt: optax.OptState
    stream: Any
    hparams: dict[str, jax.Array]
    key_tx: jax.Array
    key: jax.Array


class Problem(NamedTuple):
    """What to learn, with what.

    Attributes:
      stream: the stream of examples.
      init: ``key -> params``.
      apply: ``(params, inputs) -> outputs``, for one example or a batch.
      loss: ``(outputs, targets) -> scalar`` for one example.
      make_tx: ``(hparams, key) -> GradientTransformation``; numbers in ``hparams`` are
        traced.
      groups: hidden layers whose features are observed, in forward order.
    """

    stream: base.Stream
    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    make_tx: Callable[[dict[str, jax.Array], jax.Array], optax.GradientTransformation]
    groups: units.Units


def init(problem: Problem, key: jax.Array, hparams: dict[str, jax.Array]) -> TrainState:
    """Starts a run.

    Args:
      problem: what to learn.
      key: the run's key.
      hparams: the numeric settings.

    Returns:
      The state before the first example.
    """
    key, key_stream, key_net, key_tx = jax.random.split(key, 4)
    params = problem.init(key_net)
    tx = problem.make_tx(hparams, key_tx)
    stream = problem.stream.init(key_stream)
    return TrainState(params, params, tx.init(params), stream, hparams, key_tx, key)


def segment(
    problem: Problem, state: TrainState, bins: int, chunks: int, unroll: int = 1
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Learns online from ``bins * chunks * stream.chunk`` examples, one at a time.

    Args:
      problem: what to learn.
      state: where the run stands.
      bins: number of bins of the metrics.
      chunks: draws from the stream per bin.
      unroll: steps per iteration of the compiled loop.

    Returns:
      The state, and metrics ``[bins]``: ``loss`` (mean over the bin, each example
      before it is learned from), the diagnostics of `observe` at the bin's end, and
      ``loss_fresh``: the loss of a freshly initialised network over the segment's last
      chunk, beside ``loss_last`` of the run over the same examples (both repeated).
    """

    def one_chunk(state, _):
        stream, items = problem.stream.draw(state.stream)
        state = state._replace(stream=stream)
        params, opt, losses = learn(problem, state, items, unroll)
        return state._replace(params=params, opt=opt), (jnp.mean(losses), items)

    def one_bin(state, _):
        state, (losses, items) = jax.lax.scan(one_chunk, state, None, length=chunks)
        found = {"loss": jnp.mean(losses), **observe(problem, state)}
        return state, (found, losses[-1], items[-1])

    state, (found, last, items) = jax.lax.scan(one_bin, state, None, length=bins)
    key, key_fresh = jax.random.split(state.key)
    fresh = init(problem, key_fresh, state.hparams)._replace(stream=state.stream)
    _, _, losses = learn(problem, fresh, items[-1], unroll)
    found["loss_last"] = jnp.broadcast_to(last[-1], (bins,))
    found["loss_fresh"] = jnp.broadcast_to(jnp.mean(losses), (bins,))
    return state._replace(key=key), found


def learn(problem: Problem, state: TrainState, items: Any, unroll: int = 1):
    """Learns from a chunk of examples, one after the other.

    Args:
      problem: what to learn.
      state: where the run stands, its stream at the chunk's task.
      items: the chunk, as ``stream.draw`` returned it.
      unroll: steps per iteration of the compiled loop.

    Returns:
      ``(params, opt, losses)``, the losses before each step, ``[chunk]``.
    """
    tx = problem.make_tx(state.hparams, state.key_tx)
    tapped = units.tap(problem.apply)

    def loss(params, x, y):
        outputs, features = tapped(params, x)
        return problem.loss(outputs, y), features

    def step(carry, item):
        params, opt = carry
        x, y = problem.stream.example(state.stream, item)
        grad = jax.value_and_grad(loss, has_aux=True)
        (value, features), grads = grad(params, x, y)
        updates, opt = tx.update(grads, opt, params, features=features)
        return (optax.apply_updates(params, updates), opt), value

    (params, opt), losses = jax.lax.scan(
        step, (state.params, state.opt), items, unroll=unroll
    )
    return params, opt, losses


def observe(problem: Problem, state: TrainState) -> dict[str, jax.Array]:
    """Diagnostics of the network on the stream's probe batch.

    Args:
      problem: what is learned.
      state: where the run stands.

    Returns:
      Scalars: ``weight_magnitude`` and ``distance_from_init`` of the parameters;
      fractions of all hidden units that are ``dead`` or ``dormant``; and the ranks of
      the last hidden layer, all as `loplax.metrics` defines them. Only the first two
      without hidden layers.
    """
    moved = jax.tree.map(jnp.subtract, state.params, state.initial)
    found = {
        "weight_magnitude": metrics.weight_magnitude(state.params),
        "distance_from_init": optax.tree.norm(moved),
    }
    if not problem.groups:
        return found
    inputs, _ = problem.stream.probe(state.stream)
    _, features = units.tap(problem.apply)(state.params, inputs)
    sizes = jnp.array([group.size for group in problem.groups])
    mean = lambda fraction: jnp.average(
        jnp.stack([fraction(features[group.name]) for group in problem.groups]),
        weights=sizes,
    )
    last = features[problem.groups[-1].name]
    ranks = (
        metrics.effective_rank,
        metrics.approximate_rank,
        metrics.absolute_approximate_rank,
        metrics.stable_rank,
    )
    found |= {
        "dead": mean(metrics.dead_fraction),
        "dormant": mean(metrics.dormant_fraction),
    }
    return found | {rank.__name__: rank(last).astype(jnp.float32) for rank in ranks}
