"""Hopper: a one-legged robot learns to hop.

Every preset is ``config.py:NAME``:

  laptop  (default) 1M steps, 2 seeds, a larger step size, time limits are no ends:
          it learns, no more.
  paper   50M steps, 30 seeds, as in Dohare et al., Nature 632, 2024; for an
          accelerator.
  smoke   seconds, most of which compile; for tests.

It needs brax: ``pip install -e ".[brax]"``.
"""

import ml_collections

from experiments.studies import locomotion


def get_config(preset: str = "laptop") -> ml_collections.ConfigDict:
    """Returns the configuration of a preset; see ``locomotion.get_config``."""
    return locomotion.get_config(preset, "hopper")
