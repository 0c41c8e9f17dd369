"""Continual-learning problems as pure streams of examples."""

from loplax.streams.base import Stream
from loplax.streams.slowly_changing import slowly_changing_regression

__all__ = ["Stream", "slowly_changing_regression"]
