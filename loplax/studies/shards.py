"""A study in parts, each computed by a process in a directory of its own.

Shard ``i`` of ``n`` of the study in a directory works in ``shards/i-of-n`` below it, so
that no two shards write into one directory. A shard takes whole blocks of runs, those
that one device vmaps: which run belongs to which shard does not depend on the machine,
and every run is computed in a block as large as in the undivided study.
"""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from loplax.studies import runs

_PLACE = re.compile(r"(\d+)-of-(\d+)")


class Shard(NamedTuple):
    """A part of a study.

    Attributes:
      number: which one, from 1.
      of: how many there are.
    """

    number: int
    of: int


def check(shard: Any) -> Shard:
    """A shard, as it was given.

    Args:
      shard: two whole numbers, ``(2, 8)``, or the text ``"2/8"``.

    Returns:
      The shard.

    Raises:
      ValueError: if it is something else, or not one of 1/n to n/n.

    Example:
      >>> check("2/8")
      Shard(number=2, of=8)
    """
    parts = shard.split("/") if isinstance(shard, str) else shard
    try:
        number, of = (int(str(part)) for part in parts)
    except (TypeError, ValueError):
        number = of = 0
    if not 1 <= number <= of:
        raise ValueError(
            f"shard is {shard!r}; it must be one of 1/n to n/n, such as 2/8"
        )
    return Shard(number, of)


def folder(study: str | os.PathLike, shard: Shard | None) -> pathlib.Path:
    """The directory in which a shard works, or the study as a whole.

    Args:
      study: the study's directory.
      shard: the shard, if it is one.

    Returns:
      The directory; nothing is made.

    Raises:
      ValueError: if the study was begun undivided, or in another number of shards.
    """
    study = pathlib.Path(study)
    numbers = {int(path.name.rpartition("-")[2]) for path in every(study)}
    begun = (study / "study.json").exists()
    if shard is None:
        if numbers and not begun:
            raise ValueError(
                f"{study} has shards only: put them together first, with python -m "
                f"experiments merge {study} {study}/shards/*"
            )
        return study
    if begun and not numbers:
        raise ValueError(
            f"{study} holds a study that is not divided, and a shard would compute its "
            "part of it anew: go on without a shard, or choose another directory"
        )
    if numbers - {shard.of}:
        raise ValueError(
            f"{study} is divided into {max(numbers - {shard.of})} shards, not into "
            f"{shard.of}: keep to their number, or choose another directory"
        )
    return study / "shards" / f"{shard.number}-of-{shard.of}"


def every(study: pathlib.Path) -> list[pathlib.Path]:
    """The directories of all shards that were begun."""
    found = (study / "shards").glob("*-of-*")
    return sorted(path for path in found if _PLACE.fullmatch(path.name))


def divide(study: str | os.PathLike, of: int) -> None:
    """Divides a study, also one that was begun undivided: makes all directories."""
    for number in range(1, of + 1):
        place = pathlib.Path(study) / "shards" / f"{number}-of-{of}"
        place.mkdir(parents=True, exist_ok=True)


def blocks(counts: Mapping[str, int], runs_per_block: int) -> dict[str, np.ndarray]:
    """Number of the block of every run, on through all methods by their names.

    Args:
      counts: for every method its number of runs.
      runs_per_block: most runs that a device vmaps.

    Returns:
      For every method the numbers, ``[runs]``.

    Example:
      >>> found = blocks({"bp": 3, "cbp": 2}, runs_per_block=2)
      >>> {name: numbers.tolist() for name, numbers in found.items()}
      {'bp': [0, 0, 1], 'cbp': [2, 2]}
    """
    found, first = {}, 0
    for name in sorted(counts):
        size = runs.layout(counts[name], 1, runs_per_block)
        found[name] = first + np.arange(counts[name]) // size
        first = int(found[name][-1]) + 1
    return found
