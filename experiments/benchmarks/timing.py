"""Ratios of running times that hold on a noisy machine."""

import time
from collections.abc import Callable, Mapping

import jax
import numpy as np


def measure(programs: Mapping[str, Callable[[], object]], rounds: int = 7) -> dict:
    """Times programs in turn, round after round, after one call of each to compile.

    Args:
      programs: functions without arguments that return arrays.
      rounds: timed calls of each.

    Returns:
      Seconds per call, ``[rounds]`` for each program.
    """
    for program in programs.values():
        jax.block_until_ready(program())
    seconds = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program())
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(slow: np.ndarray, fast: np.ndarray) -> str:
    """Median of the ratios within a round, and their range."""
    ratios = slow / fast
    return f"{np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]"
