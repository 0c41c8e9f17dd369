"""Checks of what the user hands to an environment, before anything is computed."""

import difflib
from collections.abc import Sequence


def one_of(what: str, value: str, known: Sequence[str]) -> None:
    """Raises ``ValueError`` with the nearest known name unless ``value`` is known."""
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{what} must be one of {list(known)}, got {value!r}{hint}")
