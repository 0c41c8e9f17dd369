"""What the programs of all experiments share: devices, the sweep, and a table."""

import contextlib
import json
import os
import sys

import jax
import xarray
from absl import logging

from experiments import methods
from loplax import plots, results, sweep
from loplax.optim import checks as optim_checks

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
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    if platform != "auto":
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(platform, platform))
    try:
        return jax.devices()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"platform {platform!r} is not there: {reason}") from error


def no_arguments(argv: list[str]) -> None:
    """Raises ``ValueError`` if there are arguments that are no flags."""
    if argv[1:]:
        raise ValueError(
            f"unexpected arguments {argv[1:]}; settings are --config.NAME=."
        )


@contextlib.contextmanager
def clear_errors():
    """Ends the program with one line where the user's input was bad."""
    try:
        yield
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def run(workdir, config, devices, *, method, segments, overwrite) -> xarray.Dataset:
    """Runs the sweep that a configuration describes.

    Args:
      workdir: directory of the study.
      config: the configuration.
      devices: where to run.
      method: ``(config, name) -> sweep.Method``.
      segments: number of segments of a run, and bins per segment.
      overwrite: whether to start anew.

    Returns:
      The results.

    Raises:
      ValueError: for anything in the configuration that cannot be run.
    """
    names = tuple(config.methods)
    for name in names:
        optim_checks.choice("methods", name, tuple(methods.SETTINGS))
    if len(set(names)) < len(names):
        raise ValueError(f"methods must differ, got {names}.")
    number, bins = segments
    on_cpu = devices[0].platform == "cpu"
    return sweep.run(
        workdir,
        {name: method(config, name) for name in names},
        key=jax.random.key(config.seed),
        num_seeds=config.seeds,
        num_segments=number,
        steps_per_segment=bins * config.bin,
        settings={name: list(v) for name, v in config.sweep.items() if v},
        config=scientific(config),
        runs_per_block=config.runs_per_block or (32 if on_cpu else 1024),
        max_runs=config.max_runs or None,
        devices=devices,
        checkpoint_seconds=config.checkpoint_seconds,
        overwrite=overwrite,
    )


def scientific(config) -> dict:
    """The configuration without what changes how a study runs but not its numbers."""
    how = ("platform", "runs_per_block", "max_runs", "checkpoint_seconds")
    fields = json.loads(config.to_json_best_effort())
    return {name: value for name, value in fields.items() if name not in how}


def table(dataset: xarray.Dataset, metric: str, bin_size: int) -> str:
    """A metric in the first and the last bin, one line per method and setting.

    Args:
      dataset: the results.
      metric: the metric.
      bin_size: examples per bin.

    Returns:
      Mean over the seeds and its 95% bootstrap interval, as text.
    """
    found = results.summary(dataset, metric, [0, -1])
    swept = plots.swept(dataset)
    frame = found.to_dataframe().reset_index()
    interval = "{mean:.3f} [{low:.3f}, {high:.3f}]".format_map
    frame["text"] = [interval(row) for row in frame.to_dict("records")]
    titles = {0: f"first {bin_size:,} examples", dataset.sizes["bin"] - 1: "last"}
    frame["bin"] = frame["bin"].map(lambda i: titles[i])
    index = ["method", "setting", *swept, "diverged"]
    rows = frame.pivot(index=index, columns="bin", values="text")
    rows = rows[list(titles.values())].reindex(dataset["method"].values, level="method")
    rows = rows.reset_index().drop(columns="setting").rename_axis(columns=None)
    return rows.to_string(index=False)
