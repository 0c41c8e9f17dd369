"""The gallery: every committed figure, with what a page says that it shows."""

import os
import pathlib
import re

_IMAGE = re.compile(r"!\[([^\]]+)\]\(([^)\s]+\.png)\)")
_STUDY = re.compile(r"experiments/(\w+)/\w+\.png$")


def pages(texts: dict[pathlib.Path, str], docs: pathlib.Path) -> dict[str, str]:
    """The page of the gallery.

    Args:
      texts: the written pages by path, in which figures have their captions.
      docs: folder of the pages.

    Returns:
      ``_gallery.md``, which a page of ``docs`` includes.
    """
    found: dict[str, str] = {}
    for path, text in texts.items():
        for caption, target in _IMAGE.findall(text):
            figure = (path.parent / target).resolve()
            found.setdefault(os.path.relpath(figure, docs), caption)
    parts = []
    for figure, caption in sorted(found.items()):
        study = _STUDY.search(figure)
        if study:
            name = study[1]
            link = f"[`{name}`](generated/problems/{name}.md)"
            parts.append(
                f":::{{figure}} {figure}\n:alt: {caption}\n\n{link}: {caption}\n:::"
            )
    return {"_gallery.md": "\n\n".join(parts) + "\n"}
