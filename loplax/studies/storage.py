"""The directory of a study: whose it is, what is in it, and one process at a time.

``study.json`` says that the directory is a study's, and which; ``results`` holds the
pieces that are done (see ``pieces``), ``states`` the runs in progress and those kept
(see ``checkpoints``), ``asked.json`` what the last call asked for, ``versions.json``
what the study began on, ``damaged`` what could not be read. Whatever else is there
stays as it is.
"""

import contextlib
import json
import os
import pathlib
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from loplax import locks
from loplax.studies import checkpoints, files, identity, pieces

_OWN = ("study.json", "asked.json", "versions.json", "results", "states", "damaged")


def look(
    folder: pathlib.Path,
    fixed: Mapping[str, Any],
    defaults: Mapping[str, Any],
    *,
    known: Mapping[str, pieces.Piece] | None = None,
    overwrite: bool = False,
) -> tuple[dict[str, pieces.Piece], dict[pathlib.Path, str]]:
    """What there is already of a study; nothing is changed.

    Args:
      folder: its directory; it need not exist.
      fixed: the fixed part of the study: ``config``, ``data``, ``key``, as JSON values.
      defaults: the defaults of its config.
      known: pieces that were read already.
      overwrite: whether it does not matter, as long as it is a study.

    Returns:
      The good pieces by name, and of the damaged ones what is wrong with them.

    Raises:
      ValueError: if the directory cannot be written, or holds something else.
    """
    _check_writable(folder)
    found, damaged = pieces.read_all(folder, known or {})
    before = stored(folder, found)
    if before is None:
        _check_free(folder)
    if before is None or overwrite:
        return {}, {}
    old, new = (
        study | {"config": identity.with_defaults(study["config"], defaults)}
        for study in (before, dict(fixed))
    )
    changed = "; ".join(identity.differences(old, new))
    if changed:
        raise ValueError(
            f"{folder} holds another study: {changed}. Choose another directory, or "
            "overwrite the study"
        )
    return found, damaged


def _check_writable(folder: pathlib.Path) -> None:
    """Refuses a directory in which nothing can be written; it is not made yet."""
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror}") from error


def stored(
    folder: pathlib.Path, found: Mapping[str, pieces.Piece]
) -> dict[str, Any] | None:
    """The fixed part of the study that is there, by its mark or by what it computed.

    Args:
      folder: its directory.
      found: its pieces.

    Returns:
      The fixed part; None if no study is there.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        return files.read_sealed(folder / "study.json")["fixed"]
    return next((dict(piece.group.about.study) for piece in found.values()), None)


def _check_free(folder: pathlib.Path) -> None:
    """Refuses a directory that has something where a study would put its own."""
    for name in _OWN:
        if os.path.lexists(folder / name):
            raise ValueError(
                f"{folder} has a {name}, but no study.json that can be read: it is not "
                "known to be a study's, and nothing in it is changed"
            )


@contextlib.contextmanager
def opened(
    folder: pathlib.Path,
    fixed: Mapping[str, Any],
    defaults: Mapping[str, Any],
    *,
    known: Mapping[str, pieces.Piece],
    versions: Mapping[str, Any],
    overwrite: bool,
) -> Iterator[dict[str, pieces.Piece]]:
    """Opens the study in a directory, or begins it; no other process can meanwhile.

    Args:
      folder: the directory; it is made if it does not exist.
      fixed: the fixed part of the study.
      defaults: the defaults of its config.
      known: the pieces that were read already.
      versions: what the study runs on, as JSON values.
      overwrite: whether to delete the study that is there.

    Yields:
      The good pieces by name; damaged ones have been set aside.

    Raises:
      ValueError: if another process works in it, or it holds something else now.
      OSError: if a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locks.held(folder / ".lock", f"the study in {folder}"):
        found, damaged = look(folder, fixed, defaults, known=known, overwrite=overwrite)
        if overwrite:
            _delete(folder)
        for place in (folder, folder / "results", folder / "states"):
            files.clear_temporary(place)
        _mark(folder, fixed, overwrite)
        for path, reason in damaged.items():
            files.set_aside(folder, path, reason)
        for name in ("results", "states"):
            (folder / name).mkdir(exist_ok=True)
        files.sync(folder)
        _compare_versions(folder, versions)
        yield found


def _delete(folder: pathlib.Path) -> None:
    """Deletes the files that a study made, but its mark."""
    for path in (*pieces.of_units(folder), *checkpoints.of_units(folder)):
        path.unlink()
    for name in ("asked.json", "versions.json"):
        (folder / name).unlink(missing_ok=True)


def remove(folder: pathlib.Path) -> None:
    """Deletes the study in a directory, and the directory if nothing else is in it.

    Args:
      folder: the directory.

    Raises:
      ValueError: if another process works in it.
    """
    with locks.held(folder / ".lock", f"the study in {folder}"):
        _delete(folder)
        for place in (folder, folder / "results", folder / "states"):
            files.clear_temporary(place)
        (folder / "study.json").unlink(missing_ok=True)
    for place in (folder / "results", folder / "states", folder):
        with contextlib.suppress(OSError):  # somebody else's files are in it
            place.rmdir()


def _mark(folder: pathlib.Path, fixed: Mapping[str, Any], overwrite: bool) -> None:
    """Says in ``study.json`` whose the directory is, unless it is said already."""
    path = folder / "study.json"
    try:
        files.read_sealed(path)
    except FileNotFoundError:
        overwrite = True
    except ValueError as error:
        files.set_aside(folder, path, str(error))
        overwrite = True
    if overwrite:
        files.write_sealed(path, {"kind": "a study of loplax", "fixed": dict(fixed)})


def versions(folder: pathlib.Path) -> dict[str, Any]:
    """What a study began on; nothing if that is not known.

    Args:
      folder: its directory.

    Returns:
      The versions by name.

    Raises:
      ValueError: if the file is damaged.
    """
    path = folder / "versions.json"
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _compare_versions(folder: pathlib.Path, now: Mapping[str, Any]) -> None:
    """Warns if the study began on other versions; notes them if it is not known."""
    path = folder / "versions.json"
    try:
        before = versions(folder)
    except ValueError as error:
        files.set_aside(folder, path, str(error))
        before = {}
    if not before:
        text = json.dumps(now, indent=2) + "\n"
        files.write(path, lambda file: file.write(text.encode()))
        return
    changed = "; ".join(identity.differences(before, dict(now)))
    if changed:
        warnings.warn(
            f"the study began on other versions, numbers may differ in rounding: "
            f"{changed}",
            stacklevel=4,
        )


def prune(
    folder: pathlib.Path,
    defaults: Mapping[str, Mapping[str, Any]],
    finished: Collection[pieces.Run],
) -> None:
    """Deletes results and states of finished runs that longer ones have replaced.

    Args:
      folder: the study's directory.
      defaults: the defaults of some methods.
      finished: the runs that are finished.
    """
    found, _ = pieces.read_all(folder, {})
    best = pieces.chains(found, defaults)
    used = {name for chain in best.values() for name, _, _ in chain.spans}
    for name, piece in found.items():
        if name not in used and all(r in finished for r in piece.group.runs(defaults)):
            (folder / "results" / name).unlink()
    units = {pieces.unit_of(path) for path in pieces.of_units(folder)}
    for path in checkpoints.of_units(folder):
        if checkpoints.unit_of(path) not in units:
            path.unlink()


def note_asked(folder: pathlib.Path, asked: Mapping[str, Any]) -> None:
    """Notes what a call asked for, so that all of it is there when it is read."""
    files.write_sealed(folder / "asked.json", dict(asked))


def last_asked(folder: pathlib.Path) -> dict[str, Any]:
    """What the last call asked for; nothing if that cannot be read."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return files.read_sealed(folder / "asked.json")
    return {}
