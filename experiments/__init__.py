"""The published problems of continual learning, as studies: ``experiments.run``."""

from typing import Any

from loplax import extras

with extras.needed("studies", "experiments"):
    import ml_collections as ml_collections  # what all of them begin with

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    if name != "run":
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    from experiments.launch import running

    return running.run
