"""Pieces of Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, or nothing if there are no rows."""
    rows = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    if not rows:
        return ""
    lines = [" | ".join(head), "|".join("---" for _ in head), *rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def value(of: Any) -> str:
    """A setting's value as it is written on a command line."""
    if isinstance(of, tuple | list):
        inner = ",".join(str(each) for each in of)
        return f"`({inner})`"
    if isinstance(of, float):
        return f"`{of:g}`"
    return f"`{of}`" if str(of) else "none"


def sentence(text: str) -> str:
    """Text that begins with a capital letter and ends with a full stop."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) or not text else f"{text}."
