"""Files that are whole or not there, and that tell when they were damaged."""

import contextlib
import json
import os
import pathlib
import re
import secrets
import warnings
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")


def write(path: pathlib.Path, fill: Callable[[BinaryIO], Any]) -> None:
    """Writes a file whole and for good, or leaves the one that is there as it was.

    Args:
      path: the file.
      fill: writes the contents into an open file.

    Raises:
      OSError: if it cannot be written.
    """
    unique = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{unique}.tmp")
    try:
        with temporary.open("xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        message = f"{error.strerror or error}; what was there is left as it was"
        raise OSError(error.errno, message, str(path)) from error


def sync(folder: pathlib.Path) -> None:
    """Makes the entries of a folder last, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_temporary(folder: pathlib.Path) -> None:
    """Deletes what `write` left of files when the process died."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write_sealed(path: pathlib.Path, values: Any) -> None:
    """Writes JSON values with their checksum.

    Args:
      path: the file.
      values: the values.

    Raises:
      OSError: if it cannot be written.
    """
    text = json.dumps({"checksum": _checksum(values), "content": values}, indent=1)
    write(path, lambda file: file.write(text.encode()))


def read_sealed(path: pathlib.Path) -> Any:
    """Reads what `write_sealed` wrote.

    Args:
      path: the file.

    Returns:
      The values.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is not what was written.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "study.json"
      ...     write_sealed(path, {"key": 1})
      ...     read_sealed(path)
      {'key': 1}
    """
    try:
        found = json.loads(path.read_bytes())
        if found["checksum"] == _checksum(found["content"]):
            return found["content"]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    raise ValueError(f"{path} is damaged: its checksum is wrong")


def _checksum(values: Any) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def set_aside(study: pathlib.Path, path: pathlib.Path, reason: str) -> None:
    """Moves a damaged file out of the way, for whoever wants to save what it holds.

    Args:
      study: the study's directory; the file goes into its ``damaged``.
      path: the file.
      reason: what is wrong with it, for a warning.
    """
    folder = study / "damaged"
    folder.mkdir(exist_ok=True)
    os.replace(path, folder / f"{path.name}.{secrets.token_hex(4)}")
    sync(folder)
    sync(path.parent)
    warnings.warn(
        f"{path} is damaged and was moved to {folder}: {reason}", stacklevel=2
    )
