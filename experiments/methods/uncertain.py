"""Plugins whose weights have an uncertainty."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.methods.plugin import Plugin
from loplax import checks, optim
from loplax.optim import keys
from loplax.supervised import Network, Problem, learning


class _Drawn(NamedTuple):
    """Statistics of a network whose weights are drawn: the next key, and its own."""

    key: jax.Array
    stats: Any


def _uncertain(network: Network, shape, *, initial_deviation, **own) -> Network:
    """Learns with weights that are drawn at every step; tests have their means."""
    checks.in_range("initial_deviation", initial_deviation, above=True)

    def deviation(leaf):
        inputs = math.prod(leaf.shape[:-1]) if leaf.ndim > 1 else leaf.size
        return initial_deviation / jnp.sqrt(inputs)

    def init(key):
        params, stats = network.init(key)
        weights = optim.gaussian(params, jax.tree.map(deviation, params))
        return weights, _Drawn(keys.named(key, "mesu"), stats)

    def apply(weights, drawn, x):
        key, key_now = jax.random.split(drawn.key)
        params = optim.sample(weights, key_now)
        outputs, stats = network.apply(params, drawn.stats, x)
        return outputs, _Drawn(key, stats)

    def of_means(function):
        return lambda weights, drawn, *args: function(weights.mean, drawn.stats, *args)

    def restart(drawn, replaced):
        return drawn._replace(stats=network.restart(drawn.stats, replaced))

    return network._replace(
        init=init,
        apply=apply,
        predict=of_means(network.predict),
        restart=restart,
        embed=network.embed and of_means(network.embed),
    )


def _mesu(setting, *, learning_rate, initial_deviation, weight_decay=None, **own):
    del initial_deviation  # a matter of the network
    tx = optim.mesu(**own)
    if weight_decay is not None:
        decay = optax.add_decayed_weights(weight_decay)
        tx = optax.chain(optax.masked(decay, optim.Gaussian(True, False)), tx)
    rate = optax.scale_by_learning_rate(learning_rate, flip_sign=False)
    return optax.chain(tx, rate)


def _expected(problem: Problem, *, samples, **own) -> Callable:
    """The mean loss over several draws of the weights, the step's own among them."""
    checks.whole("samples", samples, 1)

    def renewed(stats, number):
        """The statistics with a key of the draw, wherever it is."""
        is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        new = lambda key: jax.random.fold_in(keys.named(key, "sample"), number)
        return jax.tree.map(lambda leaf: new(leaf) if is_key(leaf) else leaf, stats)

    def loss(state, seen, outputs):
        values = problem.loss(outputs, seen.targets)
        return learning.mean(problem, state, seen.item, values)

    def objective(state, seen):
        def another(number):
            stats = renewed(state.stats, number)
            outputs, _ = problem.network.apply(state.params, stats, seen.inputs)
            return loss(state, seen, outputs)

        others = jax.vmap(another)(jnp.arange(samples - 1))
        return (loss(state, seen, seen.outputs) + jnp.sum(others)) / samples

    return objective


def _examples(problem: Problem, **own) -> dict[str, Callable]:
    """How many examples of a minibatch count, in the mean loss."""

    def examples(state, seen):
        if problem.stream.weights is None:
            return jnp.size(problem.loss(seen.outputs, seen.targets))
        return jnp.sum(problem.stream.weights(state.stream, seen.item) > 0)

    return {"examples": examples}


UNCERTAIN = {
    "mesu": Plugin(
        "MESU",
        "#880e4f",
        {
            "learning_rate": 1.0,
            "window": 10_000.0,
            "prior_deviation": 1.0,
            "initial_deviation": 1.0,
            "clip": 0.1,
        },
        {"samples": 10},
        does="holds weights by how sure they are, and lets them forget by a prior",
        paper="Bonnet et al. 2025",
        made_by="loplax.optim.mesu",
        note=(
            "The network learns with weights that are drawn, in every step so many "
            "`samples`, and is tested with their means. The first deviations are "
            "`initial_deviation` over the root of the inputs of a weight, or of the "
            "size of a bias. The window is in minibatches."
        ),
        claims=("gradient", "wrap", "around", "consolidation", "new_classes"),
        optimizer=_mesu,
        around=_uncertain,
        objective=_expected,
        extra_args=_examples,
        compared=False,
    ),
}
