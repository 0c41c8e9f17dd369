"""A page for every problem, from its configuration and what was measured on it."""

import inspect
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.launch import comments, problems
from experiments.methods import settings
from experiments.methods.table import PLUGINS
from pages import markdown


def pages(measured: pathlib.Path) -> dict[str, str]:
    """The pages by path: one for each problem, and ``_table.md``.

    Args:
      measured: folder of what was measured, ``NAME.md`` each.

    Returns:
      The texts.
    """
    found = {"problems/_table.md": overview()}
    for name in problems.NAMES:
        has = (measured / f"{name}.md").exists()
        found[f"problems/{name}.md"] = _page(name, has)
    return found


def overview() -> str:
    """A table of all problems with what each is, and its presets."""
    rows = []
    for name in problems.NAMES:
        title, _ = _about(name)
        presets = [n for n in problems.part(name, "config").PRESETS if n != "smoke"]
        shown = ", ".join(f"`{preset}`" for preset in presets)
        rows.append((f"[`{name}`](generated/problems/{name}.md)", title, shown))
    return markdown.table(("name", "what it is", "presets, the first by default"), rows)


def _about(name: str) -> tuple[str, str]:
    """First line of the configuration's docstring, and the rest."""
    first, _, rest = inspect.getdoc(problems.part(name, "config")).partition("\n")
    return first, rest.replace("``", "`").strip()


def _page(name: str, measured: bool) -> str:
    configs = problems.part(name, "config")
    title, rest = _about(name)
    presets = [(f"`{n}`", text) for n, text in configs.PRESETS.items()]
    default = next(iter(configs.PRESETS))
    parts = [
        f"# `{name}`",
        title,
        rest,
        f"    python -m experiments.{name}.run --preset={default}",
        f"## Presets\n\n{markdown.table(('preset', 'what it is for'), presets)}",
        _methods(configs),
        _include(name) if measured else "",
        _settings(configs, default),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _include(name: str) -> str:
    return (
        f"```{{include}} ../../measured/{name}.md\n:relative-images:\n"
        ":relative-docs: ../\n:heading-offset: 1\n```"
    )


def _methods(configs) -> str:
    """The methods that each preset compares by default."""
    rows = []
    for preset in configs.PRESETS:
        methods = configs.get_config(preset).methods
        every = tuple(methods) == settings.ALL
        named = ", ".join(f"`{method}`" for method in methods)
        rows.append((f"`{preset}`", "all" if every else named))
    return f"## Methods of each preset\n\n{markdown.table(('preset', 'methods'), rows)}"


def _settings(configs, default: str) -> str:
    """All settings but those of methods, and what of these is the problem's own."""
    flat = dict(settings.flatten(configs.get_config(default)))
    others = {
        preset: dict(settings.flatten(configs.get_config(preset)))
        for preset in configs.PRESETS
        if preset not in (default, "smoke")
    }
    said = comments.of_problem(configs)
    general, own = [], []
    for address, value in flat.items():
        if address.startswith("sweep.") or address == "methods":
            continue
        differing = {p: f[address] for p, f in others.items() if f[address] != value}
        shown = _elsewhere(differing)
        shown_value = markdown.value(value)
        if address.partition(".")[0] not in PLUGINS:
            general.append((f"`{address}`", shown_value, said.get(address, ""), shown))
        elif differing or value != settings.DEFAULTS.get(address):
            # One that is not the plugin's own is a number of the optimiser.
            usual = "the optimiser's"
            if address in settings.DEFAULTS:
                usual = markdown.value(settings.DEFAULTS[address])
            own.append((f"`{address}`", shown_value, usual, shown))
    head = ("setting", f"`{default}`", "", "other presets")
    parts = [
        "## Settings\n\n"
        "`--config.NAME=VALUE` changes a setting, `--config.sweep.NAME=(A,B)` sweeps a "
        "number.",
        "{.last}\n" + markdown.table(head, general),
    ]
    if own:
        head = ("number", f"`{default}`", "the method's default", "other presets")
        parts += [
            "Numbers of [methods](../../methods.md) that differ from their defaults:",
            "{.last}\n" + markdown.table(head, own),
        ]
    return "\n\n".join(parts)


def _elsewhere(values: Mapping[str, Any]) -> str:
    """Values with the presets that have them."""
    places: dict[str, list[str]] = {}
    for preset, value in values.items():
        places.setdefault(markdown.value(value), []).append(f"`{preset}`")
    return "; ".join(f"{value} in {', '.join(of)}" for value, of in places.items())
