"""Continual-learning problems as pure streams of examples."""

from loplax.streams.base import HeldOut, Stream
from loplax.streams.class_pairs import by_class, class_pairs
from loplax.streams.incremental_classes import incremental_classes
from loplax.streams.permuted_images import permuted_images
from loplax.streams.rehearsal import Rehearsal
from loplax.streams.selections import first_of_class, listed, long_tail
from loplax.streams.sessions import sessions
from loplax.streams.slowly_changing import slowly_changing_regression
from loplax.streams.splits import (
    Split,
    class_incremental,
    data_incremental,
    given,
)
from loplax.streams.transformed import permuted, rotated

__all__ = [
    "HeldOut",
    "Rehearsal",
    "Split",
    "Stream",
    "by_class",
    "class_incremental",
    "class_pairs",
    "data_incremental",
    "first_of_class",
    "given",
    "incremental_classes",
    "listed",
    "long_tail",
    "permuted",
    "permuted_images",
    "rotated",
    "sessions",
    "slowly_changing_regression",
]
