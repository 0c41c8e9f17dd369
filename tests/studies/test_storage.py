"""The directory of a study: only what is ours is changed, and by one process."""

import json
import os
import threading

import pytest

from loplax import locks
from loplax.studies import files, storage
from tests.studies import toys
from tests.studies.toys import WALK

METHODS = {"walk": WALK}


def study(directory, **changes):
    options = {"settings": {}, "num_segments": 1, "num_seeds": 1}
    return toys.study(directory, METHODS, **(options | changes))


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("text")
    for directory in (tmp_path / "file", tmp_path / "file" / "study"):
        with pytest.raises(ValueError, match="cannot write to"):
            study(directory)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["results", "states", "study.json", "asked.json", "versions.json"]
)
def test_what_is_somebody_elses_is_refused(tmp_path, contents, name, overwrite):
    """A folder of that name, or a file, that no study made."""
    (tmp_path / "thesis.txt").write_text("years")
    if "." in name:
        (tmp_path / name).write_text("{}")
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.npz").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"has a {name}, but no study.json"):
        study(tmp_path, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_what_else_is_there_stays(tmp_path, contents):
    """Also in the folders of the study, and when it is overwritten."""
    places = ("thesis.txt", "checkpoints/1/data", "states/mine.npz", "results/mine.nc")
    study(tmp_path)
    for name in places:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("years")
    mine = {name: b"years" for name in places}
    for options in ({"num_seeds": 2}, {"overwrite": True}, {"keep_states": True}):
        study(tmp_path, **options)
        assert mine.items() <= contents(tmp_path).items()


def test_overwriting_begins_another_study(tmp_path):
    study(tmp_path, config={"width": 8}, num_seeds=3, keep_states=True)
    with pytest.raises(ValueError, match="overwrite the study"):
        study(tmp_path, config={"width": 9})
    study(tmp_path, config={"width": 9}, overwrite=True)
    found = toys.sweep.results.load(tmp_path)
    assert found.sizes["seed"] == 1 and json.loads(found.attrs["config"])["width"] == 9
    assert not list((tmp_path / "states").iterdir())
    with pytest.raises(ValueError, match="config.width: 9 -> 8"):
        study(tmp_path, config={"width": 8})


def test_one_process_at_a_time(tmp_path, contents):
    tmp_path.mkdir(exist_ok=True)
    with locks.held(tmp_path / ".lock", "the study"):
        with pytest.raises(ValueError, match="in use by process"):
            study(tmp_path)
        assert list(contents(tmp_path)) == [".lock"]
    study(tmp_path)
    assert not (tmp_path / ".lock").exists()


def test_reading_needs_no_lock(tmp_path):
    found = study(tmp_path)
    with locks.held(tmp_path / ".lock", "the study"):
        assert toys.sweep.results.load(tmp_path).identical(found)


def test_a_reader_meets_no_gap_when_pieces_are_replaced(tmp_path):
    """It reads while a study puts its files together."""
    seen, ended = [], threading.Event()

    def read():
        while not ended.is_set():
            if storage.last_asked(tmp_path):
                seen.append(toys.sweep.results.load(tmp_path))

    reader = threading.Thread(target=read)
    reader.start()
    study(tmp_path, num_segments=30, checkpoint_seconds=0)
    ended.set()
    reader.join()
    done = [found["bins_done"].values.max() for found in seen]
    assert done == sorted(done) and len(done) > 3
    for found in seen:
        assert found["loss"].notnull().sum() == found["bins_done"].sum()


def test_what_was_left_by_a_dead_process_is_cleared(tmp_path):
    study(tmp_path)
    left = [".study.json.12-0123abcd.tmp", "results/.x.nc.12-0123abcd.tmp"]
    mine = [".notes.tmp", "results/.12.tmp", "12-0123abcd.tmp"]
    for name in left + mine:
        (tmp_path / name).write_text("x")
    study(tmp_path, num_seeds=2)
    assert not any((tmp_path / name).exists() for name in left)
    assert all((tmp_path / name).exists() for name in mine)


def test_names_of_temporary_files_are_unique(tmp_path, monkeypatch):
    """Two writers of one file never share one; the folder is synced at last."""
    replaced, synced = [], []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(
        os, "replace", lambda a, b: (replaced.append(a.name), replace(a, b))
    )
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(os.path.isdir(f"/proc/self/fd/{fd}"))
    )
    del fsync
    for _ in range(20):
        files.write(tmp_path / "x", lambda file: file.write(b"x"))
    assert len(set(replaced)) == 20
    assert synced == [False, True] * 20


def test_a_failed_write_leaves_the_file_of_before(tmp_path):
    files.write(tmp_path / "x", lambda file: file.write(b"before"))

    def full(file):
        file.write(b"after")
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match="No space left.*left as it was.*x'"):
        files.write(tmp_path / "x", full)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"before"


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_a_sealed_file_that_was_changed_is_not_believed(tmp_path, place):
    values = {"a": [1, 2.5, "text"], "b": {"c": None}}
    files.write_sealed(tmp_path / "x", values)
    assert files.read_sealed(tmp_path / "x") == values
    data = bytearray((tmp_path / "x").read_bytes())
    data[place] ^= 1
    (tmp_path / "x").write_bytes(data)
    try:
        assert files.read_sealed(tmp_path / "x") == values  # a blank more or less
    except ValueError as error:
        assert "is damaged" in str(error)
