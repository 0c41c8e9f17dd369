"""What the comments of files of configurations say about the settings."""

import ast
import pathlib
from collections.abc import Iterable


def of_problem(configs) -> dict[str, str]:
    """What is said of the settings, in the problem's own file before all others.

    Args:
      configs: the problem's module ``config``.

    Returns:
      Comments by address.
    """
    own = pathlib.Path(configs.__file__)
    shared = own.parents[1] / "studies"
    return of(own, shared / "locomotion.py", shared / "defaults.py")


def of(*paths: pathlib.Path) -> dict[str, str]:
    """Comments by the address of the setting that they are about.

    A setting is assigned to, ``config.NAME = value``. Its comment ends the statement's
    last line, or else, in whatever file, stands on the lines before. Of several the
    first counts.

    Args:
      *paths: Python files.

    Returns:
      The comments, of the settings that have one.
    """
    behind: dict[str, str] = {}
    before: dict[str, str] = {}
    for path in paths:
        lines = path.read_text().splitlines()
        for name, node in _assigned(ast.parse("\n".join(lines))):
            for found, comment in (
                (behind, _behind(lines, node)),
                (before, _before(lines, node.lineno - 1)),
            ):
                if comment:
                    found.setdefault(name, comment)
    return before | behind


def _assigned(tree: ast.AST) -> Iterable[tuple[str, ast.Assign]]:
    """The settings that are assigned to, with the statements."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in map(ast.unparse, node.targets):
                if target.startswith("config."):
                    yield target.removeprefix("config."), node


def _behind(lines: list[str], node: ast.stmt) -> str:
    """The comment at the end of a statement, or within its brackets."""
    for line in lines[node.lineno - 1 : node.end_lineno]:
        _, mark, comment = line.partition("  # ")
        if mark:
            return comment.strip()
    return ""


def _before(lines: list[str], at: int) -> str:
    """The comment on the lines before one."""
    comment: list[str] = []
    while at > 0 and lines[at - 1].strip().startswith("# "):
        at -= 1
        comment.insert(0, lines[at].strip().removeprefix("# "))
    return " ".join(comment)
