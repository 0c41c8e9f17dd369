"""Defaults of the studies of walking robots, as in Dohare et al., Nature 632, 2024."""

import ml_collections

from experiments.methods import specs


def get_config(preset: str, environment: str) -> ml_collections.ConfigDict:
    """Returns the configuration of a preset.

    Args:
      preset: ``laptop``, ``paper`` or ``smoke``.
      environment: name of an environment of brax.

    Returns:
      The configuration; every field can be set on the command line.

    Raises:
      ValueError: for an unknown preset.
    """
    presets = ("laptop", "paper", "smoke")
    if preset not in presets:
        raise ValueError(f"preset must be one of {presets}, got {preset!r}.")
    config = ml_collections.ConfigDict()
    config.methods = ("bp", "tuned_adam", "l2", "cbp")  # any of experiments/specs.py
    config.environment = environment
    config.backend = "spring"  # the physics: spring, positional, generalized or mjx
    specs.add_changes(config)
    config.updates = 24_400  # of num_envs * num_steps steps each: 50M
    config.bin = 50  # updates per point of the curves
    config.seeds = 30
    config.seed = 0  # of the study: another seed, other runs
    config.learning_rate = 1e-4
    specs.add_control(config)
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
    return config.lock()
