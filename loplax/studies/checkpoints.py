"""States of runs on disk, from which they go on: ``states/UNIT-BIN.npz``."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from loplax.studies import files, pieces

_NAME = re.compile(r"(\d{6,})-(\d{8,})\.npz")


class Checkpoint(NamedTuple):
    """Some runs between two segments.

    Attributes:
      group: the runs.
      bin: how many bins they have finished.
      leaves: type and shape of the leaves of the state of one run, by name.
    """

    group: pieces.Group
    bin: int
    leaves: dict[str, tuple[str, tuple[int, ...]]]


def save(
    study: pathlib.Path,
    group: pieces.Group,
    number: int,
    leaves: Mapping[str, np.ndarray],
    kept: int = 2,
) -> None:
    """Saves the state of some runs, then deletes older ones of the same unit.

    Args:
      study: the study's directory.
      group: the runs.
      number: how many bins they have finished.
      leaves: the leaves of the state by name, each ``[runs, ...]``.
      kept: how many states of the unit to keep.

    Raises:
      OSError: if it cannot be saved; the earlier ones are then intact.
    """
    unit, about, hparams, seeds = group
    described = {
        "unit": unit,
        "about": about._asdict(),
        "hparams": {name: values.tolist() for name, values in hparams.items()},
        "seeds": seeds.tolist(),
        "bin": number,
        "leaves": [[name, str(x.dtype), x.shape] for name, x in leaves.items()],
    }
    # Numbers name the arrays, because a leaf's own name may hold any character, and as
    # bytes they may have any type.
    arrays: dict[str, Any] = {
        f"leaf_{i}": np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
        for i, leaf in enumerate(leaves.values())
    }
    text = np.frombuffer(json.dumps(described).encode(), np.uint8)
    path = study / "states" / f"{unit:06d}-{number:08d}.npz"
    files.write(path, lambda file: np.savez(file, about=text, **arrays))
    for old in of_unit(study, unit)[:-kept]:
        old.unlink(missing_ok=True)


def of_units(study: pathlib.Path) -> list[pathlib.Path]:
    """Files of all states, by unit and bin."""
    found = (study / "states").glob("*.npz")
    return sorted(path for path in found if _NAME.fullmatch(path.name))


def of_unit(study: pathlib.Path, unit: int) -> list[pathlib.Path]:
    """Files of the states of a unit, by bin."""
    return [path for path in of_units(study) if unit_of(path) == unit]


def unit_of(path: pathlib.Path) -> int:
    """The unit of a state, from its file."""
    return int(path.stem.partition("-")[0])


def bin_of(path: pathlib.Path) -> int:
    """How many bins the runs of a state have finished, from its file."""
    return int(path.stem.partition("-")[2])


def check(path: pathlib.Path) -> Checkpoint:
    """Reads a state and forgets it, but for whose it is.

    Args:
      path: the file.

    Returns:
      The checkpoint.

    Raises:
      ValueError: if the file is damaged.
    """
    found = _read(path, _checked)
    group = pieces.Group(
        found["unit"],
        pieces.About(**found["about"]),
        {name: np.asarray(x, float) for name, x in found["hparams"].items()},
        np.asarray(found["seeds"]),
    )
    leaves = {name: (kind, tuple(shape[1:])) for name, kind, shape in found["leaves"]}
    return Checkpoint(group, found["bin"], leaves)


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a state.

    Args:
      path: the file.

    Returns:
      Its leaves by name, each ``[runs, ...]``.

    Raises:
      ValueError: if the file is damaged.
    """
    return _read(path, _leaves)


def _read(path: pathlib.Path, part: Any) -> Any:
    try:
        with np.load(path) as arrays:  # it compares the checksum of each
            return part(arrays)
    except Exception as error:  # whatever the reader of zip files stumbles over
        raise ValueError(f"{path} is damaged: {error}") from error


def _checked(arrays: Any) -> dict[str, Any]:
    for name in arrays.files:
        arrays[name]
    return _described(arrays)


def _described(arrays: Any) -> dict[str, Any]:
    return json.loads(arrays["about"].tobytes())


def _leaves(arrays: Any) -> dict[str, np.ndarray]:
    import jax.numpy as jnp  # it knows more types than numpy

    return {
        name: arrays[f"leaf_{i}"].view(jnp.dtype(dtype)).reshape(shape)
        for i, (name, dtype, shape) in enumerate(_described(arrays)["leaves"])
    }
