"""The supervised learner: one stream, one network, one transformation, one run."""

from loplax.supervised.evaluation import evaluate, measure, test
from loplax.supervised.learning import learn, step
from loplax.supervised.observation import FAMILIES, observe
from loplax.supervised.problem import (
    Build,
    Keeper,
    Network,
    Problem,
    Seen,
    TrainState,
    stateless,
)
from loplax.supervised.run import init, segment

__all__ = [
    "FAMILIES",
    "Build",
    "Keeper",
    "Network",
    "Problem",
    "Seen",
    "TrainState",
    "evaluate",
    "init",
    "learn",
    "measure",
    "observe",
    "segment",
    "stateless",
    "step",
    "test",
]
