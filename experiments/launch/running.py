"""A study from a call: configuration -> methods -> sweep -> results."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments.launch import devices, outcome, problems
from experiments.methods import composing, settings
from experiments.methods.table import PLUGINS
from experiments.studies import learning
from loplax.studies import checkpoints, shards, sweep

# How a study runs, which changes none of its numbers.
HOW = (
    "platform",
    "runs_per_block",
    "unroll",
    "checkpoint_seconds",
    "keep_states",
)
# What is known of each run by itself, and need not be the same in all of a directory.
OF_RUNS = ("methods", "seeds", "sweep", "optimizer")


def run(
    problem: str,
    preset: str = "",
    *,
    methods: str | Sequence[str] = (),
    seeds: int | None = None,
    sweep: Mapping[str, Sequence[float]] | None = None,
    workdir: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
    overwrite: bool = False,
    shard: str | Sequence[int] | None = None,
    progress: bool = True,
    on_segment: Sequence = (),
    **changes: Any,
) -> outcome.Outcome:
    """Runs a study, or goes on with the one in ``workdir``.

    Args:
      problem: name of a folder of ``experiments``, such as ``"permuted_mnist"``.
      preset: one of its presets; its first by default.
      methods: names such as ``"bp,cbp+layer_norm"``, or a sequence of them; those of
        the preset by default.
      seeds: number of seeds, if not that of the preset.
      sweep: values by the address of a number, ``{"cbp.replacement_rate": [1e-4, 0]}``.
      workdir: directory of the study; without one all stays in memory.
      data_dir: folder of image data; by default that of tensorflow-datasets.
      overwrite: whether to start anew if ``workdir`` holds a study.
      shard: ``"2/8"`` computes only the second of eight parts of the runs, in
        ``workdir/shards/2-of-8``; see `loplax.studies.merging.merge`.
      progress: whether to show a progress bar.
      on_segment: what to call after every segment; see `loplax.studies.sweep.run`.
      **changes: other settings, nested ones as ``{"stream": {"period": 100}}`` or by
        address, ``**{"stream.period": 100}``.

    Returns:
      The results, with ``table()``, ``figure()`` and ``to_dataframe()``; a notebook
      shows them as a table and a figure.

    Raises:
      ValueError: for anything that cannot be run, before anything is computed.

    Example:
      >>> import experiments
      >>> found = experiments.run("slowly_changing_regression", "smoke",
      ...   methods="linear", sweep={"learning_rate": [0.01, 0.001]}, seeds=3,
      ...   examples=40, bin=20, observe=(), **{"stream.period": 10}, progress=False)
      >>> dict(found.dataset["loss"].sizes)
      {'arm': 2, 'seed': 3, 'bin': 2}
    """
    config = problems.part(problem, "config").get_config(
        preset or problems.default_preset(problem)
    )
    words = learning.words([methods] if isinstance(methods, str) else methods)
    asked = {"methods": words or None, "seeds": seeds}
    changes |= {name: value for name, value in asked.items() if value is not None}
    for address, values in (sweep or {}).items():
        changes[f"sweep.{address}"] = tuple(np.atleast_1d(values).tolist())
    change(config, changes)
    return launch(
        problem,
        config,
        workdir,
        preset=preset or problems.default_preset(problem),
        data_dir=data_dir,
        overwrite=overwrite,
        shard=shard,
        progress=progress,
        on_segment=on_segment,
    )


def change(config: ml_collections.ConfigDict, changes: Mapping[str, Any]) -> None:
    """Changes settings of a configuration.

    Args:
      config: the configuration; changed in place.
      changes: new values, nested or by address; scalars of numpy and jax too.

    Raises:
      ValueError: for a setting that is not there, or a value of another type.
    """
    for name, value in changes.items():
        if isinstance(value, Mapping):
            change(config, {f"{name}.{inner}": v for inner, v in value.items()})
            continue
        settings.check_known(config, name)
        usual = dict(settings.flatten(config))[name]
        value = value.tolist() if hasattr(value, "tolist") else value
        bad = f"setting {name!r} must be such as {usual!r}, got {value!r}"
        if isinstance(value, bool) and not isinstance(usual, bool):
            raise ValueError(bad)  # else True would be taken as the number 1
        try:
            config.update_from_flattened_dict({name: value})
        except TypeError as error:
            raise ValueError(bad) from error


def launch(
    problem: str,
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike | None,
    *,
    preset: str,
    data_dir: str | os.PathLike | None = None,
    overwrite: bool = False,
    shard: str | Sequence[int] | None = None,
    progress: bool = True,
    on_segment: Sequence = (),
) -> outcome.Outcome:
    """Runs the study that a configuration describes; see `run`.

    Args:
      problem: name of the problem.
      config: its configuration.
      workdir: directory of the study, or none.
      preset: name of the preset that the configuration began as.
      data_dir: folder of image data.
      overwrite: whether to start anew.
      shard: which part of the runs, if it is one.
      progress: whether to show a progress bar.
      on_segment: what to call after every segment.

    Returns:
      The results.

    Raises:
      ValueError: for anything in the configuration that cannot be run.
    """
    methods = learning.words(config.methods)
    if len(set(methods)) < len(methods):
        raise ValueError(f"methods must differ, got {methods}.")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed must be in [0, 2**32), got {config.seed}.")
    part = None if shard is None else shards.check(shard)
    folder = None if workdir is None else shards.folder(workdir, part)
    found = devices.devices(config.platform)
    study = problems.part(problem, "study").make(config, data_dir)
    if folder and not overwrite:
        states = map(checkpoints.bin_of, checkpoints.of_units(folder))
        study = study._replace(kept=tuple(bins for bins in states if bins < study.bins))
    number, bins = study.segments
    configs = problems.part(problem, "config")
    known = preset if preset in configs.PRESETS else next(iter(configs.PRESETS))
    usual = configs.get_config(known)  # also if the user has a file with other presets
    plugins = {name: composing.method(config, name).plugins for name in methods}
    variants = settings.variants(config, plugins)
    made = {variant: study.method(own, name) for variant, name, own in variants}
    settings.check_swept(config, plugins)  # known methods first, and all they refuse
    on_cpu = found[0].platform == "cpu"
    dataset = sweep.run(
        workdir,
        made,
        key=jax.random.key(config.seed),
        num_seeds=config.seeds,
        num_segments=number,
        steps_per_segment=bins * study.steps_per_bin,
        settings=settings.swept(config),
        data=study.data,
        config={"problem": problem, **fixed(config, study)},
        defaults=fixed(usual, study),
        runs_per_block=config.runs_per_block or study.runs_per_block[on_cpu],
        devices=found,
        shard=part,
        compiler_options=devices.compiler_options(found[0]),
        checkpoint_seconds=config.checkpoint_seconds,
        keep_states=config.keep_states,
        overwrite=overwrite,
        progress=progress,
        unit=study.unit,
        on_segment=on_segment,
    )
    if preset:
        dataset.attrs["preset"] = preset
    return outcome.Outcome(dataset, problem, folder)


def fixed(config, study) -> dict[str, Any]:
    """What a configuration says that is the same for all runs of a directory.

    Args:
      config: the configuration.
      study: what it means.

    Returns:
      The rest as JSON values: without how a study runs, and without what is known of
      each run by itself.
    """
    shared = (*HOW, *OF_RUNS, *PLUGINS, "learning_rate", *study.numbers, *study.length)
    plain = json.loads(config.to_json_best_effort())
    if "observe" in plain:
        plain["observe"] = sorted(learning.words(plain["observe"]))
    return _without(plain, shared)


def _without(values: Mapping[str, Any], addresses: Sequence[str], path: str = ""):
    kept = {name: v for name, v in values.items() if path + name not in addresses}
    return {
        name: _without(value, addresses, f"{path}{name}.")
        if isinstance(value, Mapping)
        else value
        for name, value in kept.items()
    }
