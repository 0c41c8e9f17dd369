"""Plugins that hold weights by what they are worth to earlier tasks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from experiments.methods.plugin import Plugin, Stage
from loplax import checks, optim, units
from loplax.optim import keys
from loplax.supervised import boundaries

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
        stage=Stage.SCALE,
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
        stage=Stage.READ,
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
