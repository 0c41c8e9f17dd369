"""Puts together what several directories have of one study, such as its shards.

Units of runs are copied whole, with the state from which they go on, under new numbers:
those that have more of a run than there is. What was there is deleted only where all of
it has been replaced by more.
"""

import collections
import contextlib
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from loplax.studies import checkpoints, identity, noting, pieces, shards, storage


class _Worth(NamedTuple):
    """How much there is of a run in a unit; more is greater.

    Attributes:
      sure: bins with which it goes on: all if it is finished, else those of its state.
      reach: bins of its results.
      state: bins of its state; -1 if there is none.
    """

    sure: int = 0
    reach: int = 0
    state: int = -1


class _Part(NamedTuple):
    """What a directory has of the study.

    Attributes:
      folder: the directory.
      fixed: the fixed part of the study.
      note: what it was asked for.
      pieces: its pieces by name.
      states: the newest good state of each unit: file, and what it is.
    """

    folder: pathlib.Path
    fixed: dict[str, Any]
    note: dict[str, Any]
    pieces: dict[str, pieces.Piece]
    states: dict[int, tuple[pathlib.Path, checkpoints.Checkpoint]]


def merge(directory: str | os.PathLike, parts: Sequence[str | os.PathLike]) -> None:
    """Puts the runs of several directories of one study together in another one.

    Of each run the longest results are taken, finished or not, and of equal ones those
    that came first. It may be done again when there is more, also while some of them
    are still running; the directory is then a study's as any other is.

    Args:
      directory: where they go; it may hold runs of the study already.
      parts: the directories; none of them is changed.

    Raises:
      ValueError: if they are not of one study, one has no study or is given twice, or
        the directory is in use or holds something else; nothing is changed then.
      OSError: if a file cannot be written.

    Example:
      >>> merge("together", ["nowhere"])
      Traceback (most recent call last):
      ValueError: there is no study in nowhere
    """
    folder = pathlib.Path(directory)
    given = [pathlib.Path(part) for part in parts]
    places = collections.Counter(path.resolve() for path in (folder, *given))
    for path in given:
        if places[path.resolve()] > 1:
            raise ValueError(f"{path} is given twice, or is to be merged into itself")
    if not given:
        raise ValueError("there is nothing to merge: no directory was given")
    found = [_read(path) for path in given]
    fixed, began = found[0].fixed, _began(found)
    known, _ = storage.look(folder, fixed, {})
    here = [found[0]._replace(folder=folder, pieces=known)] if known else []
    _check_same([*here, *found])
    with storage.opened(
        folder, fixed, {}, known=known, versions=began, overwrite=False
    ) as known:
        before = storage.last_asked(folder)
        notes = [note for note in (before, *(part.note for part in found)) if note]
        note = noting.joined(notes)
        into = _Part(folder, fixed, note, known, _states(folder))
        _add(into, found)
        if note != before:
            storage.note_asked(folder, note)


def gather(study: str | os.PathLike) -> None:
    """Merges the shards of a study into its own directory, and deletes them.

    Args:
      study: the study's directory.

    Raises:
      ValueError: if one is in use, or of another study; see `merge`.
      OSError: if a file cannot be written.
    """
    places = shards.every(pathlib.Path(study))
    begun = [path for path in places if (path / "study.json").exists()]
    if begun:
        merge(study, begun)
    for path in places:
        storage.remove(path)
    with contextlib.suppress(OSError):  # there is none, or it has something else
        (pathlib.Path(study) / "shards").rmdir()


def _read(folder: pathlib.Path) -> _Part:
    """What a directory has; another process may go on with it meanwhile."""
    states = _states(folder)  # before the results, which then know as much
    found, damaged = pieces.read_all(folder, {})
    fixed = storage.stored(folder, found)
    if fixed is None:
        raise ValueError(f"there is no study in {folder}")
    for path, reason in damaged.items():
        warnings.warn(f"{path} is left out: {reason}", stacklevel=3)
    return _Part(folder, fixed, storage.last_asked(folder), found, states)


def _states(
    folder: pathlib.Path,
) -> dict[int, tuple[pathlib.Path, checkpoints.Checkpoint]]:
    """The newest good state of each unit."""
    found = {}
    for path in checkpoints.of_units(folder):
        try:
            found[checkpoints.unit_of(path)] = (path, checkpoints.check(path))
        except ValueError as error:
            if path.exists():  # else its process has deleted it in between
                warnings.warn(f"{path} is left out: {error}", stacklevel=4)
    return found


def _began(parts: Sequence[_Part]) -> dict[str, Any]:
    """The versions on which the first one began; warns if others did on others."""
    first: dict[str, Any] = {}
    for part in parts:
        versions = storage.versions(part.folder)
        first = first or versions
        changed = "; ".join(identity.differences(first, versions or first))
        if changed:
            warnings.warn(
                f"{part.folder} began on other versions than {parts[0].folder}, "
                f"numbers may differ in rounding: {changed}",
                stacklevel=3,
            )
    return first


def _check_same(parts: Sequence[_Part]) -> None:
    """Refuses directories of different studies, and says what differs."""
    first = parts[0]
    methods: dict[str, tuple[pathlib.Path, dict[str, Any]]] = {}
    for part in parts:
        _refuse(first.folder, part.folder, "", first.fixed, part.fixed)
        for piece in part.pieces.values():
            about = piece.group.about
            what = {
                "choices": identity.with_defaults(about.choices, about.defaults),
                "steps_per_bin": about.steps_per_bin,
                "subsets": about.subsets,
                "metrics": {n: x.ndim > 2 for n, x in sorted(piece.metrics.items())},
            }
            folder, before = methods.setdefault(about.method, (part.folder, what))
            _refuse(folder, part.folder, f"{about.method}: ", before, what)


def _refuse(one: Any, other: Any, of: str, old: Any, new: Any) -> None:
    """Raises ``ValueError`` if two descriptions differ."""
    changed = "; ".join(identity.differences(old, new))
    if changed:
        raise ValueError(
            f"{one} and {other} are of different studies: {of}{changed}. Nothing was "
            "merged"
        )


def _add(into: _Part, parts: Sequence[_Part]) -> None:
    """Copies what there is more of, then deletes what it has replaced."""
    there = _worths(into, into.note)
    best: dict[pieces.Run, _Worth] = {}
    for worths in there.values():
        for run, worth in worths.items():
            best[run] = max(worth, best.get(run, _Worth()))
    free = max(there, default=0) + 1
    for part in parts:
        for unit, worths in _worths(part, into.note).items():
            if not any(
                worth > best.get(run, _Worth()) for run, worth in worths.items()
            ):
                continue
            _copy(part, unit, into.folder, free)
            there[free] = worths
            best |= {
                r: max(worth, best.get(r, _Worth())) for r, worth in worths.items()
            }
            free += 1
    for unit in _replaced(there):
        for path in checkpoints.of_unit(into.folder, unit):
            path.unlink()
        for path in pieces.of_units(into.folder):
            if pieces.unit_of(path) == unit:
                path.unlink()


def _worths(
    part: _Part, note: Mapping[str, Any]
) -> dict[int, dict[pieces.Run, _Worth]]:
    """How much there is of every run, unit by unit."""
    defaults, bins = note.get("defaults", {}), note.get("bins", 0)
    units: dict[int, dict[str, pieces.Piece]] = collections.defaultdict(dict)
    for name, piece in part.pieces.items():
        units[piece.group.unit][name] = piece
    found: dict[int, dict[pieces.Run, _Worth]] = {
        unit: {} for unit in sorted({*units, *part.states})
    }
    for unit in found:
        state, runs = -1, set()
        if unit in part.states:
            _, checkpoint = part.states[unit]
            state, runs = checkpoint.bin, set(checkpoint.group.runs(defaults))
        for run, chain in pieces.chains(units[unit], defaults).items():
            own = state if run in runs and state <= chain.reach else -1
            sure = chain.reach if bins and chain.reach >= bins else max(own, 0)
            found[unit][run] = _Worth(sure, chain.reach, own)
    return found


def _copy(part: _Part, unit: int, folder: pathlib.Path, number: int) -> None:
    """Copies a unit, under another number: first its results, then its state."""
    for piece in part.pieces.values():
        if piece.group.unit == unit:
            group = piece.group._replace(unit=number)
            pieces.write(folder, piece._replace(group=group))
    if unit in part.states:
        path, (group, bins, _) = part.states[unit]
        try:
            leaves = checkpoints.load(path)
        except ValueError:  # a running study has gone on: the next merge takes the next
            return
        checkpoints.save(folder, group._replace(unit=number), bins, leaves)


def _replaced(
    units: Mapping[int, Mapping[pieces.Run, _Worth]],
) -> Iterator[int]:
    """Units that have of every run less than another unit, in results and state."""
    holders: dict[pieces.Run, list[_Worth]] = collections.defaultdict(list)
    for worths in units.values():
        for run, worth in worths.items():
            holders[run].append(worth)
    for unit, worths in units.items():
        if worths and all(
            any(other > worth and other.reach >= worth.reach for other in holders[run])
            for run, worth in worths.items()
        ):
            yield unit
