"""What a study returns, as tables and figures."""

import base64
import re

import matplotlib.figure
import numpy as np
import pytest

from experiments.launch import outcome, problems
from loplax.studies import results

NAME = "slowly_changing_regression"


@pytest.fixture(scope="module")
def found():
    """Results of two methods and three seeds."""
    kinds = {"loss": (np.dtype("float32"), False)}
    dataset = results.empty(["bp", "cbp"], {}, range(3), [20.0, 40.0], kinds)
    for arm in range(2):
        where = (np.full(3, arm), np.arange(3))
        losses = np.random.default_rng(arm).uniform(size=(3, 2))
        results.record(dataset, where, 0, {"loss": losses})
    config = problems.part(NAME, "config").get_config("smoke")
    dataset.attrs["config"] = config.to_json_best_effort()
    return outcome.Outcome(dataset, NAME)


def test_a_table_compares_the_arms(found):
    assert repr(found) == found.table()
    head, bp, cbp, *_ = found.table().splitlines()
    assert "minus bp" in head and "first 20 examples" in head
    assert bp.split()[0] == "bp" and cbp.split()[0] == "cbp"
    assert "minus cbp" in found.table("cbp").splitlines()[0]


def test_a_frame_has_a_row_for_every_bin(found):
    frame = found.to_dataframe()
    assert len(frame) == 2 * 3 * 2
    row = frame[(frame.arm == "cbp") & (frame.seed == 2) & (frame.step == 40)]
    assert row.loss.item() == found.dataset["loss"].values[1, 2, 1]


def test_figures_are_drawn_and_written(found, tmp_path):
    figures = found.figures()
    assert "comparison" in figures
    assert isinstance(found.figure(), matplotlib.figure.Figure)
    paths = found.save(tmp_path)
    assert paths == [str(tmp_path / f"{name}.png") for name in figures]
    for path in paths:
        with open(path, "rb") as file:
            assert file.read(4) == b"\x89PNG"


def test_a_notebook_shows_table_and_figure(found):
    html = found._repr_html_()
    assert "<table" in html and "minus bp" in html
    image = re.search('<img src="data:image/png;base64,([^"]+)"', html).group(1)
    assert base64.b64decode(image).startswith(b"\x89PNG")
