"""What the programs of all experiments share: devices, the sweep, and a table."""

import contextlib
import json
import os

import jax
import xarray
from absl import logging

from experiments.studies import learning
from loplax.studies import plots, statistics, sweep

PLATFORMS = ("auto", "cpu", "gpu", "tpu")


def devices(platform: str) -> list[jax.Device]:
    """Selects the platform; on CPU every core becomes a device.

    Call it before anything else of jax.

    Args:
      platform: one of ``PLATFORMS``; ``auto`` takes the best there is.

    Returns:
      The devices.

    Raises:
      ValueError: if the platform is unknown or not there.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"platform must be one of {PLATFORMS}, got {platform!r}.")
    logging.set_verbosity(logging.WARNING)  # jax reports every platform it tries
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", cores)
    if platform != "auto":
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(platform, platform))
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # jax asserts there is a default
        reason = (str(error) or "jax has no such device").splitlines()[0]
        raise ValueError(f"platform {platform!r} is not there: {reason}") from error


def compiler_options(device: jax.Device) -> dict[str, object]:
    """Options that make vmapped tiny networks fast, those that the compiler knows.

    On CPU, wide vectors pay, and library calls for sums within the loop do not.

    Args:
      device: one of the devices.

    Returns:
      The options, for ``jax.jit``.
    """
    known = {}
    if device.platform == "cpu":
        wanted = {
            "xla_cpu_prefer_vector_width": 512,
            "xla_cpu_experimental_ynn_fusion_type": "",
        }
        for name, value in wanted.items():
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                jax.jit(lambda x: x, compiler_options={name: value})(0.0)
                known[name] = value
    return known


def run(workdir, config, devices, study, *, overwrite) -> xarray.Dataset:
    """Runs the sweep that a configuration describes.

    Args:
      workdir: directory of the study.
      config: the configuration.
      devices: where to run.
      study: what the configuration means, a ``studies.Study`` or a ``control.Study``.
      overwrite: whether to start anew.

    Returns:
      The results.

    Raises:
      ValueError: for anything in the configuration that cannot be run.
    """
    names = learning.words(config.methods)
    if len(set(names)) < len(names):
        raise ValueError(f"methods must differ, got {names}.")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed must be in [0, 2**32), got {config.seed}.")
    number, bins = study.segments
    on_cpu = devices[0].platform == "cpu"
    return sweep.run(
        workdir,
        {name: study.method(config, name) for name in names},
        key=jax.random.key(config.seed),
        num_seeds=config.seeds,
        num_segments=number,
        steps_per_segment=bins * study.steps_per_bin,
        settings={name: list(v) for name, v in config.sweep.items() if v},
        data=study.data,
        config=scientific(config),
        runs_per_block=config.runs_per_block or study.runs_per_block[on_cpu],
        max_runs=config.max_runs or None,
        devices=devices,
        compiler_options=compiler_options(devices[0]),
        checkpoint_seconds=config.checkpoint_seconds,
        overwrite=overwrite,
    )


def scientific(config) -> dict:
    """The configuration without what changes how a study runs but not its numbers."""
    how = ("platform", "runs_per_block", "max_runs", "unroll", "checkpoint_seconds")
    fields = json.loads(config.to_json_best_effort())
    for name in ("methods", "observe"):
        if name in fields:
            fields[name] = learning.words(fields[name])
    return {name: value for name, value in fields.items() if name not in how}


def table(
    dataset: xarray.Dataset, metric: str, every: int = 1, steps: str = "examples"
) -> str:
    """A metric in the first and the last bins, one line per arm.

    Args:
      dataset: the results.
      metric: the metric.
      every: number of bins to average.
      steps: what the results' steps are.

    Returns:
      Mean over the seeds and its 95% bootstrap interval, as text; the mean alone where
      only one run has a value, ``-`` where none has.
    """
    size = int(dataset["step"][0]) * min(every, dataset.sizes["bin"])
    dataset = plots.coarse(dataset, metric, every)
    ends = sorted({0, dataset.sizes["bin"] - 1})
    names = [f"first {size:,} {steps}", f"last {size:,}"][: len(ends)]
    found = statistics.summary(dataset, metric, ends)
    swept = plots.swept(dataset)
    frame = found.to_dataframe().reset_index()
    forms = ("-", "{mean:.3f}", "{mean:.3f} [{low:.3f}, {high:.3f}]")
    rows = frame.to_dict("records")
    frame["text"] = [forms[min(row["runs"], 2)].format_map(row) for row in rows]
    # In a bin it counts those by then: what is listed is how many did in the end.
    frame["diverged"] = frame.groupby("arm")["diverged"].transform("max")
    frame["bin"] = frame["bin"].map(dict(zip(found["bin"].values, names, strict=True)))
    rows = frame.pivot(
        index=["arm", "method", *swept, "diverged"], columns="bin", values="text"
    )
    rows = rows[names].reindex(dataset["arm"].values, level="arm").reset_index()
    rows = rows.drop(columns="arm").rename_axis(columns=None)
    rows[swept] = rows[swept].map("{:g}".format).replace("nan", "-")
    return rows.to_string(index=False)
