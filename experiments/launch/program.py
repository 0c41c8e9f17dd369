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
        # Heavy imports wait until then, so that errors and --help come at once.
        from experiments.launch import running, writers
        from loplax.studies import shards

        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        workdir = pathlib.Path(WORKDIR.value or f"runs/{name}")
        shard, overwrite = SHARD.value, OVERWRITE.value
        part = None if shard is None else shards.check(shard)
        folder = shards.folder(workdir, part)
        found = running.launch(
            name,
            config,
            workdir,
            preset=preset,
            data_dir=DATA_DIR.value,
            overwrite=overwrite,
            shard=part,
            on_segment=[writers.make(each, folder, overwrite) for each in WRITE.value],
        )
        if part:
            print("results:", folder)
            print(
                f"all shards: python -m experiments merge {workdir} {workdir}/shards/*"
            )
            return
        print(found.table())
        print("figures:", *found.save(workdir))
        print("results:", workdir)
