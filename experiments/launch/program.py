"""The program of every experiment: flags -> configuration -> study -> figures."""

import gc
import pathlib
import sys

from absl import app, flags

WORKDIR = flags.DEFINE_string(
    "workdir", None, "where results go and continue from (default: runs/EXPERIMENT)"
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "start anew if workdir has results")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of image data (default: that of tensorflow-datasets)"
)
SHARD = flags.DEFINE_string(
    "shard", None, "the part of the runs to compute, such as 2/8, in WORKDIR/shards"
)
DISTRIBUTED = flags.DEFINE_string(
    "distributed",
    None,
    "compute with other processes that see WORKDIR: auto, or ADDRESS:PORT,NUMBER,ID, "
    "where ID is 0 to NUMBER - 1",
)
WRITE = flags.DEFINE_list(
    "write", [], "what else to write as the study runs: csv, tensorboard, wandb"
)


def main(file: str) -> None:
    """Runs the experiment to which a ``run.py`` belongs.

    Args:
      file: path of that ``run.py``; beside it lie ``config.py``, ``study.py`` and
        ``plot.py``.
    """
    # What is imported stays: to go through it for garbage again and again took 11 to
    # 28% of the processor time in which a finished study answers.
    gc.disable()
    from experiments.launch import command_line

    folder = pathlib.Path(file).parent
    arguments, preset = command_line.presets(sys.argv[1:], folder)
    sys.argv[1:] = arguments
    config = command_line.define_config(f"{folder / 'config.py'}:{preset}")
    run = lambda argv: _run(argv, config.value, folder.name, preset)
    app.run(run, flags_parser=lambda argv: command_line.read_flags(argv, folder))


def _run(argv: list[str], config, name: str, preset: str) -> None:
    from experiments.launch import command_line

    with command_line.clear_errors(), command_line.ends_at_once():
        command_line.no_arguments(argv)
        _ = config.platform  # the file is read here, and may be missing
        workdir = pathlib.Path(WORKDIR.value or f"runs/{name}")
        compute = lambda part: _compute(part, workdir, config, name, preset)
        if DISTRIBUTED.value is not None:
            _with_others(workdir, compute)
            return
        # Heavy imports wait until then, so that errors and --help come at once.
        from loplax.studies import shards

        part = None if SHARD.value is None else shards.check(SHARD.value)
        found = compute(part)
        if part is None:
            _show(found, workdir)
            return
        print("results:", found.workdir)
        print(f"all shards: python -m experiments merge {workdir} {workdir}/shards/*")


def _with_others(workdir: pathlib.Path, compute) -> None:
    """Computes a study together with other processes."""
    if SHARD.value is not None or OVERWRITE.value:
        raise ValueError("distributed goes neither with shard nor with overwrite")
    from experiments.launch import command_line, hosts

    part = hosts.join(DISTRIBUTED.value)
    ends_at_once = command_line.ends_at_once
    with hosts.ends_alone(), command_line.clear_errors(), ends_at_once():
        found = hosts.run(workdir, part, compute)
        if found:
            _show(found, workdir)


def _compute(part, workdir: pathlib.Path, config, name: str, preset: str):
    """Computes a study, or a part of it."""
    from experiments.launch import running, writers
    from loplax.studies import shards

    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    overwrite, alone = OVERWRITE.value, DISTRIBUTED.value is None
    silent = not alone and part is not None and part.number > 1
    folder = shards.folder(workdir, part) if alone else workdir
    told = [] if silent else WRITE.value
    return running.launch(
        name,
        config,
        workdir,
        preset=preset,
        data_dir=DATA_DIR.value,
        overwrite=overwrite,
        shard=part,
        progress=not silent,
        on_segment=[writers.make(each, folder, overwrite) for each in told],
    )


def _show(found, workdir: pathlib.Path) -> None:
    """Shows the results of a study, and writes its figures."""
    print(found.table())
    print("figures:", *found.save(workdir))
    print("results:", workdir)
