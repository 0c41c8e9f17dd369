"""Slippery Ant: a robot walks on a ground whose friction changes.

It needs brax: ``pip install -e ".[studies,brax]"``.
"""

import ml_collections

from experiments.studies import locomotion

PRESETS = locomotion.PRESETS | {
    "laptop": (
        "1M steps, 2 seeds, a new friction every 100k, a larger step size: it learns, "
        "no more"
    )
}


def get_config(preset: str = "laptop") -> ml_collections.ConfigDict:
    """Returns the configuration of a preset; see ``locomotion.get_config``."""
    config = locomotion.get_config(preset, "ant")
    config.change, config.factors = "friction", (0.02, 2.0)  # the first friction is 1
    if preset == "paper":
        config.updates = 9_800  # 20M steps
    if preset == "laptop":
        config.period = 102_400
    if preset == "smoke":
        config.period = 32
    return config
