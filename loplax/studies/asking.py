"""What a call asks a study for: which runs of which methods, how far."""

import collections
import itertools
import json
import math
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray

from loplax.studies import (
    border,
    compiling,
    identity,
    noting,
    pieces,
    results,
    runs,
    shards,
    storage,
)


class Target(NamedTuple):
    """Where the runs of a study are to come.

    Attributes:
      bins: bins of a finished run.
      per_segment: bins of a segment; 0 if none is left to compute.
      steps_per_bin: examples that a run sees in a bin.
    """

    bins: int
    per_segment: int
    steps_per_bin: float


class Asked(NamedTuple):
    """What a call asks for.

    Attributes:
      every: the runs of every method, of a shard its part of them.
      arms: identity, method and numbers of each arm of the whole study.
      shard: which part of the study it is; None if it is all of it.
      settings: for every swept hyper-parameter its values.
      fixed: the fixed part of the study: ``config``, ``data``, ``key``, as JSON values.
      defaults: the defaults of its config.
      num_seeds: number of seeds.
      segments: number of segments, and examples of each.
      grouping: number of devices, and most runs that one vmaps.
      rows: for every method that is not finished, how many runs to compute together.
      target: where the runs are to come; None until that is known.
    """

    every: dict[str, runs.Runs]
    arms: list[tuple[str, str, dict[str, float]]]
    shard: shards.Shard | None
    settings: dict[str, list[float]]
    fixed: dict[str, Any]
    defaults: Mapping[str, Any]
    num_seeds: int
    segments: tuple[int, int]
    grouping: tuple[int, int]
    rows: dict[str, int]
    target: Target | None = None

    @property
    def steps(self) -> int:
        """Examples that a run is to see."""
        return math.prod(self.segments)

    def counts(self) -> dict[str, int]:
        """How many runs every method has in the whole study."""
        arms = collections.Counter(method for _, method, _ in self.arms)
        return {method: number * self.num_seeds for method, number in arms.items()}

    def rows_of_all(self) -> dict[str, int]:
        """The rows with which all of it goes on: blocks are as large as a shard's."""
        if self.shard is None:
            return self.rows
        counts = self.counts().items()
        return {name: runs.layout(count, *self.grouping) for name, count in counts}


def check(
    methods: Mapping[str, Any],
    settings: Mapping[str, Sequence[float]],
    *,
    key: jax.Array,
    data: Any,
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    num_seeds: int,
    num_segments: int,
    steps_per_segment: int,
    grouping: tuple[int, int],
    shard: shards.Shard | None,
    stored: bool,
) -> Asked:
    """Checks what a call asks for; see `sweep.run`.

    Returns:
      What it asks for; the rows and where the runs are to come are not known yet.

    Raises:
      ValueError: if an argument is bad.
    """
    border.key(key)
    num_seeds = border.whole("num_seeds", num_seeds)
    segments = (
        border.whole("num_segments", num_segments),
        border.whole("steps_per_segment", steps_per_segment),
    )
    methods = border.methods(methods)
    settings = border.settings(settings, methods)
    fixed = {
        "config": identity.plain("config", config),
        "data": identity.digest(data) if stored else "",
        "key": [str(jax.random.key_impl(key)), jax.random.key_data(key).tolist()],
    }
    every: dict[str, runs.Runs] = {}
    arms: list[tuple[str, str, dict[str, float]]] = []
    for name, method in methods.items():
        each = _enumerate(name, method, settings, num_seeds, fixed, len(arms))
        every[name] = each
        arms += _arms(each, num_seeds)
    defaults = identity.plain("defaults", defaults)
    asked = Asked(
        every, arms, shard, settings, fixed, defaults, num_seeds, segments, grouping, {}
    )
    return _part(asked) if shard else asked


def _arms(
    each: runs.Runs, num_seeds: int
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Identity, method and numbers of each arm of a method."""
    for i in range(0, each.seeds.size, num_seeds):
        hparams = {name: float(x[i]) for name, x in each.hparams.items()}
        yield each.names[i][0], each.about.method, hparams


def _part(asked: Asked) -> Asked:
    """What of it a shard computes: every n-th block."""
    number, of = asked.shard
    blocks = shards.blocks(asked.counts(), asked.grouping[1])
    every = {
        name: each.take(np.flatnonzero(blocks[name] % of == number - 1))
        for name, each in asked.every.items()
    }
    if not any(each.names for each in every.values()):
        total = sum(np.unique(some).size for some in blocks.values())
        warnings.warn(
            f"shard {number}/{of} has nothing to compute: the study has {total} blocks "
            f"of at most {asked.grouping[1]} runs (runs_per_block)",
            stacklevel=4,
        )
    return asked._replace(every=every)


def _enumerate(
    name: str,
    method: Any,
    settings: Mapping[str, list[float]],
    num_seeds: int,
    fixed: dict[str, Any],
    first_arm: int,
) -> runs.Runs:
    """The runs of a method: all combinations of the swept values that it uses."""
    swept = [settings.get(hparam, [value]) for hparam, value in method.hparams.items()]
    points = list(itertools.product(*swept))
    columns = np.repeat(np.array(points, float), num_seeds, axis=0).T
    about = pieces.About(
        name,
        identity.plain(f"choices of method {name!r}", method.choices),
        identity.plain(f"defaults of method {name!r}", method.defaults),
        list(method.learner.subsets),
        math.nan,
        fixed,
    )
    arms = first_arm + np.repeat(np.arange(len(points)), num_seeds)
    seeds = np.tile(np.arange(num_seeds), len(points))
    hparams = dict(zip(method.hparams, columns, strict=True))
    names = pieces.Group(0, about, hparams, seeds).runs()
    return runs.Runs(method.learner, about, hparams, seeds, arms, names)


def trace(
    asked: Asked,
    known: Mapping[str, pieces.Piece],
    folder: pathlib.Path | None,
    programs: compiling.Programs,
) -> tuple[Asked, xarray.Dataset]:
    """Traces what is not finished, which checks it, and begins to compile it.

    Args:
      asked: what is asked for.
      known: the pieces that the study has.
      folder: its directory.
      programs: where the programs are kept.

    Returns:
      What is asked for, with the rows and where the runs are to come; and the results,
      still empty.

    Raises:
      ValueError: if a learner is bad, or does not go with the others, or with what it
        computed before.
    """
    defaults = {name: each.about.defaults for name, each in asked.every.items()}
    best = pieces.chains(known, defaults)
    per_bin = next((p.group.about.steps_per_bin for p in known.values()), math.nan)
    need = asked.steps / per_bin
    rows = {}
    if folder and not asked.shard:  # how the same call grouped its runs at first
        rows = noting.rows(asked, storage.last_asked(folder))
    traced = {}
    for name, each in asked.every.items():
        _check_choices(each, known)
        reach = [best[run].reach if run in best else 0 for run in each.names]
        left = sum(not (need.is_integer() and bins >= need) for bins in reach)
        if left:
            rows.setdefault(name, _rows(asked, name, left))
            traced[name] = programs.trace(each, rows[name])
            _check_metrics(name, traced[name], known)
    if not traced and math.isnan(per_bin):  # a shard without runs, the first time
        traced = {name: programs.shapes(each) for name, each in asked.every.items()}
    target = _target(asked, traced, per_bin)
    every = {
        name: each._replace(
            about=each.about._replace(steps_per_bin=target.steps_per_bin)
        )
        for name, each in asked.every.items()
    }
    subsets = {tuple(each.about.subsets) for each in every.values()} - {()}
    if len(subsets) > 1:
        raise ValueError(f"methods have different subsets: {sorted(subsets)}")
    asked = asked._replace(every=every, rows=rows, target=target)
    return asked, _empty(asked, known, traced)


def _rows(asked: Asked, name: str, left: int) -> int:
    """How many runs of a method to compute together, where no call has noted it."""
    if asked.shard is None:
        return runs.layout(left, *asked.grouping)
    # Not of what is left: blocks are to be as large as in the undivided study.
    here = len(asked.every[name].names)
    return runs.layout(asked.counts()[name], *asked.grouping, here)


def _target(asked: Asked, traced: Mapping[str, runs.Program], per_bin: float) -> Target:
    """Where the runs are to come; refuses methods of which each says another."""
    bins = {name: program.bins for name, program in traced.items()}
    if not bins:
        return Target(round(asked.steps / per_bin), 0, per_bin)
    if len(set(bins.values())) != 1:
        raise ValueError(f"methods have different numbers of bins a segment: {bins}")
    size = next(iter(bins.values()))
    number, steps = asked.segments
    if not math.isnan(per_bin) and steps / size != per_bin:
        raise ValueError(
            f"a bin has {steps / size:g} examples, but {per_bin:g} in what the study "
            "has computed; choose another directory, or overwrite the study"
        )
    return Target(number * size, size, steps / size)


def _check_choices(each: runs.Runs, known: Mapping[str, pieces.Piece]) -> None:
    """Refuses a method that is another one than that of its name in the study."""
    for piece in known.values():
        method, choices, *_ = piece.group.about
        if method != each.about.method:
            continue
        old, new = (
            identity.with_defaults(values, each.about.defaults)
            for values in (choices, each.about.choices)
        )
        changed = "; ".join(identity.differences(old, new))
        if changed:
            raise ValueError(
                f"the study has another method {method!r}: {changed}. Give it another "
                "name, choose another directory, or overwrite the study"
            )


def _check_metrics(
    name: str, program: runs.Program, known: Mapping[str, pieces.Piece]
) -> None:
    """Refuses metrics that are others than those of before."""
    new = {metric: list(x.shape[1:]) for metric, x in program.metrics.items()}
    for piece in known.values():
        old = {metric: list(x.shape[2:]) for metric, x in piece.metrics.items()}
        if piece.group.about.method == name and old != new:
            raise ValueError(
                f"the metrics of {name!r} have changed since the study began: from "
                f"{old} to {new}; choose another directory, or overwrite the study"
            )


def _empty(
    asked: Asked,
    known: Mapping[str, pieces.Piece],
    traced: Mapping[str, runs.Program],
) -> xarray.Dataset:
    """Empty results for what is asked for."""
    own = [p for p in known.values() if p.group.about.method in asked.every]
    kinds = pieces.kinds(own)
    for program in traced.values():
        for name, shape in program.metrics.items():
            dtype = results.kept_as(shape.dtype)
            before = kinds.get(name, (dtype,))[0]
            kinds[name] = (np.promote_types(before, dtype), len(shape.shape) > 1)
    for name in kinds:
        border.variable("metric", name)
    arms = asked.arms
    used = {
        name: [hparams.get(name, math.nan) for _, _, hparams in arms]
        for name in sorted(asked.settings)
    }
    subsets = (each.about.subsets for each in asked.every.values())
    dataset = results.empty(
        [method for _, method, _ in arms],
        used,
        range(asked.num_seeds),
        np.arange(1, asked.target.bins + 1) * asked.target.steps_per_bin,
        dict(sorted(kinds.items())),
        next(filter(None, subsets), ()),
    )
    dataset.attrs["config"] = json.dumps(asked.fixed["config"], sort_keys=True)
    return dataset
