"""Hopper: what a configuration means."""

from experiments.control import make

__all__ = ["make"]
