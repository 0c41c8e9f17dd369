"""A page for every plugin of the table of methods, and their overview."""

import importlib
import inspect
from typing import Any

from experiments.launch import problems
from experiments.methods import composing, settings
from experiments.methods.plugin import Plugin
from experiments.methods.table import NAMED, PLUGINS, TABLES, Named
from pages import markdown

# Of tables whose second column has sentences.
_TOLD = "{.told}\n"


def pages() -> dict[str, str]:
    """The pages by path: one for each plugin and named list, and ``_table.md``."""
    elsewhere = _set_elsewhere()
    found = {"methods/_table.md": overview()}
    for name, plugin in PLUGINS.items():
        found[f"methods/{name}.md"] = _page(name, plugin, elsewhere)
    for name, named in NAMED.items():
        found[f"methods/{name}.md"] = _named_page(name, named)
    return found


def overview() -> str:
    """Tables of all plugins, one for each file in which they are."""
    parts = []
    for about, plugins in TABLES:
        title = about.strip().rstrip(".")
        rows = [_row(n, plugin, _link(plugin.made_by)) for n, plugin in plugins.items()]
        head = ("plugin", "what it does", "source", "built by")
        parts.append(f"## {title}\n\n{_TOLD}{markdown.table(head, rows)}")
    rows = [_row(name, named, f"`{named.plugins}`") for name, named in NAMED.items()]
    head = ("name", "what it does", "source", "plugins")
    parts.append(f"## Lists that have a name\n\n{_TOLD}{markdown.table(head, rows)}")
    return "\n".join(parts)


def _row(name: str, entry: Plugin | Named, of: str) -> tuple[str, ...]:
    # A path of the page that includes the table.
    return f"[`{name}`](generated/methods/{name}.md)", entry.does, entry.paper, of


def _link(dotted: str) -> str:
    """A link to what documents an object: ours by its name, another's is its name."""
    if not dotted.startswith("loplax."):
        return f"`{dotted}`" if dotted else ""
    role = "mod" if inspect.ismodule(_get(dotted)) else "obj"
    return f"{{py:{role}}}`{dotted.removeprefix('loplax.')} <{dotted}>`"


def _get(dotted: str) -> Any:
    """What a dotted name stands for."""
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _page(name: str, plugin: Plugin, elsewhere: dict[str, dict[str, str]]) -> str:
    parts = [
        f"# `{name}`: {plugin.label}",
        markdown.sentence(plugin.does),
        markdown.table(("", ""), _facts(plugin)),
        plugin.note,
        _settings(name, plugin, elsewhere),
        f"## To run it\n\n    {_command(name, plugin)}",
        _documented(plugin.made_by),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _named_page(name: str, named: Named) -> str:
    links = " + ".join(f"[`{n}`]({n}.md)" for n in named.plugins.split("+"))
    first = PLUGINS[named.plugins.split("+")[0]]
    parts = [
        f"# `{name}`: {named.label}",
        markdown.sentence(named.does),
        markdown.table(("", ""), [("paper", named.paper), ("plugins", links)]),
        named.note,
        f"## To run it\n\n    {_command(name, first)}",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(plugin: Plugin) -> list[tuple[str, str]]:
    """What a plugin is and needs, one row each."""
    every = ("optimizer", "gradient", "wrap", "lone_stream", *composing.OF_STREAMS)
    slots = [slot for slot in every if getattr(plugin, slot)]
    options = [f"`{name}={value}`" for name, value in plugin.options.items()]
    if plugin.sessions:
        where = f"problems that are learned in sessions: {_in_sessions()}"
    elif any(getattr(plugin, slot) for slot in composing.OF_STREAMS):
        where = "supervised problems"
    elif options:
        where = "problems whose network has the option"
    else:
        where = "all problems"
    rows = [
        ("paper", plugin.paper),
        ("built by", _link(plugin.made_by)),
        ("fills the slots", ", ".join(f"`{slot}`" for slot in slots)),
        ("claims", ", ".join(f"`{slot}`" for slot in plugin.claims)),
        ("network", ", ".join(options)),
        ("runs in", where),
    ]
    return [row for row in rows if row[1]]


def _in_sessions() -> str:
    """Links to the problems that are learned in sessions."""
    configs = {
        name: problems.part(name, "config").get_config() for name in problems.NAMES
    }
    names = [name for name, config in configs.items() if "sessions" in config]
    return ", ".join(f"[`{name}`](../problems/{name}.md)" for name in names)


def _settings(name: str, plugin: Plugin, elsewhere: dict[str, dict[str, str]]) -> str:
    """The numbers and choices with their defaults, and what problems have instead."""
    rows = []
    for kind, values in (("number", plugin.numbers), ("choice", plugin.choices)):
        for setting, default in values.items():
            other = elsewhere.get(f"{name}.{setting}", {})
            others = "; ".join(f"{value} in {where}" for value, where in other.items())
            address = f"`{name}.{setting}`"
            half = "; 0: half of the run" if setting in plugin.halfway else ""
            rows.append((address, kind + half, markdown.value(default), others))
    head = ("address", "", "default", "problems that set it")
    shown = markdown.table(head, rows)
    return f"## Settings\n\n{{.last}}\n{shown}" if shown else ""


def _set_elsewhere() -> dict[str, dict[str, str]]:
    """For every address the values other than the default, with where they hold."""
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for problem in problems.NAMES:
        configs = problems.part(problem, "config")
        for preset in set(configs.PRESETS) - {"smoke"}:
            flat = dict(settings.flatten(configs.get_config(preset)))
            for address, default in settings.DEFAULTS.items():
                if flat.get(address, default) != default:
                    at = found.setdefault(address, {})
                    of = at.setdefault(markdown.value(flat[address]), {})
                    of.setdefault(problem, []).append(preset)
    return {
        address: {value: _places(of) for value, of in sorted(values.items())}
        for address, values in found.items()
    }


def _places(of: dict[str, list[str]]) -> str:
    """Problems, with their presets where these are not all of them."""
    places = []
    for problem, presets in of.items():
        every = [n for n in problems.part(problem, "config").PRESETS if n != "smoke"]
        own = [f"`{n}`" for n in every if n in presets]
        where = f" ({', '.join(own)})" if len(own) < len(every) else ""
        places.append(f"[`{problem}`](../problems/{problem}.md){where}")
    return ", ".join(places)


def _command(name: str, plugin: Plugin) -> str:
    """A command that runs a method beside backprop, without a download."""
    problem = "permuted_mnist"
    if plugin.sessions:
        problem = "stability_gap"
    binary = problems.part("metaplasticity", "config").get_config().methods
    own = name in binary and not plugin.compared  # elsewhere it is not among all
    if own or {"binary", "running"} & set(plugin.options):
        problem = "metaplasticity"
    method = name if name == "bp" else f"bp,{name}"
    return (
        f"python -m experiments.{problem}.run --preset=digits --config.methods={method}"
    )


def _documented(dotted: str) -> str:
    """The docstring of what builds a plugin: formula, arguments, example, paper."""
    if not dotted.startswith("loplax."):
        return ""
    made = _get(dotted)
    if inspect.ismodule(made):
        directive = "automodule"
    else:
        directive = "autoclass" if inspect.isclass(made) else "autofunction"
    return (
        f"## What it computes\n\n```{{eval-rst}}\n.. {directive}:: {dotted}\n"
        "   :no-index:\n```"
    )
