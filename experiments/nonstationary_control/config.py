"""Control problems of gymnax that change from task to task.

The agent is that of Dohare et al., Nature 632, 2024, with smaller networks, a larger
step size, and time limits that are no ends.
"""

import ml_collections

from experiments.methods import settings
from experiments.studies import defaults

# What each preset is for; the first is the default.
PRESETS = {
    "laptop": (
        "Acrobot, whose observation is permuted anew every 40,960 steps, 30 times; six "
        "minutes on two cores"
    ),
    "smoke": "seconds; for tests",
}


def get_config(preset: str = "laptop") -> ml_collections.ConfigDict:
    """Returns the configuration of a preset.

    Args:
      preset: a key of ``PRESETS``.

    Returns:
      The configuration; every field can be set on the command line.

    Raises:
      ValueError: for an unknown preset.
    """
    settings.check_preset(preset, PRESETS)
    config = ml_collections.ConfigDict()
    config.methods = (
        "bp",
        "tuned_adam",
        "l2",
        "cbp",
    )  # of plugins, joined by +
    config.environment = "Acrobot-v1"  # any of gymnax
    defaults.add_changes(config)
    config.change = "permutation"
    config.period = 40_960
    config.updates = 600  # of num_envs * num_steps steps each
    config.bin = 20  # updates per point of the curves
    config.seeds = 10
    config.seed = 0  # of the study: another seed, other runs
    config.learning_rate = 3e-3
    defaults.add_control(config)
    config.hidden = (64, 64)

    if preset == "smoke":
        config.hidden, config.seeds = (8, 8), 2
        config.num_steps, config.minibatches, config.epochs = 64, 4, 2
        config.updates, config.bin, config.period = 8, 2, 128
    defaults.add_sweep(config)
    return config.lock()
