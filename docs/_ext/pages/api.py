"""A reference page for every public module."""

import importlib
import inspect
import types
from typing import Any

# What users are to import, in the order in which it is shown; with the classes of
# other files that arguments and results are.
MODULES: dict[str, tuple[str, ...]] = {
    "loplax.units": (),
    "loplax.optim": (
        "loplax.optim.consolidation.Consolidating",
        "loplax.optim.continual_backprop.UnitStatistics",
        "loplax.optim.continual_backprop.Budget",
    ),
    "loplax.optim.utilities": (),
    "loplax.nets": (
        "loplax.nets.low_rank.Adapted",
        "loplax.nets.plasticity_injection.InjectionStats",
    ),
    "loplax.nets.input_normalization": (),
    "loplax.metrics": (),
    "loplax.metrics.continual": (),
    "loplax.streams": (),
    "loplax.streams.datasets": (),
    "loplax.supervised": (),
    "loplax.supervised.boundaries": (),
    "loplax.supervised.distillation": (),
    "loplax.supervised.losses": (),
    "loplax.supervised.nearest_mean": (),
    "loplax.supervised.new_classes": (),
    "loplax.supervised.replay": (),
    "loplax.supervised.soft_targets": (),
    "loplax.supervised.task_norms": (),
    "loplax.supervised.tasks": (),
    "loplax.envs": (
        "loplax.envs.brax.BraxParams",
        "loplax.envs.changing.ChangingParams",
        "loplax.envs.perturbed.PerturbedParams",
    ),
    "loplax.ppo": (),
    "loplax.ppo.policies": (),
    "loplax.studies.sweep": ("loplax.studies.watching.Progress",),
    "loplax.studies.merging": (),
    "loplax.studies.results": (),
    "loplax.studies.statistics": (),
    "loplax.studies.intervals": (),
    "loplax.studies.continual": (),
    "loplax.studies.plots": ("loplax.studies.looks.Look",),
    "loplax.studies.comparisons": (),
    "loplax.flax": (),
    "loplax.source": (),
    "loplax.branch": (),
    "loplax.diagnostics": (),
    "experiments": (
        "experiments.launch.outcome.Outcome",
        "experiments.figures.figures.Figure",
    ),
    "experiments.methods.plugin": (),
}
# Of these, the rest is for the modules beside them.
PUBLIC = {
    "loplax.studies.results": ("load", "arm", "empty", "record", "counting"),
}


def pages() -> dict[str, str]:
    """The pages by path, one for each module, and ``_table.md``."""
    rows = [
        f"- [`{name}`](generated/api/{name}.md): {_summary(name)}" for name in MODULES
    ]
    return {f"api/{name}.md": _page(name) for name in MODULES} | {
        "api/_table.md": "\n".join(rows) + "\n"
    }


def _summary(name: str) -> str:
    first = inspect.getdoc(importlib.import_module(name)).partition("\n\n")[0]
    return " ".join(first.replace("``", "`").split())


def public(name: str) -> dict[str, Any]:
    """The public objects of a module by name, but for modules.

    Args:
      name: of the module.

    Returns:
      Those in ``PUBLIC``, or what ``__all__`` lists, or else what was defined in the
      module or its parts.
    """
    module = importlib.import_module(name)
    names = (
        PUBLIC.get(name)
        or getattr(module, "__all__", None)
        or [
            each
            for each, of in vars(module).items()
            if not each.startswith("_")
            and (getattr(of, "__module__", None) or "").startswith(name)
        ]
    )
    found = {each: getattr(module, each) for each in names}
    return {n: of for n, of in found.items() if not isinstance(of, types.ModuleType)}


def _page(name: str) -> str:
    objects = public(name)
    ours = {n: of for n, of in objects.items() if callable(of) and of.__doc__}
    directives = [_directive(each, of) for each, of in ours.items()]
    directives += [f".. autoclass:: {each}\n   :members:\n" for each in MODULES[name]]
    beside = [each.removeprefix(f"{name}.") for each in MODULES[name]]
    listed = "\n".join(f"   {each}" for each in (*ours, *beside))
    return (
        f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n"
        "   :no-members:\n\n"
        f".. currentmodule:: {name}\n\n"
        f".. autosummary::\n   :nosignatures:\n\n{listed}\n\n"
        + "\n".join(directives)
        + "\n```\n"
    )


def _directive(name: str, of: Any) -> str:
    if inspect.isclass(of):
        return f".. autoclass:: {name}\n   :members:\n"
    return f".. autofunction:: {name}\n"
