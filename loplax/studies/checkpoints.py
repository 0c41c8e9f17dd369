"""What a study goes on from: its config, and checkpoints of the runs in progress."""

import json
import os
import pathlib
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from orbax.checkpoint import v1 as ocp

from loplax.studies import results

_KEPT = 2


class Checkpoint(NamedTuple):
    """The runs in progress, between two segments.

    Attributes:
      method: name of their method.
      runs: numbers of the runs, ``[runs]``.
      segment: how many segments they have finished.
      leaves: the leaves of their state by name, each ``[runs, ...]``.
    """

    method: str
    runs: np.ndarray
    segment: int
    leaves: dict[str, np.ndarray]


def open_study(
    directory: str | os.PathLike,
    config: Mapping[str, Any],
    versions: Mapping[str, Any],
    overwrite: bool = False,
) -> pathlib.Path:
    """Opens the study in a directory, or begins it: ``config.json``, ``versions.json``.

    Args:
      directory: the study's directory; it is made if it does not exist.
      config: all that the results depend on, as JSON values.
      versions: what the study runs on, as JSON values.
      overwrite: whether to delete the study that is there.

    Returns:
      The directory.

    Raises:
      ValueError: if the directory cannot be written, is not a study's, or holds a study
        with another config; nothing has been changed then.

    Example:
      >>> open_study("pyproject.toml/study", {}, {})
      Traceback (most recent call last):
      ValueError: cannot write to pyproject.toml/study: Not a directory
    """
    folder = pathlib.Path(directory)
    config, versions = (as_json(values) for values in (config, versions))
    _check_folder(folder, config, overwrite)
    if overwrite:
        (folder / "results.nc").unlink(missing_ok=True)
    if not (folder / "results.nc").exists():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        for name, values in (("versions", versions), ("config", config)):
            text = json.dumps(values, indent=2) + "\n"
            results.replace(folder / f"{name}.json", text.encode())
    changed = "; ".join(_differences(_read_json(folder / "versions.json"), versions))
    if changed:
        warnings.warn(
            f"the study began on other versions, numbers may differ in rounding: "
            f"{changed}",
            stacklevel=3,
        )
    return folder


def _check_folder(
    folder: pathlib.Path, config: dict[str, Any], overwrite: bool
) -> None:
    """Refuses a directory in which the study cannot begin or go on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror}") from error
    present = {path.name for path in folder.iterdir() if path.suffix != ".tmp"}
    if "config.json" not in present:
        if present and (overwrite or "results.nc" in present):
            raise ValueError(
                f"{folder} has files but no config.json: it is not a study's, and "
                "nothing in it is overwritten"
            )
    elif not overwrite:
        changed = "; ".join(_differences(_read_json(folder / "config.json"), config))
        if changed:
            raise ValueError(
                f"{folder} holds a study with another config: {changed}. Choose "
                "another directory, or overwrite the study"
            )


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON gives them back: tuples become lists.

    Args:
      values: the values.

    Returns:
      Lists, dicts, texts and numbers.

    Raises:
      ValueError: if there is another value.

    Example:
      >>> as_json({"sizes": (1, 2)})
      {'sizes': [1, 2]}
    """
    try:
        return json.loads(json.dumps(values))
    except TypeError as error:
        raise ValueError(f"config cannot be written as JSON: {error}") from error


def save(directory: str | os.PathLike, checkpoint: Checkpoint) -> None:
    """Saves a checkpoint, then deletes all but the last two.

    Args:
      directory: folder of the checkpoints; it is made if it does not exist.
      checkpoint: what to save.

    Raises:
      OSError: if it cannot be saved; the earlier checkpoints are then intact.

    Example:
      >>> import tempfile
      >>> leaves = {"['w']": np.ones([2, 3])}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save(folder, Checkpoint("bp", np.array([0, 1]), 5, leaves))
      ...     next(read(folder)).segment
      5
    """
    folder = pathlib.Path(directory).absolute()
    numbers = _numbers(folder)
    number = max(numbers, default=0) + 1
    path = folder / str(number)
    leaves = checkpoint.leaves
    # Orbax refuses arrays without elements; their shapes say all there is to know.
    # Numbers name the arrays because a leaf's own name may hold any character.
    arrays = {f"leaf_{i}": leaf for i, leaf in enumerate(leaves.values()) if leaf.size}
    described = {
        "method": checkpoint.method,
        "segment": checkpoint.segment,
        "leaves": [
            [name, str(leaf.dtype), leaf.shape] for name, leaf in leaves.items()
        ],
    }
    try:
        _check_space(folder, sum(leaf.nbytes for leaf in arrays.values()))
        ocp.save(path, {"runs": checkpoint.runs, **arrays}, overwrite=True)
        described["files"] = _checksums(path)
        results.replace(folder / f"{number}.json", _sealed(described))
    except Exception as error:  # a full disk has many names in orbax and tensorstore
        _keep(folder, numbers)
        reason = f"could not save checkpoint {path}: {str(error)[:200]}"
        raise OSError(reason + "; those of before are left") from error
    _keep(folder, [*numbers, number][-_KEPT:])


def _check_space(folder: pathlib.Path, size: int) -> None:
    """Refuses early what does not fit: orbax would log page upon page first."""
    folder.mkdir(exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(f"no space left: it takes {size:,} bytes, {free:,} are free")


def read(directory: str | os.PathLike) -> Iterator[Checkpoint]:
    """Reads the good checkpoints, newest first, and warns of each that is damaged.

    Args:
      directory: folder of the checkpoints.

    Yields:
      The checkpoints.
    """
    folder = pathlib.Path(directory).absolute()
    for number in reversed(_numbers(folder)):
        try:
            checkpoint = _read(folder, number)
        except Exception as error:  # whatever orbax meets in a torn file
            reason = str(error).partition("\n")[0][:200]
            warnings.warn(
                f"checkpoint {folder / str(number)} is damaged and left out: {reason}",
                stacklevel=2,
            )
        else:
            yield checkpoint


def _read(folder: pathlib.Path, number: int) -> Checkpoint:
    sealed = (folder / f"{number}.json").read_bytes()
    described = json.loads(sealed)["checkpoint"]
    path = folder / str(number)
    # Orbax gets to see whole files only: torn ones make it log page upon page.
    if sealed != _sealed(described) or _checksums(path) != described["files"]:
        raise ValueError("its files are not those that were saved")
    arrays = ocp.load(path)
    leaves = {
        name: np.asarray(arrays.get(f"leaf_{i}", np.zeros(shape, dtype)))
        for i, (name, dtype, shape) in enumerate(described["leaves"])
    }
    runs = np.asarray(arrays["runs"])
    return Checkpoint(described["method"], runs, described["segment"], leaves)


def _sealed(described: Mapping[str, Any]) -> bytes:
    """A description as JSON, with its checksum."""
    checksum = zlib.crc32(json.dumps(described).encode())
    return json.dumps({"checkpoint": described, "checksum": checksum}).encode()


def _checksums(path: pathlib.Path) -> dict[str, int]:
    """Checksum of every file of a checkpoint."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {
        str(file.relative_to(path)): zlib.crc32(file.read_bytes()) for file in files
    }


def _numbers(folder: pathlib.Path) -> list[int]:
    """Numbers of the checkpoints that were completed, oldest first."""
    stems = (path.stem for path in folder.glob("*.json"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def _keep(folder: pathlib.Path, numbers: Sequence[int]) -> None:
    """Deletes all but these checkpoints, and what was left of a broken save."""
    kept = {name for number in numbers for name in (f"{number}", f"{number}.json")}
    for path in folder.glob("*"):
        if path.name not in kept and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in kept:
            path.unlink(missing_ok=True)


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Every place where two JSON values differ, as ``place: old -> new``."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if json.dumps(old) != json.dumps(new):  # NaN equals NaN here
            yield f"{path}: {json.dumps(old)} -> {json.dumps(new)}"
        return
    for name in sorted({*old, *new}):
        place = f"{path}.{name}" if path else name
        if name in old and name in new:
            yield from _differences(old[name], new[name], place)
        else:
            values = [json.dumps(d[name]) if name in d else "none" for d in (old, new)]
            yield f"{place}: {values[0]} -> {values[1]}"
