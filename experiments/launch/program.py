"""The program of every experiment: flags -> configuration -> sweep -> figures."""

import importlib
import pathlib
import sys

from absl import app, flags

from experiments.launch import command_line

WORKDIR = flags.DEFINE_string(
    "workdir", None, "where results go and continue from (default: runs/EXPERIMENT)"
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "start anew if workdir has results")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of image data (default: that of tensorflow-datasets)"
)


def main(file: str, preset: str) -> None:
    """Runs the experiment to which a ``run.py`` belongs.

    Args:
      file: path of that ``run.py``; beside it lie ``config.py``, ``study.py`` and
        ``plot.py``.
      preset: the configuration to run if the user names none.
    """
    folder = pathlib.Path(file).parent
    config = command_line.define_config(f"{folder / 'config.py'}:{preset}")
    for flag in (config, WORKDIR, OVERWRITE, DATA_DIR):  # for --help to list them
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[flag.name])
    run = lambda argv: _run(argv, config.value, folder.name)
    app.run(run, flags_parser=command_line.read_flags)


def _run(argv: list[str], config, name: str) -> None:
    with command_line.clear_errors():
        command_line.no_arguments(argv)
        platform = config.platform  # it is read here, and may be missing
        # Heavy imports wait until then, so that errors and --help come at once.
        from experiments.figures import figures, table
        from experiments.launch import launching
        from experiments.methods import specs

        devices = launching.devices(platform)
        study = importlib.import_module(f"experiments.{name}.study")
        shown = importlib.import_module(f"experiments.{name}.plot").FIGURE
        workdir = pathlib.Path(WORKDIR.value or f"runs/{name}")
        dataset = launching.run(
            workdir,
            config,
            devices,
            study.make(config, DATA_DIR.value),
            overwrite=OVERWRITE.value,
        )
        print(table.text(dataset, shown))
        drawn = figures.draw(dataset, shown, labels=specs.LABELS)
        print("figures:", *figures.save(drawn, workdir))
        print("results:", workdir / "results.nc")
