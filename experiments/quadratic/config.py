"""The quadratic binary task: what the size of a latent weight says of its sign.

Laborieux et al., Nature Communications 12, 2021, figure 5: signs that are to minimise a
quadratic form, learned by gradient descent of latent weights.
"""

import ml_collections

from experiments.methods import settings
from experiments.studies import defaults

# What each preset is for; the first is the default.
PRESETS = {
    "paper": "500 weights, 10 seeds, optima outside and inside of what signs can reach",
    "smoke": "seconds; for tests",
}


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
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
    config.methods = ("bp",)  # of plugins, joined by +
    config.optimizer = "sgd"  # or another of experiments/methods
    config.learning_rate = 0.01
    config.dimensions = 500  # weights
    config.curvature = (10.5, 29.5)  # least and greatest possible eigenvalue
    config.reach = 4.0  # the optimum is drawn from (-reach, reach), in each dimension
    config.start = 0.01  # standard deviation of the first latent weights
    config.steps = 1000  # updates of a run
    config.bin = 50  # updates per point of the curves
    config.seeds = 10
    config.seed = 0  # of the study: another seed, other runs
    settings.add_methods(config)
    defaults.add_execution(config)
    settings.add_sweep(config, "reach")
    config.sweep.reach = (4.0, 0.9)

    if preset == "smoke":
        config.dimensions, config.steps, config.bin, config.seeds = 40, 200, 50, 3
    return config.lock()
