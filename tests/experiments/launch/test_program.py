"""What the program says at its end, and of input that it cannot run."""

import sys
import types

import jax
import pytest

from experiments.ant import config as ant
from experiments.launch import devices, program
from experiments.slowly_changing_regression import config as configs

NAME = "slowly_changing_regression"


@pytest.fixture
def message(monkeypatch):
    """``(workdir, config) -> text``, the error with which the program ends."""

    def message(workdir, config, overwrite=False, experiment=NAME, write=()):
        values = {"WORKDIR": workdir, "OVERWRITE": overwrite, "WRITE": write}
        for name, value in (
            {"DATA_DIR": None, "SHARD": None, "DISTRIBUTED": None} | values
        ).items():
            monkeypatch.setattr(program, name, types.SimpleNamespace(value=value))
        monkeypatch.setattr(devices, "devices", lambda platform: jax.devices()[:1])
        with pytest.raises(SystemExit) as caught:
            program._run(["run"], config, experiment, "smoke")
        return caught.value.code

    return message


def assert_one_line(text, *words):
    assert text.startswith("error: ")
    assert len(text.splitlines()) == 1
    for word in words:
        assert word in text


def test_another_config_is_refused_by_name(finished, small, files, message):
    folder, before = finished
    text = message(folder, small(stream__flip="one", hidden=(3,)))
    assert_one_line(text, "stream.flip", "one", "hidden", "[3]")
    assert files(folder) == before


def test_another_preset_is_refused_with_a_remedy(finished, files, message):
    folder, before = finished
    text = message(folder, configs.get_config("laptop"))
    assert_one_line(text, "config.bin: 20 -> 20000", "another directory", "overwrite")
    assert files(folder) == before


def test_a_workdir_that_is_a_file_is_refused(small, message, tmp_path):
    (tmp_path / "notes").write_text("precious")
    for workdir in (tmp_path / "notes", tmp_path / "notes" / "study"):
        assert_one_line(message(workdir, small()), "notes")
    assert (tmp_path / "notes").read_text() == "precious"


def test_results_of_somebody_else_are_not_overwritten(small, message, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.tex").write_text("precious")
    assert_one_line(message(tmp_path, small(), overwrite=True), "results", "not")
    (path,) = (tmp_path / "results").iterdir()
    assert path.read_text() == "precious"


def test_a_workdir_without_permission_is_refused(small, message, tmp_path):
    tmp_path.chmod(0o500)
    try:
        (tmp_path / "probe").mkdir()
    except OSError:
        assert_one_line(message(tmp_path / "study", small()), "cannot write")
    else:
        pytest.skip("this user may write everywhere")
    finally:
        tmp_path.chmod(0o700)


def test_bad_input_ends_the_program_with_one_line(small, message, tmp_path):
    for config in (small(bin=0), small(seeds=0), small(activation="rely")):
        assert_one_line(message(tmp_path / "study", config))
    assert not (tmp_path / "study").exists()


def test_bad_writers_end_the_program_with_one_line(
    small, message, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    text = message(tmp_path / "study", small(), write=["csv", "tensorboard"])
    assert_one_line(text, 'pip install "loplax[tensorboard]"')
    assert_one_line(message(tmp_path / "study", small(), write=["csw"]), "'csv'")
    assert not (tmp_path / "study").exists()


def test_a_missing_package_is_named_with_its_remedy(message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    text = message(tmp_path / "study", ant.get_config("smoke"), experiment="ant")
    assert_one_line(text, "'ant' needs brax", 'pip install "loplax[brax]"')
    assert not (tmp_path / "study").exists()
