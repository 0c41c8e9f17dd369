"""The program as it is started: what it writes, prints, and says of bad input."""

import os
import pathlib
import subprocess
import sys

import pytest
import xarray

from experiments import command_line
from loplax import results

ROOT = pathlib.Path(__file__).parents[2]
NAME = "experiments.slowly_changing_regression"
SMOKE = "--config=experiments/slowly_changing_regression/config.py:smoke"
SMALL = (
    SMOKE,
    "--config.methods=bp,linear",
    "--config.seeds=2",
    "--config.examples=80",
    "--config.bin=20",
    "--config.stream.period=10",
)


def program(*arguments, name=f"{NAME}.run", optimized=False):
    """Runs a program to its end, from the checkout's root as the docs say."""
    quick = {"JAX_PLATFORMS": "cpu"}
    if not optimized:
        quick["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    return subprocess.run(
        [sys.executable, "-m", name, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | quick,
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_refused(ended, *words):
    """One line on stderr with these words, nothing on stdout, and a bad status."""
    assert ended.returncode != 0
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A study with a sweep, and what the program printed."""
    workdir = tmp_path_factory.mktemp("swept") / "study"
    rates = "--config.sweep.learning_rate=(0.01,0.001)"
    ended = program(*SMALL, rates, f"--workdir={workdir}")
    assert ended.returncode == 0, ended.stderr
    return workdir, ended


def test_results_open_in_xarray(swept):
    """Two step sizes are two settings."""
    dataset = xarray.open_dataset(swept[0] / "results.nc", engine="scipy")
    sizes = {"method": 2, "setting": 2, "seed": 2, "bin": 4}
    assert dict(dataset["loss"].sizes) == sizes
    assert list(dataset["learning_rate"].values) == [0.01, 0.001]
    assert list(dataset["step"].values) == [20, 40, 60, 80]
    assert not dataset["loss"].isnull().any()


def test_figures_are_written_and_named(swept):
    workdir, ended = swept
    for name in ("figure.png", "diagnostics.png", "sweep.png"):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")
        assert name in ended.stdout


def test_table_is_printed(swept):
    """A line for each method and step size, under a title."""
    lines = swept[1].stdout.splitlines()
    assert "learning_rate" in lines[0] and "first 20 examples" in lines[0]
    assert [line.split()[0] for line in lines[1:5]] == ["bp", "bp", "linear", "linear"]
    assert "Traceback" not in swept[1].stderr


def test_figures_can_be_drawn_again(swept):
    ended = program(swept[0], name=f"{NAME}.plot")
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 3


def test_plot_says_if_there_are_no_results(tmp_path):
    assert_refused(program(tmp_path, name=f"{NAME}.plot"), "no results")


def test_another_config_is_refused(swept):
    before = (swept[0] / "results.nc").read_bytes()
    ended = program(*SMALL, "--config.cbp.decay_rate=0.5", f"--workdir={swept[0]}")
    assert_refused(ended, "decay_rate", "0.99", "0.5")
    assert (swept[0] / "results.nc").read_bytes() == before


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_a_platform_that_is_not_there_is_refused(platform):
    """GPUs are hidden from the program; on a TPU there is nothing to refuse."""
    code = (
        "import sys\n"
        "from experiments import command_line, launch\n"
        "with command_line.clear_errors():\n"
        "    launch.devices(sys.argv[1])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, platform],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    if platform == "tpu" and ended.returncode == 0:
        pytest.skip("it is there")
    assert_refused(ended, f"'{platform}'")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((SMOKE.replace("smoke", "smok"),), ("preset", "'smok'")),
        (("--config=nowhere.py",), ("nowhere.py",)),
        ((SMOKE, "--config.lerning_rate=1"), ("learning_rate",)),
        ((SMOKE, "--config.sweep.lerning_rate=1"), ("lerning_rate",)),
        ((SMOKE, "--config.seeds=many"), ("seeds", "many")),
        ((SMOKE, "--config.learning_rate=fast"), ("learning_rate", "fast")),
        ((SMOKE, "--wrokdir=here"), ("wrokdir",)),
        ((SMOKE, "seeds=3"), ("seeds=3",)),
        ((SMOKE, "--config.platform=gpx"), ("platform", "'gpx'")),
    ],
)
def test_bad_flags_are_refused(arguments, words, tmp_path):
    ended = program(*arguments, f"--workdir={tmp_path / 'study'}")
    assert_refused(ended, *words)
    assert not (tmp_path / "study").exists()


def test_help_answers_without_jax():
    """Reading the help, or mistyping a flag, does not wait for heavy imports."""
    code = (
        "import sys, runpy\n"
        "sys.argv = ['run', '--help']\n"
        "try:\n"
        f"    runpy.run_module('{NAME}.run', run_name='__main__')\n"
        "finally:\n"
        "    loaded = {'jax', 'flax', 'xarray', 'matplotlib'} & set(sys.modules)\n"
        "    print('loaded:', sorted(loaded))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "--workdir" in ended.stdout
    assert ended.stdout.endswith("loaded: []\n")


@pytest.mark.parametrize("error", [ValueError("a\n  b"), OSError(28, "disk full")])
def test_bad_input_is_one_line(error):
    with pytest.raises(SystemExit) as caught, command_line.clear_errors():
        raise error
    assert caught.value.code == f"error: {' '.join(str(error).split())}"


def test_other_errors_are_bugs_and_keep_their_traceback():
    with pytest.raises(KeyError), command_line.clear_errors():
        raise KeyError("oops")


def test_interruption_has_the_usual_status():
    with pytest.raises(SystemExit) as caught, command_line.clear_errors():
        raise KeyboardInterrupt
    assert caught.value.code == 130


def test_many_runs_on_all_cores_do_not_wait_for_each_other(tmp_path):
    """Ranks of 50 runs on each of two devices once blocked one another for ever."""
    settings = {"seeds": 100, "methods": "bp", "examples": 20_000, "bin": 10_000}
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    ended = program(f"--workdir={tmp_path / 'study'}", *flags, optimized=True)
    assert ended.returncode == 0, ended.stderr
    ranks = results.load(tmp_path / "study")["effective_rank"]
    assert bool((ranks >= 0).all())
