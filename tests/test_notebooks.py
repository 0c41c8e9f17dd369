"""The notebooks run from the first cell to the last, and show what they say."""

import json
import pathlib
import runpy
import tomllib

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ADDRESS = runpy.run_path(str(ROOT / ".ci" / "address.py"))


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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_opens_in_colab_from_where_the_project_is_published(path):
    """What the metadata says, if they say any."""
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = metadata.get("urls", {}).get("Source", "")
    assert ADDRESS["opened"](path.read_text(), path.name, address) == path.read_text()


def test_an_address_is_written_where_it_belongs():
    """And nothing is left of the one before."""
    text = ADDRESS["opened"]((FOLDER / "sweep.ipynb").read_text(), "mine.ipynb", "")
    once = ADDRESS["opened"](text, "mine.ipynb", "https://github.com/me/loplax")
    title, install = ("".join(c["source"]) for c in json.loads(once)["cells"][:2])
    assert "/github/me/loplax/blob/main/notebooks/mine.ipynb)" in title
    assert "    !git clone -q --depth=1 https://github.com/me/loplax\n" in install
    again = ADDRESS["opened"](once, "mine.ipynb", "https://github.com/you/lop")
    assert "me/loplax" not in again and again.count("you/lop") == 2
    assert ADDRESS["opened"](again, "mine.ipynb", "") == text

    metadata = (ROOT / "pyproject.toml").read_text()
    for address in ("https://github.com/me/loplax", "https://github.com/you/lop"):
        metadata = ADDRESS["written"](metadata, address)
        assert tomllib.loads(metadata)["project"]["urls"] == {"Source": address}


def test_what_is_no_address_is_refused():
    with pytest.raises(SystemExit, match="OWNER/NAME"):
        ADDRESS["main"]("github.com/me/loplax")
