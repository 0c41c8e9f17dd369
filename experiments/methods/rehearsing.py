"""Plugins that show again what was learned before."""

from collections.abc import Callable

from experiments.methods.plugin import Plugin
from loplax import streams

# Of the buffer; what its settings mean, `loplax.streams.Rehearsal` says.
BUFFER = {"capacity": 2000, "policy": "reservoir", "fill": "after", "memory": 128}


def _rehearsed(**fixed) -> Callable:
    """A builder of streams with a buffer, from those that can have one."""

    def build(stream: streams.Stream, **own) -> streams.Stream:
        if stream.rehearse is None:
            raise ValueError("rehearsal needs a problem that is learned in sessions.")
        return stream.rehearse(streams.Rehearsal(**fixed, **own))

    return build


REHEARSING = {
    # Experience replay, Chaudhry et al. 2019; a session counts as in Hess et al. 2023.
    "er": Plugin(
        "replay",
        "#2171b5",
        {"new_weight": 0.5},
        {**BUFFER, "later": (), "weighting": "sessions"},
        compared=False,  # as all here, it needs sessions
        stream=_rehearsed(),
    ),
    # All data so far at every step, as many examples for each session.
    "joint": Plugin(
        "joint",
        "#000000",
        choices={"memory": 128, "per_session": True},
        compared=False,
        stream=_rehearsed(capacity=0, fill="before", new=0),
    ),
}
