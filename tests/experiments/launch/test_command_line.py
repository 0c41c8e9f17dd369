"""The programs as they are started: what they write, print, and say of bad input."""

import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest
import xarray

from experiments import __main__ as directories
from experiments.launch import command_line, problems
from loplax.studies import results

ROOT = pathlib.Path(__file__).parents[3]
PROBLEM = "slowly_changing_regression"
FOLDER = ROOT / "experiments" / PROBLEM
FILE = f"--config=experiments/{PROBLEM}/config.py"
HEAVY = ("xarray", "matplotlib", "gymnax", "brax", "sklearn", "scipy", "orbax")
SMALL = (
    "--config.methods=bp,linear",
    "--config.examples=80",
    "--config.bin=20",
    "--config.unroll=1",
    "--config.stream.period=10",
)


def started(*arguments, **options):
    """Starts Python from the checkout's root, as the docs say."""
    quick = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | quick,
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


# Studies.


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A study with a sweep, on as many devices as there are cores, and what it prints.

    Ranks of so many runs on each of two devices once blocked one another for ever.
    """
    workdir = tmp_path_factory.mktemp("swept") / "study"
    how = ("--config.seeds=50", "--config.sweep.learning_rate=(0.01,0.001)")
    run = ("-m", f"experiments.{PROBLEM}.run", "--preset=smoke", "--write=csv")
    ended = started(*run, *SMALL, *how, f"--workdir={workdir}")
    assert ended.returncode == 0, ended.stderr
    return workdir, ended


def test_several_devices_give_the_same_numbers_as_one(swept, finished):
    """However many seeds there are beside them."""
    found = results.load(swept[0])
    assert dict(found["loss"].sizes) == {"arm": 4, "seed": 50, "bin": 4}
    expected = results.load(finished[0])
    first = found.sel(arm=expected["arm"], seed=[0, 1])
    xarray.testing.assert_allclose(first, expected, rtol=1e-4)


def test_figures_and_what_else_was_asked_for_are_written(swept):
    workdir, ended = swept
    for name in ("figure.png", "diagnostics.png", "sweep.png"):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")
        assert name in ended.stdout
    lines = (workdir / "progress.csv").read_text().splitlines()
    assert lines[0] == "method,unit,runs,step,metric,mean" and len(lines) > 8


def test_a_table_and_the_place_of_the_results_are_printed(swept):
    """A line for each method and step size, under a title; progress is on stderr."""
    lines = swept[1].stdout.splitlines()
    assert "first 20 examples" in lines[0]
    assert [line.split()[0] for line in lines[1:5]] == ["bp", "bp", "linear", "linear"]
    assert lines[-1] == f"results: {swept[0]}"
    assert "Traceback" not in swept[1].stderr and "\r" not in swept[1].stderr


def test_figures_can_be_drawn_again(swept, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["plot", str(swept[0])])
    runpy.run_path(str(FOLDER / "plot.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(pathlib.Path(line).is_file() for line in lines)


# Directories of studies.


def test_studies_in_a_folder_are_listed(swept, finished, capsys):
    directories.main(["list", str(finished[0].parent)])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{finished[0]}: {PROBLEM}, 2 seeds, 100% done: bp ")


def test_studies_are_compared_in_one_table(swept, finished, tmp_path, capsys):
    folders = [str(finished[0]), str(swept[0])]
    directories.main(["compare", *folders, "--save", str(tmp_path / "new")])
    lines = capsys.readouterr().out.splitlines()
    for folder in folders:
        assert sum(f"({folder})" in line for line in lines[1:9]) == 4
    assert (tmp_path / "new" / "figure.png").is_file()
    together = directories._outcome(folders)
    methods = [f"{m} ({folder})" for folder in folders for m in ("bp", "linear")]
    assert set(together.dataset["method"].values) == set(methods)
    directories.main(["compare", folders[0]])
    assert f"({folders[0]})" not in capsys.readouterr().out


def test_studies_of_other_lengths_and_numbers_are_compared(swept, finished):
    """What one of them does not have is missing there, and counts as not done."""
    one, other = results.load(finished[0]), results.load(swept[0])
    other = other.isel(seed=[0, 1, 2], bin=[0, 1], arm=[0]).drop_vars("learning_rate")
    for pair in ((one, other), (other, one)):
        found = directories._together(dict(zip("ab", pair, strict=True)))
        assert dict(found["loss"].sizes) == {"arm": 5, "seed": 3, "bin": 4}
        assert list(found["step"].values) == [20, 40, 60, 80]
        name = "(b)" if pair[0] is one else "(a)"
        short = found.sel(arm=found["arm"].str.contains(name, regex=False))
        assert np.isnan(short["learning_rate"]).all()
        np.testing.assert_array_equal(short["bins_done"], [[4, 4, 4]])
        long = found.drop_sel(arm=short["arm"])
        np.testing.assert_array_equal(long["bins_done"], [[4, 4, 0]] * 4)
        assert found["diverged"].dtype == bool and not found["diverged"].any()
    longer = other.assign_coords(step=2 * other["step"])
    with pytest.raises(ValueError, match="bins of b are not as long"):
        directories._together({"a": one, "b": longer})


@pytest.mark.parametrize("form", ["csv", "json"])
def test_all_metrics_are_exported(finished, form, capsys):
    directories.main(["export", str(finished[0]), f"--format={form}"])
    lines = capsys.readouterr().out.splitlines()
    rows = 4 * 2 * 4
    assert len(lines) == rows + (form == "csv")
    if form == "csv":
        assert {"arm", "seed", "step", "loss"} < set(lines[0].split(","))
    else:
        first = json.loads(lines[0])
        expected = results.load(finished[0])["loss"][0, 0, 0].item()
        assert first["loss"] == pytest.approx(expected)


def test_all_metrics_are_exported_as_netcdf(finished, tmp_path, capfdbinary):
    directories.main(["export", str(finished[0]), "--format=nc"])
    path = tmp_path / "all.nc"
    path.write_bytes(capfdbinary.readouterr().out)
    found = xarray.load_dataset(path, engine="scipy")
    xarray.testing.assert_equal(found, results.load(finished[0]))


def test_studies_are_merged(swept, finished, tmp_path, capsys):
    """Of one study, into one that can be listed."""
    directories.main(["merge", str(tmp_path), str(finished[0])])
    assert f"{tmp_path}: {PROBLEM}, 2 seeds, 100% done: bp " in capsys.readouterr().out
    xarray.testing.assert_equal(results.load(tmp_path), results.load(finished[0]))
    directories.main(["merge", str(tmp_path), str(swept[0]), str(finished[0])])
    both = results.load(tmp_path)
    assert both.sizes["seed"] == results.load(swept[0]).sizes["seed"] > 2
    assert (both["bins_done"] == both["bins_asked"]).all()
    with pytest.raises(SystemExit, match="^error: there is no study in"):
        directories.main(["merge", str(tmp_path), str(tmp_path / "none")])


@pytest.mark.parametrize("command", ["list", "compare", "export"])
def test_what_is_no_study_is_refused(command, tmp_path):
    with pytest.raises(SystemExit, match="^error: .*no "):
        directories.main([command, str(tmp_path)])


def test_different_problems_are_not_compared(finished, monkeypatch):
    load, other = results.load, results.load(finished[0])
    other.attrs["config"] = json.dumps({"problem": "ant"})
    both = lambda path: other if path == "other" else load(path)
    monkeypatch.setattr(results, "load", both)
    with pytest.raises(SystemExit, match=rf"different problems.*ant.*{PROBLEM}"):
        directories.main(["compare", str(finished[0]), "other"])


# Presets.


@pytest.mark.parametrize(
    ("arguments", "preset", "left"),
    [
        ([], "paper", [f"--config={FOLDER / 'config.py'}"]),
        (["--preset=smoke"], "smoke", [f"--config={FOLDER / 'config.py'}:smoke"]),
        (["--preset", "smoke"], "smoke", [f"--config={FOLDER / 'config.py'}:smoke"]),
        (["--config=smoke"], "smoke", [f"--config={FOLDER / 'config.py'}:smoke"]),
        ([f"{FILE}:smoke"], "smoke", [f"{FILE}:smoke"]),
        ([FILE], "paper", [FILE]),
        ([FILE, "--preset=smoke"], "smoke", [f"{FILE}:smoke"]),
        (["--preset=smoke", FILE], "smoke", [f"{FILE}:smoke"]),
        (["--config=my/own.py:fast"], "fast", ["--config=my/own.py:fast"]),
        (["--config", f"{FILE[9:]}:smoke"], "smoke", [f"{FILE}:smoke"]),
        (
            ["--config.seeds=3", "--preset=smoke"],
            "smoke",
            [f"--config={FOLDER / 'config.py'}:smoke", "--config.seeds=3"],
        ),
        (
            [FILE, "--config.hidden=1", "--config.keep_states", "-config.hidden=2"],
            "paper",
            [FILE, "--config.keep_states", "-config.hidden=2"],
        ),
        (
            [FILE, "--write=csv", "--config.l2.a=1", "--write=csv", "--config.a=1"],
            "paper",
            [FILE, "--write=csv", "--config.l2.a=1", "--write=csv", "--config.a=1"],
        ),
    ],
)
def test_presets_are_asked_for_in_several_ways(arguments, preset, left):
    assert command_line.presets(arguments, FOLDER) == (left, preset)


# Flags. The cases share one process, which forks after the imports that all wait for.

BAD = [
    (["--preset=smok"], ("preset", "'smok'", "did you mean 'smoke'")),
    (["--config=smok"], ("preset", "'smok'", "did you mean 'smoke'")),
    ([f"{FILE}:smok"], ("preset", "'smok'", "did you mean 'smoke'")),
    (["--preset"], ("preset", "got ''")),
    (["--config=nowhere.py"], ("nowhere.py",)),
    (
        ["--preset=smoke", "--config.lerning_rate=1"],
        ("no setting 'lerning_rate'; did you mean 'learning_rate'?",),
    ),
    (
        ["--preset=smoke", "--config.seeds=3", "--config.sweep.lerning_rate=1"],
        ("no setting 'sweep.lerning_rate'; did you mean 'sweep.learning_rate'?",),
    ),
    (
        ["--preset=smoke", "--config.sweep.l2.strength=(1e-4,1e-3)"],
        ("no setting 'sweep.l2.strength'; l2 has weight_decay",),
    ),
    (
        [FILE, "--config.cbp.decay=1"],
        ("no setting 'cbp.decay'; did you mean 'cbp.decay_rate'?",),
    ),
    (["--config.sweep.activation=(1,)"], ("activation is a setting that is not",)),
    (["--preset=smoke", "--config.seeds=many"], ("seeds", "many")),
    (["--preset=smoke", "--config.learning_rate=fast"], ("learning_rate", "fast")),
    (["--preset=smoke", "--wrokdir=here"], ("wrokdir",)),
    (["--preset=smoke", "seeds=3"], ("seeds=3",)),
]
HELP = [["--help"], ["--preset=smoke", "-h"]]
FORK = f"""
import json, os, runpy, signal, sys, tempfile
from experiments.launch import program
from experiments.slowly_changing_regression import config

ended = []
for arguments in json.load(sys.stdin):
    out, err, loaded = (tempfile.TemporaryFile("w+") for _ in range(3))
    child = os.fork()
    if not child:
        signal.alarm(60)  # were it to run the study after all
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.argv = ["run", *arguments]
        try:
            runpy.run_module("experiments.{PROBLEM}.run", run_name="__main__")
        finally:
            print(*sys.modules, file=loaded, flush=True)
        sys.exit()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    files = [file.seek(0) or file.read() for file in (out, err, loaded)]
    ended.append([code, *files])
json.dump(ended, sys.stdout)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """``arguments -> (status, stdout, stderr, loaded modules)``."""
    folder = tmp_path_factory.mktemp("refused")
    cases = [arguments for arguments, _ in BAD] + HELP
    asked = [[*arguments, f"--workdir={folder / 'study'}"] for arguments in cases]
    assert asked[3].pop() and asked[3] == ["--preset"]  # nothing behind it
    ended = started("-c", FORK, input=json.dumps(asked))
    assert ended.returncode == 0, ended.stderr
    assert not list(folder.iterdir())
    found = json.loads(ended.stdout)
    return lambda arguments: found[cases.index(arguments)]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=lambda x: str(x)[:50])
def test_bad_flags_are_refused(arguments, words, answers):
    """One line on stderr with these words, nothing on stdout, and a bad status."""
    code, out, err, _ = answers(arguments)
    assert code != 0 and out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


@pytest.mark.parametrize("arguments", HELP, ids=str)
def test_help_lists_presets_flags_methods_and_settings(arguments, answers):
    code, out, err, _ = answers(arguments)
    assert (code, err) == (0, "")
    for flag in ("--workdir", "--overwrite", "--data_dir", "--write", "--preset="):
        assert flag in out
    for name in problems.part(PROBLEM, "config").PRESETS:
        assert f"\n  {name} " in out
    settings = dict(
        line.split()[:2] for line in out.splitlines() if len(line.split()) > 1
    )
    assert settings["cbp.replacement_rate"] == "0.0001"
    assert settings["stream.period"] == "10000"
    assert "sweep." not in settings
    assert re.search(r"\n  redo +re-initialises dormant units\n", out)
    assert re.search(r"\n  platform +auto +auto, cpu, gpu or tpu\n", out)


@pytest.mark.parametrize(
    ("problem", "there", "missing"),
    [
        ("permuted_mnist", {"bp", "cbp", "ema", "adam"}, {"er", "ewc", "sgm"}),
        ("stability_gap", {"bp", "er", "ewc", "sgm"}, set()),
        ("nonstationary_control", {"bp", "cbp", "layer_norm"}, {"er", "ema", "sgm"}),
        ("quadratic", {"bp", "metaplastic"}, {"er", "ema", "input_normalization"}),
    ],
)
def test_help_lists_the_plugins_that_the_problem_can_have(problem, there, missing):
    lines = command_line.usage(ROOT / "experiments" / problem).splitlines()
    first = lines.index("plugins of methods (--config.methods=bp,cbp+layer_norm):") + 1
    listed = {line.split()[0] for line in lines[first : lines.index("", first)]}
    assert there <= listed and not missing & listed


@pytest.mark.parametrize(
    "arguments",
    [*HELP, *(arguments for arguments, _ in BAD)],
    ids=lambda x: str(x)[:50],
)
def test_answers_do_not_wait_for_what_they_do_not_need(arguments, answers):
    """Help, and what is wrong with the flags."""
    loaded = answers(arguments)[3].split()
    assert "jax" in loaded and not set(HEAVY).intersection(loaded)


# Errors.


@pytest.mark.parametrize(
    "error", [ValueError("a\n  b"), OSError(28, "disk full"), ImportError("no b")]
)
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
