"""Diagnostics of a network while it learns: which, and where they are taken."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from loplax import diagnostics, metrics, units
from loplax.supervised.problem import Problem, TrainState

# Seed of the probe vectors of stochastic estimates: the same at every observation.
PROBE_SEED = 0
LANCZOS = 50  # Hessian-vector products of an estimate
NTK_EXAMPLES = 64


def observe(
    problem: Problem,
    state: TrainState,
    step: Callable[[TrainState], tuple[TrainState, dict]],
) -> dict[str, jax.Array]:
    """The diagnostics that a problem asks for, on the stream's probe batch.

    Args:
      problem: what is learned.
      state: where the run stands.
      step: ``state -> (state, measures)``, one step on the next item; for ``"step"``.

    Returns:
      Scalars by name, those of the families in ``problem.observe``:

      - ``"weights"``: ``weight_magnitude``, ``distance_from_init``;
      - ``"features"``: fractions of all hidden units that are ``dead``, ``dormant``
        or ``rarely_active``, the fraction ``saturated`` of their activations (every
        unit counts alike), ``dead_1`` and so on for every layer, and the four ranks of
        the last hidden layer;
      - ``"gradients"`` of the loss on the probe batch: ``gradient_norm`` and
        ``gradient_sparsity``;
      - ``"step"``: what one more step does: ``plasticity`` on its own examples, and
        ``churn`` of the outputs on the probe batch, which are logits if there are many
        (of the classes that count, where targets say which);
      - ``"curvature"``: ``hessian_rank`` of the loss on the probe batch and
        ``ntk_rank`` on its first examples.

      All are as `loplax.metrics` defines them.
    """
    found: dict[str, jax.Array] = {}
    for family in problem.observe:
        found |= FAMILIES[family](problem, state, step)
    return diagnostics.floats(found)


def _weights(problem, state, step):
    return diagnostics.of_weights(state.params, state.initial)


def _features(problem, state, step):
    if not problem.groups:
        return {}
    inputs, _ = problem.stream.probe(state.stream)
    tapped = units.tap(problem.network.predict)
    read = problem.features or (lambda *args: tapped(*args)[1])
    features = read(state.params, state.stats, inputs)
    return diagnostics.of_features([features[group.name] for group in problem.groups])


def _probe_loss(problem, state):
    inputs, targets = problem.stream.probe(state.stream)

    def loss(params):
        outputs = problem.network.predict(params, state.stats, inputs)
        return jnp.mean(problem.loss(outputs, targets))

    return loss


def _gradients(problem, state, step):
    grads = jax.grad(_probe_loss(problem, state))(state.params)
    return {
        "gradient_norm": metrics.gradient_norm(grads),
        "gradient_sparsity": metrics.gradient_sparsity(grads),
    }


def _step(problem, state, step):
    inputs, targets = problem.stream.probe(state.stream)
    after, before = step(state)
    outputs = [
        problem.network.predict(s.params, s.stats, inputs) for s in (state, after)
    ]
    if isinstance(targets, tuple):  # labels, and the classes that count
        outputs = [jnp.where(targets[1], logits, -jnp.inf) for logits in outputs]
    many = outputs[0].ndim > 1 and outputs[0].shape[-1] > 1  # logits
    churn = metrics.churn if many else metrics.value_churn
    return {
        "plasticity": metrics.plasticity(before["loss"], step(after)[1]["loss"]),
        "churn": churn(*outputs),
    }


def _curvature(problem, state, step):
    inputs, _ = problem.stream.probe(state.stream)
    predict = lambda params, x: problem.network.predict(params, state.stats, x)
    key = jax.random.key(PROBE_SEED)
    loss = _probe_loss(problem, state)
    return {
        "hessian_rank": metrics.hessian_rank(loss, state.params, key, steps=LANCZOS),
        "ntk_rank": metrics.ntk_rank(predict, state.params, inputs[:NTK_EXAMPLES]),
    }


FAMILIES = {
    "weights": _weights,
    "features": _features,
    "gradients": _gradients,
    "step": _step,
    "curvature": _curvature,
}
