"""The results of a study on disk: pieces that are written once, each for some runs.

A piece is a netCDF-3 file, ``results/UNIT-FIRST-LAST-PART-CHECKSUM.nc``, that plain
xarray opens. It holds the metrics of some runs of one method, ``[run, bin]``, from bin
FIRST to before bin LAST. A *unit* is a number for runs that were computed together: its
pieces never mix with those of another one.
"""

import collections
import io
import json
import operator
import pathlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray

from loplax.studies import files, identity

_NAME = re.compile(r"(\d{6,})-(\d{8,})-(\d{8,})-(\d+)-([0-9a-f]{8})\.nc")
_HPARAM = "hparams."
_MOST_BYTES = 2**28  # of a piece: it is written from memory, and netCDF-3 ends at 2**31

Run = tuple[str, int]  # the arm as `identity.arm` gives it, and the seed


class About(NamedTuple):
    """What a method is, and how its results are to be read.

    Attributes:
      method: its name.
      choices: what is static about it, as JSON values.
      defaults: the defaults of its choices and numbers.
      subsets: names of the subsets that its metrics tell apart.
      steps_per_bin: examples that a run sees in a bin.
      study: the fixed part of the study, as JSON values.
    """

    method: str
    choices: dict[str, Any]
    defaults: dict[str, Any]
    subsets: list[str]
    steps_per_bin: float
    study: dict[str, Any]


class Group(NamedTuple):
    """Some runs of one method that are computed together.

    Attributes:
      unit: their number.
      about: what their method is.
      hparams: the numbers of the runs by name, each ``[runs]``.
      seeds: their seeds, ``[runs]``.
    """

    unit: int
    about: About
    hparams: dict[str, np.ndarray]
    seeds: np.ndarray

    def runs(self, defaults: Mapping[str, Mapping[str, Any]] | None = None) -> list:
        """Which runs these are, in the light of later defaults of some methods."""
        method, choices, own, *_ = self.about
        used = (defaults or {}).get(method, own)
        columns = [values.tolist() for values in self.hparams.values()]
        seeds = self.seeds.tolist()
        rows = list(zip(*columns, strict=True)) or [()] * len(seeds)
        arms = {}
        for row in set(rows):
            hparams = dict(zip(self.hparams, row, strict=True))
            arms[row] = identity.arm(method, choices, hparams, used)
        return [(arms[row], seed) for row, seed in zip(rows, seeds, strict=True)]

    def take(self, rows: Any) -> "Group":
        """Some of the runs."""
        hparams = {name: values[rows] for name, values in self.hparams.items()}
        return self._replace(hparams=hparams, seeds=self.seeds[rows])


class Piece(NamedTuple):
    """Metrics of some runs over some bins.

    Attributes:
      group: the runs.
      first: its first bin.
      metrics: their metrics, ``[runs, bins]`` or ``[runs, bins, subsets]``.
    """

    group: Group
    first: int
    metrics: dict[str, np.ndarray]

    @property
    def last(self) -> int:
        """The bin after its last one."""
        return self.first + next(iter(self.metrics.values())).shape[1]


def write(study: pathlib.Path, piece: Piece) -> list[pathlib.Path]:
    """Writes a piece, in several files if it is large.

    Args:
      study: the study's directory.
      piece: the piece.

    Returns:
      The files.

    Raises:
      OSError: if one cannot be written.
    """
    written = []
    for part, some in enumerate(_split(piece)):
        data = memoryview(_dataset(some).to_netcdf(None, engine="scipy"))
        span = f"{some.group.unit:06d}-{some.first:08d}-{some.last:08d}"
        path = study / "results" / f"{span}-{part}-{zlib.crc32(data):08x}.nc"
        files.write(path, operator.methodcaller("write", data))
        written.append(path)
    return written


def _split(piece: Piece) -> Iterator[Piece]:
    """Parts that are small enough: of fewer runs, or else of fewer bins."""
    per_bin = sum(values[0, 0].nbytes for values in piece.metrics.values())
    bins = min(piece.last - piece.first, max(1, _MOST_BYTES // per_bin))
    rows = max(1, _MOST_BYTES // (per_bin * bins))
    for row in range(0, piece.group.seeds.size, rows):
        few = slice(row, row + rows)
        for first in range(0, piece.last - piece.first, bins):
            here = slice(first, first + bins)
            metrics = {name: x[few, here] for name, x in piece.metrics.items()}
            yield Piece(piece.group.take(few), piece.first + first, metrics)


def _dataset(piece: Piece) -> xarray.Dataset:
    """A piece as it is on disk."""
    dims = ("run", "bin", "subset")
    unit, about, hparams, seeds = piece.group
    number = np.arange(piece.first, piece.last)
    coords: dict[str, tuple[str, Any]] = {
        "bin": ("bin", number),
        "step": ("bin", (number + 1) * about.steps_per_bin),
        "method": ("run", np.full(seeds.size, about.method)),
        "seed": ("run", seeds),
    }
    if about.subsets:
        coords["subset"] = ("subset", about.subsets)
    for name, values in hparams.items():
        coords[_HPARAM + name] = ("run", values)
    metrics = {name: (dims[: x.ndim], x) for name, x in piece.metrics.items()}
    attrs = {"about": json.dumps({"unit": unit, **about._asdict()})}
    return xarray.Dataset(metrics, coords, attrs)


def read(path: pathlib.Path) -> Piece:
    """Reads a piece.

    Args:
      path: its file.

    Returns:
      The piece.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if the file is not what was written.
    """
    try:
        data = path.read_bytes()
        if not path.name.endswith(f"-{zlib.crc32(data):08x}.nc"):
            raise ValueError("its checksum is wrong")
        found = xarray.load_dataset(io.BytesIO(data), engine="scipy")
        about = json.loads(found.attrs["about"])
        unit = about.pop("unit")
        hparams = [name for name in map(str, found.coords) if name.startswith(_HPARAM)]
        group = Group(
            unit,
            About(**about),
            {name.removeprefix(_HPARAM): found[name].values for name in hparams},
            found["seed"].values,
        )
        metrics = {str(name): found[name].values for name in found.data_vars}
        return Piece(group, int(found["bin"][0]), metrics)
    except FileNotFoundError:
        raise
    except Exception as error:  # scipy raises whatever its parser stumbles over
        raise ValueError(f"{path} is damaged: {error}") from error


def read_all(
    study: pathlib.Path, known: Mapping[str, Piece]
) -> tuple[dict[str, Piece], dict[pathlib.Path, str]]:
    """Reads all pieces of a study, also of one that is running.

    Args:
      study: its directory.
      known: pieces that were read already, by name.

    Returns:
      The good pieces by name, and of the damaged ones what is wrong with them.
    """
    while True:
        found, damaged, complete = {}, {}, True
        for path in sorted(of_units(study)):
            try:
                found[path.name] = known.get(path.name) or read(path)
            except FileNotFoundError:  # a running study has replaced it
                complete = False
            except ValueError as error:
                damaged[path] = str(error)
        if complete:
            return found, damaged
        known = {**known, **found}


def of_units(study: pathlib.Path, first: int = 0) -> Iterator[pathlib.Path]:
    """Files of the pieces that begin at a bin or later."""
    for path in (study / "results").glob("*.nc"):
        name = _NAME.fullmatch(path.name)
        if name and int(name[2]) >= first:
            yield path


def unit_of(path: pathlib.Path) -> int:
    """The unit of a piece, from its file."""
    return int(path.name.partition("-")[0])


class Chain(NamedTuple):
    """What there is of one run: spans of bins without a gap, all of one unit.

    Attributes:
      unit: the unit.
      reach: how many bins there are.
      spans: name of the piece, row of the run in it, and first bin to take of it.
    """

    unit: int
    reach: int
    spans: list[tuple[str, int, int]]


def chains(
    pieces: Mapping[str, Piece], defaults: Mapping[str, Mapping[str, Any]]
) -> dict[Run, Chain]:
    """Finds of every run the longest results; where two are as long, the older ones.

    Args:
      pieces: the pieces by name.
      defaults: the defaults of some methods; they hold for what was written before.

    Returns:
      For every run its results.
    """
    parts = collections.defaultdict(list)
    for name in sorted(pieces, key=lambda name: (pieces[name].first, name)):
        group = pieces[name].group
        for row, run in enumerate(group.runs(defaults)):
            parts[run, group.unit].append((name, row))
    best: dict[Run, Chain] = {}
    for (run, unit), rows in sorted(parts.items(), key=lambda item: item[0][1]):
        chain = _chain(pieces, unit, rows)
        if run not in best or chain.reach > best[run].reach:
            best[run] = chain
    return best


def _chain(
    pieces: Mapping[str, Piece], unit: int, rows: Sequence[tuple[str, int]]
) -> Chain:
    """The spans of a run in the pieces of a unit, up to the first gap."""
    reach, spans = 0, []
    for name, row in rows:
        if pieces[name].first <= reach < pieces[name].last:
            spans.append((name, row, reach))
            reach = pieces[name].last
    return Chain(unit, reach, spans)


def spans(
    pieces: Mapping[str, Piece],
    best: Mapping[Run, Chain],
    cells: Mapping[Run, tuple[int, int]],
    num_bins: int,
) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], int, dict[str, np.ndarray]]]:
    """What to enter into results, for `results.record`: cells, first bin, metrics.

    Args:
      pieces: the pieces by name.
      best: the results of every run.
      cells: arm and seed of the runs that the results hold.
      num_bins: their number of bins.

    Yields:
      One entry for the runs that take the same bins of the same piece.
    """
    groups = collections.defaultdict(list)
    for run in cells.keys() & best.keys():
        for name, row, start in best[run].spans:
            if start < num_bins:
                groups[start, name].append((row, *cells[run]))
    for (start, name), entries in sorted(groups.items()):
        piece = pieces[name]
        rows, arms, seeds = np.array(entries).T
        here = slice(start - piece.first, num_bins - piece.first)
        metrics = {name: x[rows, here] for name, x in piece.metrics.items()}
        yield (arms, seeds), start, metrics


def kinds(pieces: Iterable[Piece]) -> dict[str, tuple[np.dtype, bool]]:
    """Types of all metrics, and whether they have a value for each subset."""
    found: dict[str, tuple[np.dtype, bool]] = {}
    for piece in pieces:
        for name, values in piece.metrics.items():
            dtype = found.get(name, (values.dtype,))[0]
            found[name] = (np.promote_types(dtype, values.dtype), values.ndim > 2)
    return found
