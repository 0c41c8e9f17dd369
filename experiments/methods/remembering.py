"""Plugins that hold weights by what they are worth to earlier tasks."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.methods.plugin import Plugin
from loplax import checks, optim, units
from loplax.optim import keys
from loplax.supervised import Network, Problem, boundaries, learning

EWC = optim.elastic_weight_consolidation


def _metaplastic(inner, setting, m):
    return optax.chain(inner, optim.metaplastic(m))


def _seen(groups: units.Units) -> dict[str, Callable]:
    """What is held of a weight: its sign, where the layers take nothing else of it."""
    axes = [a for group in groups for a in (*group.incoming, *group.outgoing)]
    if not any(axis.through == "sign" for axis in axes):
        return {}
    return {"through": lambda w: jnp.sign(w) if jnp.ndim(w) > 1 else w}


def _penalty(make: Callable) -> Callable:
    """A builder of what is added to the gradient; norms of binary layers are free."""

    def build(setting, *, strength, **own):
        seen = _seen(setting.groups)
        tx = make(strength, **seen)
        weights = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
        return optax.masked(tx, weights) if seen else tx

    return build


def _at_ends(name: str, make: Callable, importance: Callable, shuffled: bool = False):
    """A builder of what consolidates, given ``(problem, examples) -> importance``."""

    def build(problem, *, strength, examples):
        checks.whole("examples", examples, 0)
        found = importance(problem, examples)

        def permuted(state):
            task = problem.stream.task(state.stream)
            key = jax.random.fold_in(keys.named(state.key_tx, name), task)
            return optim.permuted(found(state), key)

        consolidate = make(strength, **_seen(problem.groups)).consolidate
        return boundaries.consolidating(
            problem, name, consolidate, permuted if shuffled else found
        )

    return build


def _intelligent(inner, setting, *, path, **own):
    checks.one_of("si.path", path, ("weight", "sign"))
    seen = _seen(setting.groups)
    if path == "sign":
        if not seen:
            raise ValueError("si.path is sign, and the weights are not binarised.")
        seen["path"] = seen["through"]
    return optim.synaptic_intelligence(inner, **own, **seen)


def _intelligence_at_ends(problem, *, path, **own):
    del path  # a matter of the steps alone
    tx = optim.synaptic_intelligence(optax.identity(), **own)
    return boundaries.consolidating(problem, "si", tx.consolidate)


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


# Of what consolidates at the end of a task a method has one.
_ONE = {"claims": ("consolidation",), "sessions": True, "compared": False}

REMEMBERING = {
    "metaplastic": Plugin(
        "metaplastic",
        "#bf1a8f",
        {"m": 1.35},
        does="makes latent weights that have grown hard to bring back",
        paper="Laborieux et al. 2021",
        made_by="loplax.optim.metaplastic",
        note=(
            "Meant for weights of which the network reads the signs, as the binarised "
            "networks of `metaplasticity` do. "
            "The paper has 0.5, 1 and 1.35 at 24,000 steps a task; fewer steps need "
            "more."
        ),
        wrap=_metaplastic,
        scales_rate=True,
        compared=False,
    ),
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
    "ewc": Plugin(
        "EWC",
        "#2171b5",
        {"strength": 5000.0},
        {"examples": 5000},
        does="holds weights by their Fisher information, of each task",
        paper="Kirkpatrick et al. 2017",
        made_by="loplax.optim.elastic_weight_consolidation",
        note="The numbers are those of Laborieux et al. 2021.",
        gradient=_penalty(EWC),
        keeper=_at_ends("ewc", EWC, boundaries.fisher),
        **_ONE,
    ),
    "random_consolidation": Plugin(
        "random consolidation",
        "#9ecae1",
        {"strength": 5000.0},
        {"examples": 5000},
        does="holds weights by the Fisher information of others: a control",
        paper="Laborieux et al. 2021",
        made_by="loplax.optim.permuted",
        note="As strong as `ewc`, but at random weights of each layer.",
        gradient=_penalty(EWC),
        keeper=_at_ends("random_consolidation", EWC, boundaries.fisher, True),
        **_ONE,
    ),
    "si": Plugin(
        "SI",
        "#807dba",
        {"strength": 0.2, "xi": 0.1},
        {"path": "weight"},  # or sign: of what of a weight the steps are
        does="holds weights by what their steps took from the loss",
        paper="Zenke et al. 2017",
        made_by="loplax.optim.synaptic_intelligence",
        note=(
            "The paper has c = 0.1 on permuted MNIST, which is a strength of 0.2. "
            "Both paths are in the code of Laborieux et al. 2021."
        ),
        wrap=_intelligent,
        keeper=_intelligence_at_ends,
        **_ONE,
    ),
    "mas": Plugin(
        "MAS",
        "#238b45",
        {"strength": 2.0},
        {"examples": 5000},
        does="holds weights by how much the outputs depend on them",
        paper="Aljundi et al. 2018",
        made_by="loplax.optim.memory_aware_synapses",
        note="The paper has lambda = 1, which is a strength of 2.",
        gradient=_penalty(optim.memory_aware_synapses),
        keeper=_at_ends("mas", optim.memory_aware_synapses, boundaries.sensitivity),
        **_ONE,
    ),
}
