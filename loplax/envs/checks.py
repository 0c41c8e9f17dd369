"""Checks of what the user hands to an environment, before anything is computed."""

from collections.abc import Sequence

from loplax import spelling


def one_of(what: str, value: str, known: Sequence[str]) -> None:
    """Raises ``ValueError`` with the nearest known name unless ``value`` is known."""
    if value not in known:
        hint = spelling.hint(value, known)
        raise ValueError(f"{what} must be one of {list(known)}, got {value!r}{hint}")
