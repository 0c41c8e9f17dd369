"""Walker2d: what a configuration means."""

from experiments.studies.control import make

__all__ = ["make"]
