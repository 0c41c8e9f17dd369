"""All plugins by name, and the names of methods that are lists of them."""

from experiments.methods.consolidating import CONSOLIDATING
from experiments.methods.networks import NETWORKS
from experiments.methods.optimizers import OPTIMIZERS
from experiments.methods.plugin import Plugin
from experiments.methods.regularizing import REGULARIZING
from experiments.methods.rehearsing import REHEARSING
from experiments.methods.replacing import REPLACING

_TABLES = (NETWORKS, OPTIMIZERS, REPLACING, REGULARIZING, REHEARSING, CONSOLIDATING)
PLUGINS: dict[str, Plugin] = {
    name: plugin for table in _TABLES for name, plugin in table.items()
}
