"""What the results of a study say of remembering and learning, session by session."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray

from loplax import metrics
from loplax.studies import results

WINDOWS = (10, 100)  # bins, of windowed forgetting and plasticity
FIRST = 10  # evaluations, of the learning-curve area

_RUN = ("arm", "seed")
_SESSION = (*_RUN, "session")
_NAMED = ("old", "new", "all")


class _Runs(NamedTuple):
    """Accuracies of all runs.

    Attributes:
      subsets: names of the subsets, the tasks first; old, new and all are among them.
      tasks: how many of them are tasks.
      accuracy: of the subsets that the results have, ``[arm, seed, bin, subset]``.
      task: ``[arm, seed, bin]``.
      over: whether a session is over and sound, ``[arm, seed, session]``.
      ends: accuracy at the end of every session, ``[arm, seed, session, subset]``.
      starts: the same before its first update, after what happens at its beginning.
      before: the same before anything of it happens.
      joint: the joint reference, as ``ends`` of one arm.
      curves: ``[arm, seed, session, subset, evaluations]``, from the start on.
      steps: of every evaluation of a session, ``[evaluations]``, from 0.
    """

    subsets: list[str]
    tasks: int
    accuracy: np.ndarray
    task: np.ndarray
    over: np.ndarray
    ends: np.ndarray
    starts: np.ndarray
    before: np.ndarray
    joint: np.ndarray
    curves: np.ndarray
    steps: np.ndarray


def report(
    dataset: xarray.Dataset,
    metric: str = "test_accuracy",
    *,
    joint: str | None = None,
    target: float | None = None,
    costs: Mapping[str, float] | None = None,
) -> xarray.Dataset:
    """All metrics of continual learning that the results of a study tell.

    They need the variables ``metric``, with subsets, and ``task``. The accuracy before
    a session is that at the end of the one before, of ``old`` what was ``all`` then.
    ``metric_start`` is that at its start, before the first update, at which output
    weights of new classes, say, are there already: part of its curve, and in place of
    an accuracy before the session where there is none. Subsets are
    the tasks, ``"0"``, ``"1"`` and so on, to which ``old``, ``new`` and ``all`` are
    added as `metrics.old_new_all` makes them; or they have these three names, and
    there may be others, such as ``base``. Times are in the unit of ``step``, examples
    seen, from the start of the session. Every bin is an evaluation.

    Args:
      dataset: the results, from `results.load`.
      metric: name of the accuracy.
      joint: the arm that is trained jointly: its runs are the reference, seed by seed,
        of what is named so.
      target: accuracy on new, 99% of which are to be reached; if None that of the joint
        arm at the end of the session.
      costs: the cost of a step of every arm, such as FLOPs, for ``speed_up``; alike if
        None.

    Returns:
      A Dataset of what the functions of these names in `loplax.metrics` give. What is
      of a session is NaN until it is over, and if the run has diverged by then; what is
      of a run, if that is so of any of its sessions.

      - ``[arm, seed, session, subset]``: ``accuracy`` at the end, ``drop_depth``,
        ``drop_depth_smoothed``, ``recovery_time_before`` and ``recovery_time_joint``
        (back at the accuracy before the session, or at the joint reference), and
        ``windowed_forgetting_10``, ``windowed_plasticity_100`` and their like, from the
        beginning on; of tasks these are means over the tasks seen in ``all``.
      - ``[arm, seed, session]``: ``average_accuracy``; on new ``learning_curve_area``,
        ``time_to_own_best``, ``time_to_target``, and ``speed_up`` over the joint arm to
        the target. Of tasks also ``forgetting_from_last``, ``forgetting_from_max``,
        ``backward_transfer``, ``intransigence``, ``min_accuracy`` and
        ``worst_case_accuracy``.
      - ``[arm, seed, subset]``: ``gap_joint`` and ``gap_before``, to the joint
        reference and to the accuracy before the session; ``gap_joint_with_start`` and
        ``gap_before_with_start`` count the evaluation before the first update too. Of
        old, new and all these are the stability, plasticity and knowledge gaps.
      - ``[arm, seed]``: ``average_incremental_accuracy``; of tasks also
        ``learning_accuracy`` and ``forward_transfer``.

      A time is infinite where it is not reached within the session, and NaN where there
      is nothing to reach.

    Raises:
      ValueError: if there is no such metric or arm, there are more tasks than subsets,
        or the subsets are neither tasks nor old, new and all.

    Example:
      >>> kinds = {"test_accuracy": (np.dtype("float32"), True),
      ...          "task": (np.dtype("float32"), False)}
      >>> found = results.empty(["bp"], {}, [0], [1.0, 2.0], kinds, ["0", "1"])
      >>> accuracy = np.array([[[1.0, 0.0], [0.5, 1.0]]])
      >>> cell = (np.array([0]), np.array([0]))
      >>> results.record(found, cell, 0, {"test_accuracy": accuracy,
      ...                                 "task": np.array([[0.0, 1.0]])})
      >>> report(found)["forgetting_from_last"].values.tolist()
      [[[nan, 0.5]]]
    """
    arms = [str(name) for name in dataset["arm"].values]
    for name in [*({joint} - {None}), *(costs or ())]:
        if name not in arms:
            raise ValueError(f"no arm {name!r}; the arms are {', '.join(arms)}")
    reference = None if joint is None else arms.index(joint)
    first = _first(dataset, metric)
    dataset = dataset.assign(task=dataset["task"] - first)
    prices = np.array([costs.get(name, np.nan) if costs else 1.0 for name in arms])
    runs = _runs(dataset, metric, reference)
    found = _of_subsets(runs) | _of_new(runs, reference, target, prices)
    found |= _of_tasks(runs) if runs.tasks else {}
    coords = {"subset": runs.subsets, "session": first + np.arange(runs.over.shape[-1])}
    kept = dataset.drop_dims("bin").drop_vars("subset").coords
    table = xarray.Dataset(found, {**kept, **coords})
    over = xarray.DataArray(runs.over, dims=_SESSION)
    return table.map(
        lambda x: x.where(over if "session" in x.dims else over.all("session"))
    ).transpose(*_SESSION, ...)


def _first(dataset: xarray.Dataset, metric: str) -> int:
    """The first session with an update; those before were known from the start.

    Tasks keep their numbers, which are those of the subsets.
    """
    task = results.counting(dataset, "task")
    there = not _subsets(dataset, metric)[1] and task.notnull().any()
    return int(task.min()) if there else 0


def _runs(dataset: xarray.Dataset, metric: str, joint: int | None) -> _Runs:
    names, tasks = _subsets(dataset, metric)
    order = (*_RUN, "bin", "subset")
    counting = lambda name: results.counting(dataset, name)
    get = lambda name: counting(name).transpose(*order, missing_dims="ignore")
    values, task = get(metric).sel(subset=names).values, get("task").values
    over = _over(dataset)
    sessions = over.shape[-1]
    if tasks and sessions > tasks:
        raise ValueError(f"{sessions} tasks, but the subsets are {', '.join(names)}")
    starts = np.full((*over.shape, len(names)), np.nan)
    at_start = metric + metrics.continual.AT_START
    if at_start in dataset:
        begun = get(at_start).sel(subset=names).values
        starts = metrics.by_session(begun, task, sessions, 1)[..., 0, :]
    subsets = names + [name for name in _NAMED if name not in names]
    accuracy = _with_named(values, task, subsets, tasks)
    starts = _with_named(starts, np.arange(sessions), subsets, tasks)
    ends = metrics.accuracy_matrix(accuracy, task, sessions)
    before = _before(ends, starts, subsets)
    reference = np.full_like(ends[:1], np.nan)
    if joint is not None:
        reference = np.where(over[[joint], ..., None], ends[[joint]], np.nan)
    longest = max(1, *(np.sum(task == k, axis=-1).max() for k in range(sessions)))
    curves = metrics.by_session(accuracy, task, sessions, longest, starts)
    curves = np.moveaxis(curves, -1, -2)
    steps = np.arange(longest + 1) * dataset["step"].values[0]
    return _Runs(
        subsets,
        tasks,
        values,
        task,
        over,
        ends,
        starts,
        before,
        reference,
        curves,
        steps,
    )


def _before(ends: np.ndarray, starts: np.ndarray, subsets: Sequence[str]) -> np.ndarray:
    """Accuracy at the end of the session before, ``[arm, seed, session, subset]``.

    Where a session begins by changing the network, as with output weights of new
    classes, this is not where its curve starts. What was all then is old now. Of new,
    and with it of all, there is no accuracy before the session, nor of anything before
    the first one: there it is the start.
    """
    last = np.full_like(ends, np.nan)
    last[..., 1:, :] = ends[..., :-1, :]
    old, new, every = map(subsets.index, _NAMED)
    last[..., old], last[..., [new, every]] = last[..., every], np.nan
    return np.where(np.isnan(last), starts, last)


def _subsets(dataset: xarray.Dataset, metric: str) -> tuple[list[str], int]:
    """Names of the subsets, the tasks first, and how many these are."""
    values = results.counting(dataset, metric)
    found = [str(x) for x in values["subset"].values] if "subset" in values.dims else []
    tasks = [name for name in map(str, range(len(found))) if name in found]
    if not tasks and not set(_NAMED) <= set(found):
        raise ValueError(
            f"the subsets of {metric!r} must be tasks, from '0' on, or have old, new "
            f"and all among them, got {found}"
        )
    return tasks + [name for name in found if name not in tasks], len(tasks)


def _with_named(
    values: np.ndarray, task: np.ndarray, subsets: Sequence[str], tasks: int
) -> np.ndarray:
    """Values of subsets, with those of old, new and all tasks that are not there."""
    missing = [_NAMED.index(name) for name in subsets[values.shape[-1] :]]
    if not missing:
        return values
    named = metrics.old_new_all(values[..., :tasks], task)
    return np.concatenate([values, named[..., missing]], axis=-1)


def _over(dataset: xarray.Dataset) -> np.ndarray:
    """Whether each session is over, with no divergence, ``[arm, seed, session]``."""
    done, sound = (
        dataset[name].transpose(*_RUN).values[..., None]
        for name in ("bins_done", "bins_sound")
    )
    bins = dataset.sizes["bin"]
    task = dataset["task"].transpose(*_RUN, "bin").values
    task = np.where(np.arange(bins) < done, task, np.nan)
    latest = np.max(np.where(np.isnan(task), -1, task), axis=-1, keepdims=True)
    sessions = np.arange(max(1, int(latest.max()) + 1))
    place = np.broadcast_to(np.arange(bins), task.shape)[..., None]
    last = metrics.accuracy_matrix(place, task, sessions.size)[..., 0]
    return (last < sound) & ((sessions < latest) | (done == bins))


def _of_subsets(runs: _Runs) -> dict[str, tuple]:
    """What every subset has."""
    curves, before = runs.curves, runs.before
    found = {
        "accuracy": runs.ends,
        "drop_depth": metrics.drop_depth(curves, before),
        "drop_depth_smoothed": metrics.drop_depth(curves, before, smoothed=True),
    }
    for name, level in (("before", before), ("joint", runs.joint)):
        time = metrics.recovery_time(curves, level, runs.steps)
        found[f"recovery_time_{name}"] = time.updates
    begun = metrics.seen(runs.accuracy[..., : runs.tasks], runs.task)
    series = np.concatenate([begun, runs.accuracy[..., runs.tasks :]], axis=-1)
    for window in WINDOWS:
        for kind in (metrics.windowed_forgetting, metrics.windowed_plasticity):
            found[f"{kind.__name__}_{window}"] = _at_ends(runs, kind(series, window))
    dims = (*_SESSION, "subset")
    return {name: (dims, values) for name, values in found.items()} | _gaps(runs)


def _at_ends(runs: _Runs, series: np.ndarray) -> np.ndarray:
    """Series of the given subsets where sessions end, with those of old, new, all."""
    sessions = runs.over.shape[-1]
    ends = metrics.accuracy_matrix(series, runs.task, sessions)
    return _with_named(ends, np.arange(sessions), runs.subsets, runs.tasks)


def _gaps(runs: _Runs) -> dict[str, tuple]:
    curves = np.swapaxes(
        runs.curves, -2, -3
    )  # [arm, seed, subset, session, evaluations]
    unknown = np.any(np.isnan(runs.starts) & ~np.isnan(runs.ends), axis=-2)
    found = {}
    for name, level in (("before", runs.before), ("joint", runs.joint)):
        reference = np.swapaxes(level, -1, -2)[..., None]
        found[f"gap_{name}"] = metrics.gap(curves[..., 1:], reference)
        with_start = metrics.gap(curves, reference)
        found[f"gap_{name}_with_start"] = np.where(unknown, np.nan, with_start)
    return {name: ((*_RUN, "subset"), values) for name, values in found.items()}


def _of_new(
    runs: _Runs, joint: int | None, target: float | None, prices: np.ndarray
) -> dict[str, tuple]:
    """How fast each session's own task or classes are learned."""
    new = runs.subsets.index("new")
    curve = runs.curves[..., new, :]
    wanted = runs.joint[..., new] if target is None else np.full((1, 1, 1), target)
    own = metrics.time_to_fraction(curve, updates=runs.steps).updates
    common = metrics.time_to_fraction(curve, wanted, updates=runs.steps).updates
    area = speed_up = np.full(own.shape, np.nan)
    if curve.shape[-1] >= FIRST:
        area = metrics.learning_curve_area(curve, FIRST)
    if joint is not None:
        each = prices[:, None, None]
        speed_up = metrics.speed_up(common, common[[joint]], each, prices[joint])
    average = runs.ends[..., runs.subsets.index("all")]
    found = {
        "average_accuracy": average,
        "learning_curve_area": area,
        "time_to_own_best": own,
        "time_to_target": common,
        "speed_up": speed_up,
    }
    per_session = {name: (_SESSION, values) for name, values in found.items()}
    return per_session | {"average_incremental_accuracy": (_RUN, average.mean(axis=-1))}


def _of_tasks(runs: _Runs) -> dict[str, tuple]:
    """What only a matrix of tasks tells."""
    sessions = runs.over.shape[-1]
    matrix, joint = runs.ends[..., :sessions], runs.joint[..., :sessions]
    accuracy = runs.accuracy[..., : runs.tasks]
    found = {
        kind.__name__: kind(matrix)
        for kind in (
            metrics.forgetting_from_last,
            metrics.forgetting_from_max,
            metrics.backward_transfer,
        )
    }
    joint = np.diagonal(joint, 0, -2, -1)
    found["intransigence"] = metrics.intransigence(matrix, joint)
    for kind in (metrics.min_accuracy, metrics.worst_case_accuracy):
        series = kind(accuracy, runs.task)[..., None]
        ends = metrics.accuracy_matrix(series, runs.task, sessions)
        found[kind.__name__] = ends[..., 0]
    untrained = runs.starts[..., 0, :sessions]
    whole = {
        "learning_accuracy": metrics.learning_accuracy(matrix),
        "forward_transfer": metrics.forward_transfer(matrix, untrained),
    }
    return {name: (_SESSION, values) for name, values in found.items()} | {
        name: (_RUN, values) for name, values in whole.items()
    }
