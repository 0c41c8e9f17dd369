"""Writes where the project is published: its metadata, and in the notebooks, for Colab.

    python .ci/address.py https://github.com/OWNER/NAME

Every notebook gets a badge that opens it in Colab, and its install cell brings a
clone along where the notebook is alone. Another address takes the place of the last.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
COLAB = "https://colab.research.google.com"
BADGE = re.compile(r"\[!\[Open in Colab\]\(\S+\)\]\(\S+\)\n\n")
CLONE = re.compile(r"(import pathlib\n)?\n# Alone, as in Colab\.\n(.+\n)+")


def written(text: str, address: str) -> str:
    """The project's metadata with an address."""
    table = re.compile(r"\[project\.urls\]\n(.+\n)*\n")
    new = f'[project.urls]\nSource = "{address}"\n\n'
    return table.sub("", text).replace("[project.optional", f"{new}[project.optional")


def opened(book: str, name: str, address: str) -> str:
    """A notebook that can be opened in Colab.

    Args:
      book: the notebook's JSON.
      name: its file's name.
      address: where its clone is, ``https://github.com/OWNER/NAME``; "" is nowhere.

    Returns:
      The JSON, whose first two cells, title and installation, know the address.
    """
    parts = json.loads(book)
    title, install = ("".join(cell["source"]) for cell in parts["cells"][:2])
    title, install = BADGE.sub("", title), CLONE.sub("", install)
    if address:
        place = f"{COLAB}/github/{address.removeprefix('https://github.com/')}"
        badge = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
        link = f"{badge}({place}/blob/main/notebooks/{name})\n\n"
        title = title.replace("\n\n", f"\n\n{link}", 1)
        imports, rest = install.split("\n\n", 1)
        needs = "experiments" if "import experiments" in book else "loplax"
        install = f"{imports}\n{_clone(imports, needs, address)}\n{rest}"
    for cell, source in zip(parts["cells"], (title, install), strict=False):
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(parts, indent=1, ensure_ascii=False) + "\n"


def _clone(imports: str, needs: str, address: str) -> str:
    """What brings a clone along, and the import that it needs."""
    path = "" if "import pathlib" in imports else "import pathlib\n"
    folder = address.rpartition("/")[2]
    return f"""{path}
# Alone, as in Colab.
if not (importlib.util.find_spec("{needs}") or pathlib.Path("../loplax").exists()):
    !git clone -q --depth=1 {address}
    %cd -q {folder}/notebooks
"""


def main(address: str) -> None:
    """Writes the address everywhere."""
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        sys.exit(f"{address!r} is not https://github.com/OWNER/NAME")
    metadata = ROOT / "pyproject.toml"
    metadata.write_text(written(metadata.read_text(), address))
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        path.write_text(opened(path.read_text(), path.name, address))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
