"""What the program says at its end, and of input that it cannot run."""

import sys
import types

import jax
import pytest

from experiments.ant import config as ant
from experiments.launch import launching, program

NAME = "slowly_changing_regression"


@pytest.fixture
def message(monkeypatch):
    """``(workdir, config) -> text``, the error with which the program ends."""

    def message(workdir, config, overwrite=False, experiment=NAME):
        values = {"WORKDIR": workdir, "OVERWRITE": overwrite, "DATA_DIR": None}
        for name, value in values.items():
            monkeypatch.setattr(program, name, types.SimpleNamespace(value=value))
        monkeypatch.setattr(launching, "devices", lambda platform: jax.devices()[:1])
        with pytest.raises(SystemExit) as caught:
            program._run(["run"], config, experiment)
        return caught.value.code

    return message


def assert_one_line(text, *words):
    assert text.startswith("error: ")
    assert len(text.splitlines()) == 1
    for word in words:
        assert word in text


def test_another_config_is_refused_by_name(finished, small, message):
    folder, files = finished
    text = message(folder, small(learning_rate=0.5, stream__beta=0.6))
    assert_one_line(text, "learning_rate", "0.01", "0.5", "beta", "0.6")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_workdir_that_is_a_file_is_refused(small, message, tmp_path):
    (tmp_path / "notes").write_text("precious")
    for workdir in (tmp_path / "notes", tmp_path / "notes" / "study"):
        assert_one_line(message(workdir, small()), "notes")
    assert (tmp_path / "notes").read_text() == "precious"


def test_a_folder_of_other_files_is_not_overwritten(small, message, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    assert_one_line(message(tmp_path, small(), overwrite=True), "not")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


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


def test_a_missing_package_is_named_with_its_remedy(message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    text = message(tmp_path / "study", ant.get_config("smoke"), experiment="ant")
    assert_one_line(text, "'ant' needs brax", 'pip install "loplax[brax]"')
    assert not (tmp_path / "study").exists()
