"""The runs of a finished study, from the states that ``keep_states`` kept."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.launch import problems, running
from loplax import checks
from loplax.studies import checkpoints, identity, pieces, results, states


class Kept(NamedTuple):
    """The runs of one arm at their end.

    Attributes:
      arm: its name in the results.
      variant: name of its method there, behind which there may be choices.
      method: name of the method.
      config: the configuration that they were made with.
      study: what it means.
      seeds: of the runs, ``[runs]``.
      state: what their learner has, with a leading axis of runs.
    """

    arm: str
    variant: str
    method: str
    config: Any
    study: Any
    seeds: np.ndarray
    state: Any


def load(
    problem: str, workdir: str | pathlib.Path, data_dir: str | None = None
) -> list[Kept]:
    """Loads the last states of a study that ran with ``--config.keep_states=True``.

    Args:
      problem: name of the problem.
      workdir: directory of the study. If it has runs of several lengths, the longest
        count.
      data_dir: folder of image data.

    Returns:
      The runs, arm by arm in the order of the results.

    Raises:
      FileNotFoundError: if there is no study, or it kept no states.
      ValueError: if a state is damaged, or the study is one of another problem or of
        other data.
    """
    dataset, folder = results.load(workdir), pathlib.Path(workdir)
    paths = checkpoints.of_units(folder)
    last = max(map(checkpoints.bin_of, paths), default=0)
    found: dict[str, list] = {}
    for path in paths:
        if checkpoints.bin_of(path) == last:
            group = checkpoints.check(path).group
            names = _arms(group, dataset)
            for name in dict.fromkeys(names):
                rows = np.flatnonzero(np.array(names) == name)
                found.setdefault(name, []).append((path, group.take(rows), rows))
    if not found:
        raise FileNotFoundError(
            f"{workdir} has no states: let it run with --config.keep_states=True"
        )
    fixed = next(iter(found.values()))[0][1].about.study
    config, study = _study(problem, fixed, data_dir)
    order = [arm for arm in map(str, dataset["arm"].values) if arm in found]
    return [_restored(arm, found[arm], config, study) for arm in order]


def _arms(group: pieces.Group, dataset) -> list[str]:
    """The name in the results of the arm of each run."""
    along = {str(name) for name in dataset.coords if dataset[name].dims == ("arm",)}
    shown = {n: group.hparams[n].tolist() for n in along & group.hparams.keys()}
    return [
        results.arm(group.about.method, {name: x[i] for name, x in shown.items()})
        for i in range(group.seeds.size)
    ]


def _study(problem: str, fixed: Mapping[str, Any], data_dir) -> tuple[Any, Any]:
    """The configuration of a directory, but for what its runs differ in; the study."""
    changes = dict(fixed["config"])
    checks.one_of("the study's problem", changes.pop("problem", ""), [problem])
    config = problems.part(problem, "config").get_config()
    running.change(config, changes)
    study = problems.part(problem, "study").make(config, data_dir)
    if identity.digest(study.data) != fixed["data"]:
        raise ValueError("these are not the data from which the study learned")
    return config, study


def _restored(arm: str, parts: Sequence, config, study) -> Kept:
    about = parts[0][1].about
    choices = dict(about.choices)
    own = config.copy_and_resolve_references()
    running.change(own, {"optimizer": choices.pop("plugins")[0], **choices})
    method = about.method.partition(" ")[0]
    learner, numbers, *_ = study.method(own, method)
    args = jax.random.key(0), dict.fromkeys(numbers, jnp.zeros([], float)), study.data
    seeds = np.concatenate([group.seeds for _, group, _ in parts])
    seeds, order = np.unique(seeds, return_index=True)
    read = [
        {name: leaf[rows] for name, leaf in checkpoints.load(path).items()}
        for path, _, rows in parts
    ]
    leaves = {n: np.concatenate([each[n] for each in read])[order] for n in read[0]}
    state = states.restored(jax.eval_shape(learner.init, *args), leaves)
    return Kept(arm, about.method, method, own, study, seeds, state)
