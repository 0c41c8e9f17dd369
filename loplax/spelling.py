"""Names that a user may have mistyped."""

import difflib
from collections.abc import Iterable

_ALIKE = 0.66  # of two letters in three: two that changed places in a name of three


def near(name: object, known: Iterable[str]) -> list[str]:
    """The known names, at most three, that look like a name, the most alike first.

    Example:
      >>> near("sise", ["size", "rate"]), near("banana", ["size", "rate"])
      (['size'], [])
    """
    return difflib.get_close_matches(str(name), list(known), n=3, cutoff=_ALIKE)


def hint(name: object, known: Iterable[str]) -> str:
    """What an error message says of the name that may have been meant, if any.

    Example:
      >>> hint("sise", ["size", "rate"]), hint("banana", ["size", "rate"])
      ("; did you mean 'size'?", '')
    """
    found = near(name, known)
    return f"; did you mean {found[0]!r}?" if found else ""
