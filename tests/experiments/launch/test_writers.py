"""Writers of what a study measures while it runs."""

import csv
import math
import sys
import types
from typing import NamedTuple

import pytest

from experiments.launch import writers


class Progress(NamedTuple):
    """What a hook is told."""

    method: str
    step: float
    metrics: dict
    unit: int = 1
    runs: int = 3


TOLD = [
    Progress("cbp, fast", 20.0, {"loss": 0.5, "dead": math.nan}),
    Progress("bp", 40.0, {"loss": 0.25, "loss/old": 1.0}),
]


def test_csv_has_a_line_for_each_metric(tmp_path):
    """A study that goes on adds to it, under the one title."""
    for told in TOLD:
        writers.make("csv", tmp_path)(told)
    with (tmp_path / "progress.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["method", "unit", "runs", "step", "metric", "mean"]
    assert rows == [
        ["cbp, fast", "1", "3", "20.0", "loss", "0.5"],
        ["cbp, fast", "1", "3", "20.0", "dead", "nan"],
        ["bp", "1", "3", "40.0", "loss", "0.25"],
        ["bp", "1", "3", "40.0", "loss/old", "1.0"],
    ]


def test_csv_begins_anew_with_its_study(tmp_path):
    """Not when it is asked for, since the study may be refused; once, then it adds."""
    writers.make("csv", tmp_path)(TOLD[0])
    old = (tmp_path / "progress.csv").read_bytes()
    write = writers.make("csv", tmp_path, overwrite=True)
    assert (tmp_path / "progress.csv").read_bytes() == old
    for _ in range(2):
        write(TOLD[1])
    assert len((tmp_path / "progress.csv").read_text().splitlines()) == 5


def test_tensorboard_has_a_folder_for_each_method(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, value, step):
            written.append((self.folder, name, value, step))

        def flush(self):
            written.append("flush")

    fake = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", fake)
    write = writers.make("tensorboard", tmp_path)
    write(TOLD[1])
    folder = str(tmp_path / "tensorboard" / "bp")
    expected = [(folder, "loss", 0.25, 40), (folder, "loss/old", 1.0, 40), "flush"]
    assert written == expected


def test_wandb_has_one_run_of_all_methods(tmp_path, monkeypatch):
    logged, begun = [], []
    run = types.SimpleNamespace(log=logged.append)
    fake = types.SimpleNamespace(init=lambda **how: (begun.append(how), run)[1])
    monkeypatch.setitem(sys.modules, "wandb", fake)
    write = writers.make("wandb", tmp_path / "study")
    assert not begun  # what cannot be run leaves no trace
    for told in TOLD[1:]:
        write(told)
    assert [how["name"] for how in begun] == ["study"]
    assert logged == [{"bp/loss": 0.25, "bp/loss/old": 1.0, "bp/step": 40.0}]


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")]
)
def test_a_missing_package_is_named_with_its_extra(
    name, package, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{name}.*pip install "loplax\[{name}\]"'):
        writers.make(name, tmp_path)


def test_unknown_writers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="write.*'csw'; did you mean 'csv'"):
        writers.make("csw", tmp_path)
