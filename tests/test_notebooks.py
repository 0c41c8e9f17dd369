"""The notebooks run from the first cell to the last, and show what they say."""

import pathlib

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_draws(path):
    book = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(FOLDER)}}
    nbclient.NotebookClient(book, timeout=900, resources=place).execute()
    drawn = [o for c in book.cells for o in c.get("outputs", ()) if "data" in o]
    assert any("image/png" in each["data"] for each in drawn)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_with_what_it_showed(path):
    cells = nbformat.read(path, as_version=4).cells
    codes = [cell for cell in cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in codes)
    texts = "".join(str(cell.outputs) for cell in codes)
    assert "image/png" in texts
    assert "Traceback" not in texts
