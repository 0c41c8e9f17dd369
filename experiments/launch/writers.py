"""Writers of what a study measures while it runs: hooks for ``on_segment``."""

import csv
import pathlib
from collections.abc import Callable

from loplax import checks, extras


def make(name: str, workdir: pathlib.Path, overwrite: bool = False) -> Callable:
    """A hook that writes the means over the runs after every segment.

    Args:
      name: ``csv`` (``progress.csv``), ``tensorboard`` or ``wandb``.
      workdir: directory of the study.
      overwrite: whether the study starts anew.

    Returns:
      The hook, see ``on_segment`` of ``loplax.studies.sweep.run``.

    Raises:
      ValueError: for an unknown name.
      ImportError: if a package is missing, with the extra that brings it.
    """
    checks.one_of("write", name, tuple(WRITERS))
    return WRITERS[name](pathlib.Path(workdir), overwrite)


def _csv(workdir: pathlib.Path, overwrite: bool) -> Callable:
    path, begun = workdir / "progress.csv", not overwrite

    def write(progress) -> None:
        nonlocal begun
        if not begun:  # not before the study is known to be good
            path.unlink(missing_ok=True)
        begun, new = True, not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["method", "unit", "runs", "step", "metric", "mean"])
            method, step, metrics, *runs = progress
            rows = ([method, *runs, step, *pair] for pair in metrics.items())
            writer.writerows(rows)

    return write


def _tensorboard(workdir: pathlib.Path, overwrite: bool) -> Callable:
    with extras.needed("tensorboard", "tensorboard"):
        import tensorboardX
    writers = {}

    def write(progress) -> None:
        if progress.method not in writers:
            folder = workdir / "tensorboard" / progress.method
            writers[progress.method] = tensorboardX.SummaryWriter(str(folder))
        for name, mean in progress.metrics.items():
            writers[progress.method].add_scalar(name, mean, progress.step)
        writers[progress.method].flush()

    return write


def _wandb(workdir: pathlib.Path, overwrite: bool) -> Callable:
    with extras.needed("wandb", "wandb"):
        import wandb
    runs = []  # one, begun when the study is: what cannot be run leaves no trace

    def write(progress) -> None:
        if not runs:
            name = workdir.resolve().name
            runs.append(wandb.init(project="loplax", name=name, dir=str(workdir)))
        means = {f"{progress.method}/{n}": mean for n, mean in progress.metrics.items()}
        runs[0].log(means | {f"{progress.method}/step": progress.step})

    return write


WRITERS = {"csv": _csv, "tensorboard": _tensorboard, "wandb": _wandb}
