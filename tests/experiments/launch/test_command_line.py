"""The program as it is started: what it writes, prints, and says of bad input."""

import os
import pathlib
import runpy
import subprocess
import sys

import pytest
import xarray

from experiments.launch import command_line
from loplax.studies import results

ROOT = pathlib.Path(__file__).parents[2]
NAME = "experiments.slowly_changing_regression"
SMOKE = "--config=experiments/slowly_changing_regression/config.py:smoke"
SMALL = (
    SMOKE,
    "--config.methods=bp,linear",
    "--config.examples=80",
    "--config.bin=20",
    "--config.unroll=1",
    "--config.stream.period=10",
)


def program(*arguments, name=f"{NAME}.run"):
    """Runs a program to its end, from the checkout's root as the docs say."""
    quick = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
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
    """A study with a sweep, on as many devices as there are cores, and what it prints.

    Ranks of so many runs on each of two devices once blocked one another for ever.
    """
    workdir = tmp_path_factory.mktemp("swept") / "study"
    sweep = ("--config.seeds=50", "--config.sweep.learning_rate=(0.01,0.001)")
    ended = program(*SMALL, *sweep, f"--workdir={workdir}")
    assert ended.returncode == 0, ended.stderr
    return workdir, ended


def test_several_devices_give_the_same_numbers_as_one(swept, finished):
    """However many seeds there are beside them."""
    found = xarray.load_dataset(swept[0] / "results.nc", engine="scipy")
    assert dict(found["loss"].sizes) == {
        "method": 2,
        "setting": 2,
        "seed": 50,
        "bin": 4,
    }
    expected = results.load(finished[0])
    xarray.testing.assert_allclose(found.isel(seed=[0, 1]), expected, rtol=1e-4)


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


def test_figures_can_be_drawn_again(swept, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["plot", str(swept[0])])
    plot = ROOT / "experiments" / "slowly_changing_regression" / "plot.py"
    runpy.run_path(str(plot), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(pathlib.Path(line).is_file() for line in lines)


def test_platforms_that_are_not_there_are_refused():
    """GPUs are hidden from the program; on a TPU there is nothing to refuse."""
    code = (
        "from experiments import command_line, launch\n"
        "for platform in ('gpu', 'tpu'):\n"
        "    try:\n"
        "        with command_line.clear_errors():\n"
        "            launching.devices(platform)\n"
        "    except SystemExit as ended:\n"
        "        print(ended)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0 and ended.stderr == ""
    gpu, *tpu = ended.stdout.splitlines()
    assert gpu.startswith("error: platform 'gpu' is not there")
    assert all(line.startswith("error: platform 'tpu' is not there") for line in tpu)
    assert len(tpu) <= 1


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
    ],
)
def test_bad_flags_are_refused(arguments, words, tmp_path):
    ended = program(*arguments, f"--workdir={tmp_path / 'study'}")
    assert_refused(ended, *words)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("argument", ["--help", "--config=nowhere.py", "seeds=3"])
def test_answers_come_without_jax(argument):
    """Help, and what is wrong with the flags, do not wait for heavy imports."""
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['run', '{argument}']\n"
        "try:\n"
        f"    runpy.run_module('{NAME}.run', run_name='__main__')\n"
        "finally:\n"
        "    loaded = {'jax', 'flax', 'xarray', 'matplotlib'} & set(sys.modules)\n"
        "    print('loaded:', sorted(loaded))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert (ended.returncode == 0) == (argument == "--help")
    assert ended.stdout.endswith("loaded: []\n")


def test_help_lists_the_flags():
    ended = program("--help")
    assert ended.returncode == 0
    for flag in ("--config:", "--workdir:", "--[no]overwrite:", "--data_dir:"):
        assert flag in ended.stdout


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
