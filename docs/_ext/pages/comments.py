"""What the comments of a file of configurations say about its settings."""

import ast
import pathlib


def of(path: pathlib.Path) -> dict[str, str]:
    """Comments by the address of the setting that they are about.

    A setting is assigned to, ``config.NAME = value``. Its comment ends the statement's
    last line, or else stands on the lines before. Of several the first counts.

    Args:
      path: a Python file.

    Returns:
      The comments, of the settings that have one.
    """
    text = path.read_text()
    lines = text.splitlines()
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Assign):
            continue
        targets = [ast.unparse(target) for target in node.targets]
        comment = _behind(lines, node) or _before(lines, node.lineno - 1)
        for target in targets:
            name = target.removeprefix("config.")
            if comment and target.startswith("config.") and name not in found:
                found[name] = comment
    return found


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
