"""The published problems of continual learning, as studies: ``experiments.run``."""

from typing import Any

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    if name != "run":
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    from experiments.launch import running

    return running.run
