"""Plugins against the stability gap: what learns how fast when a session begins."""

from collections.abc import Callable
from typing import Any

import jax

from experiments.methods.plugin import Plugin, Stage
from loplax import nets, optim
from loplax.supervised import (
    Network,
    Problem,
    nearest_mean,
    new_classes,
    soft_targets,
    tasks,
)
from loplax.units import paths

ADAPTERS = "low_rank"  # their part of the parameters, and of the layers


def _frozen(argument: str) -> Callable:
    """A builder of transformations that do not move what the argument says."""

    def wrap(inner, setting, exact=True, **own):
        return optim.frozen(inner, argument=argument, exact=exact)

    return wrap


def _flags(of: Callable[[str, Any], Any]) -> Callable:
    """The flags of all parameters, from ``(path, state) -> flags`` of one."""

    def flags(state, seen):
        flag = lambda path, _: of(paths.name(path), state)
        return jax.tree.map_with_path(flag, state.params)

    return flags


def _beside_head(problem: Problem) -> dict[str, Callable]:
    """From the second session on, the output layer alone learns."""
    inside = tasks.in_head(problem)
    later = lambda state: problem.stream.task(state.stream) > 0
    flag = lambda path, state: False if inside(path) else later(state)
    return {"beside_head": _flags(flag)}


def _old_outputs(problem: Problem, exact: bool) -> dict[str, Callable]:
    """The weights and biases of classes that were there before the session."""
    inside = tasks.in_head(problem)
    old = lambda state: problem.stream.old_classes(state.stream)
    flag = lambda path, state: old(state) if inside(path) else False
    return {"old_outputs": _flags(flag)}


def _adapted(network: Network, shape, *, alpha, rank, without) -> Network:
    scale = alpha / rank
    init, wrap = nets.low_rank(network.init, rank=rank, scale=scale, without=without)
    return network._replace(
        init=init,
        apply=wrap(network.apply),
        predict=wrap(network.predict),
        embed=network.embed and wrap(network.embed),
    )


def _beside_adapters(problem: Problem, **own) -> dict[str, Callable]:
    """From the second session on, adapters and output layer learn, before all else."""
    inside = tasks.in_head(problem)

    def flag(path, state):
        later = problem.stream.task(state.stream) > 0
        if path.startswith(f"{ADAPTERS}/"):
            return ~later
        return False if inside(path) else later

    return {"beside_adapters": _flags(flag)}


def _merged(problem: Problem, *, alpha, rank, without) -> Callable:
    """Adapters become part of the weights, and begin anew with the optimiser."""
    restart = tasks.reset_optimizer(problem)

    def on_task(state, key):
        params = nets.merge_low_rank(state.params, key, alpha / rank)
        return restart(state._replace(params=params), key)

    return on_task


def _one_cycle(inner, setting, **own):
    return optim.one_cycle(inner, **own)


def _progress(problem: Problem, **own) -> dict[str, Callable]:
    progress = problem.stream.progress
    return {"progress": lambda state, seen: progress(state.stream, seen.item)}


_HERE = {"sessions": True, "compared": False}
# Of what says which weights learn, a method has one.
_PART = {"claims": ("learning_weights",), **_HERE}
_FREEZING = {**_PART, "stage": Stage.FREEZE}

CONSOLIDATING = {
    "soft_targets": Plugin(
        "soft targets",
        "#54278f",
        does="targets keep what was predicted for the classes learned before",
        paper="Harun & Kanan 2024",
        made_by="loplax.supervised.soft_targets.soft_targets",
        note=(
            "Targets are t = v / sum(v), where v is M_y for an old class y and p "
            "for a new one, v of the class predicted is 1 / K, and then v of y is "
            "1."
        ),
        choices={"weighting": "examples"},
        objective=soft_targets.objective,
        keeper=lambda problem, weighting: soft_targets.keeper(problem),
        **_HERE,
    ),
    "class_mean": Plugin(
        "class means",
        "#006d2c",
        does="output weights of new classes begin at the means of their examples",
        paper="Harun & Kanan 2024",
        made_by="loplax.supervised.new_classes.class_mean",
        note=(
            "The weights of class c are the mean of h / |h| over the session's "
            "examples of it."
        ),
        claims=("new_classes",),
        on_task=new_classes.class_mean,
        **_HERE,
    ),
    "least_squares": Plugin(
        "least squares",
        "#66a61e",
        {"ridge": 0.01},
        does="output weights of new classes begin at a regression of their examples",
        paper="Harun & Kanan 2025",
        made_by="loplax.supervised.new_classes.least_squares",
        note="W = Y'H / n (H'H / n + ridge s I)^-1; the ridge is ours.",
        claims=("new_classes",),
        on_task=new_classes.least_squares,
        **_HERE,
    ),
    "freeze_old_outputs": Plugin(
        "old outputs frozen",
        "#3182bd",
        does="output weights of old classes stay bit by bit",
        paper="Harun & Kanan 2024",
        made_by="loplax.optim.frozen",
        note=(
            "No gradient, and no decay either, of outputs of classes of earlier "
            "sessions. Not exact is as in the authors' code: decay shrinks them."
        ),
        choices={"exact": True},
        stage=Stage.FREEZE,
        wrap=_frozen("old_outputs"),
        extra_args=_old_outputs,
        **_HERE,
    ),
    "lora": Plugin(
        "LoRA",
        "#e6550d",
        {"alpha": 1.0},
        {"rank": 16, "without": ("output",)},
        does="learns low-rank adapters in later sessions",
        paper="Hu et al. 2021",
        made_by="loplax.nets.low_rank",
        note=(
            "As Harun & Kanan 2024: h W + alpha / rank (h A) B from the second "
            "session on, in which but for A, B and the output layer nothing learns; "
            "merged at each new session. Before, the whole network learns, and no "
            "adapter."
        ),
        **{**_FREEZING, "claims": ("learning_weights", "mean_of_weights")},
        restarts=True,
        maintains=lambda layer: not layer.startswith(f"{ADAPTERS}/"),
        wrap=_frozen("beside_adapters"),
        around=_adapted,
        extra_args=_beside_adapters,
        on_task=_merged,
    ),
    "head_only": Plugin(
        "output layer only",
        "#969696",
        does="learns in the output layer alone in later sessions",
        paper="Harun & Kanan 2024",
        made_by="loplax.optim.frozen",
        note="The paper compares with it.",
        **_FREEZING,
        wrap=_frozen("beside_head"),
        extra_args=_beside_head,
    ),
    "entire": Plugin(
        "entire network",
        "#525252",
        **_PART,
        does="learns in the entire network",
        paper="Harun & Kanan 2024",
        note="This is what happens without `lora` or `head_only` too.",
    ),
    "one_cycle": Plugin(
        "one cycle",
        "#4a6374",
        {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4},
        does="warms up and anneals the learning rate in every session",
        paper="Smith & Topin 2019",
        made_by="loplax.optim.one_cycle",
        note=(
            "With PyTorch's defaults: the rate rises from 1 / div_factor of itself, "
            "and falls, once in every session."
        ),
        wrap=_one_cycle,
        extra_args=_progress,
        stage=Stage.SCALE,
        tints=False,
        **_HERE,
    ),
    "ncm": Plugin(
        "nearest mean",
        "#f768a1",
        {"decay_rate": 0.9},
        does="tests nearest class means too",
        paper="Rebuffi et al. 2017",
        made_by="loplax.supervised.nearest_mean.keeper",
        note=(
            "The class with the nearest mean embedding is tested beside the output "
            "layer, as `ncm_`; the means move while it learns, as in Lapacz et al. "
            "2025."
        ),
        keeper=nearest_mean.keeper,
        evaluated=lambda problem, decay_rate: nearest_mean.evaluated(problem),
        **_HERE,
    ),
}
