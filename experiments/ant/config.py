"""Ant: a four-legged robot learns to walk.

It needs brax: ``pip install -e ".[studies,brax]"``.
"""

import ml_collections

from experiments.studies import locomotion

PRESETS = locomotion.PRESETS


def get_config(preset: str = "laptop") -> ml_collections.ConfigDict:
    """Returns the configuration of a preset; see ``locomotion.get_config``."""
    return locomotion.get_config(preset, "ant")
