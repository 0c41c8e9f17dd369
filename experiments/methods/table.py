"""All plugins by name, and the names of methods that are lists of them."""

from typing import NamedTuple

from experiments.methods import (
    consolidating,
    networks,
    optimizers,
    regularizing,
    rehearsing,
    remembering,
    replacing,
    uncertain,
)
from experiments.methods.plugin import Plugin

# With what the plugins of each table have in common.
TABLES: tuple[tuple[str, dict[str, Plugin]], ...] = (
    (networks.__doc__, networks.NETWORKS),
    (optimizers.__doc__, optimizers.OPTIMIZERS),
    (replacing.__doc__, replacing.REPLACING),
    (regularizing.__doc__, regularizing.REGULARIZING),
    (rehearsing.__doc__, rehearsing.REHEARSING),
    (consolidating.__doc__, consolidating.CONSOLIDATING),
    (remembering.__doc__, remembering.REMEMBERING),
    (uncertain.__doc__, uncertain.UNCERTAIN),
)
PLUGINS: dict[str, Plugin] = {
    name: plugin for _, table in TABLES for name, plugin in table.items()
}


class Named(NamedTuple):
    """A list of plugins that has a name of its own.

    Attributes:
      plugins: their names, joined by ``+``.
      label: what figures call it.
      colour: its colour, the same in every figure.
      tints: as that of a plugin.
      does: as that of a plugin.
      paper: as that of a plugin.
      note: as that of a plugin.
    """

    plugins: str
    label: str
    colour: str
    tints: bool = True
    does: str = ""
    paper: str = ""
    note: str = ""


NAMED = {
    "sgm": Named(
        "er+class_mean+soft_targets+lora+freeze_old_outputs",
        "SGM",
        "#b10026",
        does="rehearses, with all that its authors add against the stability gap",
        paper="Harun & Kanan 2024",
        note="The paper's runs also have `one_cycle`.",
    ),
}
