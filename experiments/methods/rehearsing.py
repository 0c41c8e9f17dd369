"""Plugins that show again what was learned before, or hold to it."""

from collections.abc import Callable

from experiments.methods.plugin import Plugin
from loplax import checks, optim, streams
from loplax.supervised import distillation, replay, tasks

# Of the buffer; what its settings mean, `loplax.streams.Rehearsal` says.
BUFFER = {"capacity": 2000, "policy": "reservoir", "memory": 128}
REPLAYED = {**BUFFER, "fill": "after", "later": ()}
# As all here, they need sessions.
_HERE = {"sessions": True, "compared": False}


def _rehearsed(**fixed) -> Callable:
    """A builder of streams with a buffer, from those that can have one."""

    def build(stream: streams.Stream, **own) -> streams.Stream:
        given = {n: own[n] for n in streams.Rehearsal._fields if n in own}
        return stream.rehearse(streams.Rehearsal(**fixed, **given))

    return build


def _kept(make: Callable, name: str, *numbers: str) -> Callable:
    """A builder from one of the learner's parts that has its memory under a name."""
    return lambda problem, **own: make(problem, name, **{n: own[n] for n in numbers})


def _interfered(problem, *, step_size, replayed, memory, **own):
    checks.whole("replayed", replayed, 1)
    if replayed > memory:
        raise ValueError(f"replayed must be at most memory ({memory}), got {replayed}.")
    return replay.most_interfered(problem, step_size=step_size, replayed=replayed)


REHEARSING = {
    "er": Plugin(
        "replay",
        "#e31a8c",
        {"new_weight": 0.5},
        {**REPLAYED, "weighting": "sessions"},
        does="rehearses a buffer",
        paper="Chaudhry et al. 2019",
        made_by="loplax.streams.Rehearsal",
        note="A session counts as in Hess et al. 2023.",
        stream=_rehearsed(),
        tints=False,
        **_HERE,
    ),
    "joint": Plugin(
        "joint",
        "#000000",
        does="rehearses all data so far",
        made_by="loplax.streams.Rehearsal",
        note="As many examples for each session at every step.",
        choices={"memory": 128, "per_session": True},
        stream=_rehearsed(capacity=0, fill="before", new=0),
        **_HERE,
    ),
    "er_ace": Plugin(
        "ER-ACE",
        "#41b6c4",
        {"new_weight": 0.5},
        {**REPLAYED, "weighting": "fixed"},
        does="rehearses; new examples leave the logits of absent classes alone",
        paper="Caccia et al. 2022",
        made_by="loplax.supervised.replay.asymmetric_cross_entropy",
        note=(
            "Both parts count alike, so that the objective is half of the authors' sum."
        ),
        stream=_rehearsed(),
        objective=_kept(replay.asymmetric_cross_entropy, "er_ace"),
        keeper=_kept(replay.classes_seen, "er_ace"),
        **_HERE,
    ),
    "mir": Plugin(
        "MIR",
        "#1d91c0",
        {"new_weight": 0.5, "step_size": 0.1},
        {**REPLAYED, "weighting": "fixed", "replayed": 32},
        does="rehearses what a step on new examples would harm most",
        paper="Aljundi et al. 2019",
        made_by="loplax.supervised.replay.most_interfered",
        note="The step should be as long as the optimiser's.",
        stream=_rehearsed(),
        objective=_interfered,
        **_HERE,
    ),
    "der": Plugin(
        "DER",
        "#c51b8a",
        {"alpha": 0.3},
        BUFFER,
        does="holds a buffer's examples at their first logits",
        paper="Buzzega et al. 2020",
        made_by="loplax.supervised.distillation.dark_experience",
        note=(
            "Examples enter the buffer as they are first learned from, with the "
            "logits that they then have. The numbers are those of the authors' code "
            "for CIFAR-10 and a buffer of 500."
        ),
        stream=_rehearsed(fill="online"),
        objective=_kept(distillation.dark_experience, "der", "alpha"),
        keeper=_kept(distillation.stored_outputs, "der"),
        **_HERE,
    ),
    "derpp": Plugin(
        "DER++",
        "#7a0177",
        {"alpha": 0.2, "beta": 0.5},
        BUFFER,
        does=(
            "holds a buffer's examples at their first logits and at their labels "
            "(DER++)"
        ),
        paper="Buzzega et al. 2020",
        made_by="loplax.supervised.distillation.dark_experience",
        note=(
            "Half of the buffer's examples in a minibatch are for the labels. The "
            "numbers are those of the authors' code for CIFAR-10 and a buffer of "
            "500."
        ),
        stream=_rehearsed(fill="online"),
        objective=_kept(distillation.dark_experience, "derpp", "alpha", "beta"),
        keeper=_kept(distillation.stored_outputs, "derpp"),
        **_HERE,
    ),
    "gdumb": Plugin(
        "GDumb",
        "#636363",
        does="a new network for each session, from a balanced buffer alone",
        paper="Prabhu et al. 2020",
        note="Without the authors' cosine schedule and cut-and-mix.",
        choices={"capacity": 2000, "memory": 128},
        claims=("restart",),
        stream=_rehearsed(policy="greedy", fill="before", new=0),
        on_task=lambda problem, **own: tasks.reset_all(problem),
        **_HERE,
    ),
    "a_gem": Plugin(
        "A-GEM",
        "#fc8d59",
        does=(
            "projects gradients that oppose those of earlier sessions: alone, or "
            "`er+a_gem`"
        ),
        paper="Chaudhry et al. 2019",
        made_by="loplax.optim.a_gem",
        note=(
            "With a plugin that rehearses (`er+a_gem`, Hess et al. 2023) it is that "
            "one's minibatch that is learned from, and the settings here do not "
            "count. Alone, the examples of the buffer are for reference only."
        ),
        choices={**BUFFER, "fill": "after"},
        gradient=lambda setting, **own: optim.a_gem(),
        extra_args=lambda problem, **own: {
            "reference": replay.gradient_of_before(problem)
        },
        lone_stream=_rehearsed(weighting="fixed", new_weight=1.0),
        **_HERE,
    ),
    "lwf": Plugin(
        "LwF",
        "#33a02c",
        {"temperature": 2.0, "strength": 1.0},
        does=(
            "holds the outputs for earlier classes at those of the last session's "
            "network"
        ),
        paper="Li & Hoiem 2016",
        made_by="loplax.supervised.distillation.learning_without_forgetting",
        note="Without a buffer.",
        penalty=_kept(
            distillation.learning_without_forgetting, "lwf", "temperature", "strength"
        ),
        keeper=_kept(distillation.teacher, "lwf"),
        **_HERE,
    ),
}
