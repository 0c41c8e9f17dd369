"""Runs slowly-changing regression: configuration -> learners -> sweep -> figure."""

import pathlib

from absl import app, flags

from experiments import command_line

HERE = pathlib.Path(__file__).parent
CONFIG = command_line.define_config(f"{HERE / 'config.py'}:paper")
WORKDIR = flags.DEFINE_string(
    "workdir", "runs/slowly_changing_regression", "where results go and continue from"
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "start anew if workdir has results")


def main(argv: list[str]) -> None:
    """Runs the study and draws its figure."""
    # Heavy imports wait until the flags are read, so that --help answers at once.
    from experiments import launch
    from experiments.slowly_changing_regression import plot, study

    with command_line.clear_errors():
        command_line.no_arguments(argv)
        config = CONFIG.value
        devices = launch.devices(config.platform)
        dataset = launch.run(
            WORKDIR.value,
            config,
            devices,
            method=study.method,
            segments=study.segments(config),
            overwrite=OVERWRITE.value,
        )
        print(launch.table(dataset, "loss", config.bin))
        print("figures:", *plot.draw(WORKDIR.value))
        print("results:", pathlib.Path(WORKDIR.value) / "results.nc")


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.read_flags)
