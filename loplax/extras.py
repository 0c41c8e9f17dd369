"""Packages that only a part of loplax needs, and the extras that bring them."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needed(extra: str, what: str) -> Iterator[None]:
    """Says of a package that is missing how it is installed.

    Args:
      extra: of loplax, the one that brings what is imported within.
      what: what needs it.

    Yields:
      Nothing.

    Raises:
      ImportError: if a package is missing, in one line with the command.

    Example:
      >>> with needed("studies", "loplax.studies"):
      ...     import no_such_package
      Traceback (most recent call last):
      ImportError: loplax.studies needs no_such_package: pip install "loplax[studies]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "loplax":
            raise
        raise ImportError(
            f'{what} needs {package}: pip install "loplax[{extra}]"'
        ) from error
