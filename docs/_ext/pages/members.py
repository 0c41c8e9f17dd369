"""How docstrings are read: which members are shown, what is a type, what is a link."""

import collections
from typing import Any

_FIELD = type(collections.namedtuple("_FIELD", "field").field)


def skip(app, what: str, name: str, member: Any, skipped: bool, options) -> bool | None:
    """Leaves out the fields of a NamedTuple, which its docstring describes."""
    return True if isinstance(member, _FIELD) else None


def without_types(app, what: str, name: str, of: Any, options, lines: list) -> None:
    """Says that ``Returns`` names no type: a colon in its text does not end one.

    Types are in annotations. Napoleon takes what stands before a colon for one, and so
    it gets an empty one.
    """
    for at, line in enumerate(lines[:-1]):
        if line.strip() in ("Returns:", "Yields:"):
            text = lines[at + 1].lstrip()
            indent = lines[at + 1].removesuffix(text)
            lines[at + 1] = f"{indent}: {text}"


def near(app, env, node, content) -> Any:
    """Resolves the name of an object of the same file, which is documented elsewhere.

    That is the only object of this name, in whatever module.
    """
    if node.get("refdomain") != "py" or node.hasattr("refspecific"):
        return None
    node["refspecific"] = True
    return env.get_domain("py").resolve_xref(
        env,
        node["refdoc"],
        app.builder,
        node["reftype"],
        node["reftarget"],
        node,
        content,
    )
