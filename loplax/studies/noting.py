"""What is noted of that which calls ask a study for, as JSON values.

``arms``, ``num_seeds``, ``bins`` and others are those of the last call, of a shard's
call those of the whole study. ``order`` are the arms as they were first asked for,
``requests`` what calls asked for, ``[arms, seeds, bins]``, but those of which others
ask for all; the seeds are a number of them, or a list. ``rows`` is how many runs of a
method are computed together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray

from loplax.studies import identity


def note(asked: Any, dataset: xarray.Dataset, before: Mapping[str, Any]) -> dict:
    """What to note of what is asked for, after what was noted before.

    Args:
      asked: what is asked for, of ``asking``.
      dataset: its results.
      before: the note of before, if there is one.

    Returns:
      The note.
    """
    names = [name for name, *_ in asked.arms]
    requests = [[names, asked.num_seeds, asked.target.bins]]
    if asked.shard:
        requests = _of_part(asked)
    own = [name for name in dataset.data_vars if "bin" in dataset[name].dims]
    return _request(asked) | {
        "order": list(dict.fromkeys([*before.get("order", ()), *names])),
        "requests": _needed([*before.get("requests", ()), *requests]),
        "rows": asked.rows_of_all(),
        "defaults": {name: each.about.defaults for name, each in asked.every.items()},
        "swept": list(asked.settings),
        "metrics": {
            n: [dataset[n].dtype.str, "subset" in dataset[n].dims] for n in own
        },
        "subsets": dataset["subset"].values.tolist() if "subset" in dataset else [],
        "bins": asked.target.bins,
        "steps_per_bin": asked.target.steps_per_bin,
        "config": asked.fixed["config"],
    }


def _of_part(asked: Any) -> list[list[Any]]:
    """What a shard asks for: the runs that it has."""
    seeds: dict[str, list[int]] = {}
    for each in asked.every.values():
        for name, seed in each.names:
            seeds.setdefault(name, []).append(seed)
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, some in seeds.items():
        alike.setdefault(tuple(some), []).append(name)
    return [[names, list(some), asked.target.bins] for some, names in alike.items()]


def _needed(requests: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Requests without those of which another one asks for all."""
    found: list[Sequence[Any]] = []
    for request in requests:
        if not any(_covers(other, request) for other in found):
            found = [each for each in found if not _covers(request, each)]
            found.append(request)
    return found


def _covers(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether all that a request asks for is asked for by another one too."""
    arms = set(one[0]) >= set(other[0])
    return arms and set(seeds(one)) >= set(seeds(other)) and one[2] >= other[2]


def seeds(request: Sequence[Any]) -> Sequence[int]:
    """The seeds of a request."""
    return range(request[1]) if isinstance(request[1], int) else request[1]


def _request(asked: Any) -> dict[str, Any]:
    """What two calls have in common that ask for the same, in the same groups."""
    return {
        "arms": asked.arms,
        "num_seeds": asked.num_seeds,
        "steps": asked.steps,
        "grouping": asked.grouping,
    }


def rows(asked: Any, noted: Mapping[str, Any]) -> dict[str, int]:
    """How the same call grouped its runs when it began: that must not change.

    Args:
      asked: what is asked for, of ``asking``.
      noted: what was noted of the last call.

    Returns:
      The rows of every method; nothing if the last call was another one.
    """
    new = _request(asked)
    old = {name: noted.get(name) for name in new}
    for request in (old, new):
        request["arms"] = sorted(name for name, *_ in request["arms"] or ())
    return dict(noted["rows"]) if identity.text(old) == identity.text(new) else {}


def joined(notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One note for what several directories of a study were asked for.

    Args:
      notes: their notes; what is unlike in them counts as it is in the first.

    Returns:
      The note: it asks for all that is asked for in any, and of shards for the whole.
    """
    if not notes:
        return {}
    arms: dict[str, Any] = {}
    for each in notes:
        for name, *rest in each["arms"]:
            arms.setdefault(name, [name, *rest])
    both = [r for each in notes for r in (*each["requests"], _whole(each))]
    union = lambda name: [value for each in notes for value in each[name]]
    found = {**notes[0], "arms": list(arms.values()), "requests": _needed(both)}
    for name in ("order", "swept"):
        found[name] = list(dict.fromkeys(union(name)))
    for name in ("rows", "defaults", "metrics"):
        found[name] = {}
        for each in reversed(notes):
            found[name] |= each[name]
    for name in ("num_seeds", "steps", "bins"):
        found[name] = max(each[name] for each in notes)
    found["subsets"] = next((n["subsets"] for n in notes if n["subsets"]), [])
    return found


def _whole(noted: Mapping[str, Any]) -> list[Any]:
    """The request of the whole study in which a call had a part."""
    return [[name for name, *_ in noted["arms"]], noted["num_seeds"], noted["bins"]]
