"""Defaults of the studies of walking robots, as in Dohare et al., Nature 632, 2024."""

import ml_collections

from experiments.methods import settings
from experiments.studies import defaults

# What each preset is for; the first is the default.
PRESETS = {
    "laptop": (
        "1M steps, 2 seeds, a larger step size, time limits are no ends: it learns, "
        "no more"
    ),
    "paper": "the published setting, 30 seeds; for an accelerator",
    "smoke": "seconds, most of which compile; for tests",
}


def get_config(preset: str, environment: str) -> ml_collections.ConfigDict:
    """Returns the configuration of a preset.

    Args:
      preset: a key of ``PRESETS``.
      environment: name of an environment of brax.

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
    config.environment = environment
    config.backend = "spring"  # the physics: spring, positional, generalized or mjx
    defaults.add_changes(config)
    config.updates = 24_400  # of num_envs * num_steps steps each: 50M
    config.bin = 50  # updates per point of the curves
    config.seeds = 30
    config.seed = 0  # of the study: another seed, other runs
    config.learning_rate = 1e-4
    defaults.add_control(config)
    # As the authors' code: a time limit is an end, actions go beyond their limits (and
    # cost more), Adam's moments stay, and a replacement comes with a probability.
    config.bootstrap = config.clip_actions = False
    config.cbp.reset_inner = config.redo.reset_inner = False
    config.cbp.budget = "random"

    if preset == "laptop":
        config.methods, config.seeds = ("bp", "cbp"), 2
        config.updates, config.bin = 500, 10
        config.bootstrap = config.cbp.reset_inner = True
        config.cbp.budget = "eligible"
        config.learning_rate = 3e-4
    if preset == "smoke":
        config.hidden, config.seeds = (8, 8), 1
        config.num_steps, config.minibatches, config.epochs = 32, 2, 1
        config.updates, config.bin = 4, 2
    defaults.add_sweep(config)
    return config.lock()
