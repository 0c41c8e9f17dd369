"""Weights with an uncertainty: how they are drawn, and what they learn by."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.methods import building, composing
from loplax import supervised


class State(NamedTuple):
    """What an objective sees of a run."""

    params: Any
    stats: Any


def uncertain(toy):
    made = composing.method(toy.configured(), "mesu")
    return building.network(made, toy.NETWORK, made.values, toy.SHAPE)


def test_uncertain_weights_are_drawn_to_learn_and_rest_in_tests(toy):
    """Each step has a key of its own; what is tested has the means."""
    network = uncertain(toy)
    weights, stats = network.init(jax.random.key(0))
    toy.close(weights.mean, toy.init())
    widths = {"w": 3**-0.5, "b": 8**-0.5, "v": 8**-0.5}
    toy.close(
        weights.deviation,
        {n: jnp.full_like(toy.init()[n], s) for n, s in widths.items()},
    )
    x, seen = jnp.ones((4, 3)), []
    for _ in range(3):
        outputs, stats = network.apply(weights, stats, x)
        seen.append(np.asarray(outputs))
        np.testing.assert_array_equal(
            network.predict(weights, stats, x), toy.apply(toy.init(), x)
        )
    assert len(np.unique(seen)) == np.unique(seen[0]).size * 3
    again, _ = network.apply(weights, network.init(jax.random.key(0))[1], x)
    np.testing.assert_array_equal(again, seen[0])


def test_uncertain_weights_learn_by_the_mean_loss_of_their_draws(toy):
    """All different, the step's own among them, in both halves of the weights."""
    made = composing.method(toy.configured(), "mesu")
    problem = toy.PROBLEM._replace(network=uncertain(toy))
    weights, stats = problem.network.init(jax.random.key(0))
    state = State(weights, stats)
    x, y = jnp.ones((4, 3)), jnp.array([0, 1, 1, 0])
    outputs, _ = problem.network.apply(weights, stats, x)
    item = None
    stream = problem.stream._replace(weights=None)
    seen = supervised.Seen(item, x, y, outputs, {})
    values = []
    for samples in (1, 2, 3):
        choices = made.choices | {"mesu": {"samples": samples}}
        filled = building.fill(
            made._replace(choices=choices),
            problem._replace(stream=stream),
            made.values,
        )
        values.append(float(samples * filled.objective(state, seen)))
    own = float(jnp.mean(problem.loss(outputs, y)))
    draws = np.diff([0.0, *values])
    np.testing.assert_allclose(draws[0], own, rtol=1e-5)
    assert len(np.unique(draws)) == 3
    assert filled.extra_args["examples"](state, seen) == 4
