"""All plugins by name, and the names of methods that are lists of them."""

from typing import NamedTuple

from experiments.methods.consolidating import CONSOLIDATING
from experiments.methods.networks import NETWORKS
from experiments.methods.optimizers import OPTIMIZERS
from experiments.methods.plugin import Plugin
from experiments.methods.regularizing import REGULARIZING
from experiments.methods.rehearsing import REHEARSING
from experiments.methods.remembering import REMEMBERING
from experiments.methods.replacing import REPLACING

_TABLES = (
    NETWORKS,
    OPTIMIZERS,
    REPLACING,
    REGULARIZING,
    REHEARSING,
    CONSOLIDATING,
    REMEMBERING,
)
PLUGINS: dict[str, Plugin] = {
    name: plugin for table in _TABLES for name, plugin in table.items()
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
