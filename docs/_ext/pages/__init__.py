"""Writes the pages that the code itself describes, before Sphinx reads any."""

from __future__ import annotations

import pathlib
import shutil
import typing

from pages import api, figures, members, methods, problems

if typing.TYPE_CHECKING:  # the pages themselves need no Sphinx
    from sphinx.application import Sphinx

DOCS = pathlib.Path(__file__).parents[2]
GENERATED = DOCS / "generated"


def write(pages: dict[str, str]) -> None:
    """Makes the folder of generated pages hold these and no others.

    A page that is as it was keeps its time, so that a second build is a quick one.

    Args:
      pages: texts by their paths in the folder.
    """
    books = {f"notebooks/{p.name}": p for p in (DOCS.parent / "notebooks").glob("*.*")}
    for path in GENERATED.rglob("*.*"):
        if str(path.relative_to(GENERATED)) not in {*pages, *books}:
            path.unlink()
    for name, text in pages.items():
        path = GENERATED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for name, source in books.items():
        path = GENERATED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != source.read_bytes():
            shutil.copyfile(source, path)


def generate(app: Sphinx) -> None:
    """Writes all of them."""
    del app
    texts = {p: p.read_text() for p in sorted(DOCS.rglob("*.md"))}
    texts = {p: text for p, text in texts.items() if GENERATED not in p.parents}
    write(
        methods.pages()
        | problems.pages(DOCS / "measured")
        | figures.pages(texts, DOCS)
        | api.pages()
    )


def linked(app: Sphinx, name: str, source: list[str]) -> None:
    """What is a link to a file of ``measured`` leads to the page that includes it."""
    source[0] = source[0].replace("](measured/", "](generated/problems/")


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the extension with Sphinx."""
    app.connect("builder-inited", generate)
    app.connect("source-read", linked)
    app.connect("autodoc-skip-member", members.skip)
    app.connect("autodoc-process-docstring", members.without_types, priority=400)
    app.connect("missing-reference", members.near)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
