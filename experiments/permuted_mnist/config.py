"""Online permuted MNIST: a new permutation of the pixels every 60,000 examples.

Defaults are those of Dohare et al., Nature 632, 2024, and their code.
"""

import ml_collections

from experiments.methods import settings
from experiments.studies import defaults

# What each preset is for; the first is the default.
PRESETS = {
    "digits": "all methods on scikit-learn's handwritten digits, no download",
    "laptop": "MNIST, width 100, 60 tasks: backprop declines and others do not",
    "width100": "MNIST, width 100, 150 tasks, 3 seeds: published, 93% to 88%",
    "paper": (
        "MNIST, three layers of 2,000 units, 800 tasks, 10 seeds; for an accelerator"
    ),
    "smoke": "seconds, on the digits; for tests",
}
METHODS = ("bp", "cbp", "l2", "shrink_and_perturb")


def get_config(preset: str = "digits") -> ml_collections.ConfigDict:
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
    config.methods = METHODS  # of plugins, joined by +
    config.dataset = "mnist"  # any of loplax.streams.datasets
    config.optimizer = "sgd"  # or another of experiments/methods
    config.activation = "relu"  # relu, tanh, sigmoid, elu, leaky_relu, swish
    config.hidden = (2000, 2000, 2000)  # units per hidden layer; paper: 100 to 10,000
    config.tasks = 800
    config.period = 60_000  # examples per task; paper: 10k, 60k, 100k, 1M
    config.shift = "abrupt"  # abrupt, or gradual within the task
    config.probe = 2_000  # images on which the diagnostics are taken
    config.seeds = 10
    config.seed = 0  # of the study: another seed, other runs

    config.learning_rate = 0.003  # the step size; paper: 0.01, 0.003, 0.001
    config.observe = ("weights", "features")  # diagnostics, at the end of each task
    settings.add_methods(config)  # all with the defaults of experiments/methods
    config.cbp.replacement_rate = 1e-5  # paper: 1e-4, 1e-5, 1e-6
    config.l2.weight_decay = 1e-4  # paper: 1e-3, 1e-4, 1e-5
    config.input_normalization.weight_decay = 0.01  # Elsayed & Mahmood 2024
    config.shrink_and_perturb.weight_decay = 1e-4  # paper
    config.shrink_and_perturb.perturb_scale = 1e-5  # paper: 1e-4, 1e-5, 1e-6
    defaults.add_execution(config)
    config.unroll = 0  # steps per loop iteration; 0: 2 on cpu, 1 elsewhere

    if preset in ("laptop", "width100"):
        config.hidden = (100, 100, 100)
        config.cbp.replacement_rate = 1e-4
        # As much noise as with 1e-5 at every step, and a hundredth of the draws.
        config.shrink_and_perturb.perturb_scale = 1e-4
        config.shrink_and_perturb.period = 100
        config.tasks, config.seeds = (60, 2) if preset == "laptop" else (150, 3)
    if preset in ("digits", "smoke"):
        config.dataset = "digits"
        config.hidden = (32, 32, 32)
        config.period, config.probe = 1_500, 1_500
        config.tasks, config.seeds = 50, 4
        config.learning_rate = 0.01
        config.cbp.replacement_rate = 1e-3
        config.methods = settings.ALL
    if preset == "smoke":
        config.hidden, config.tasks, config.seeds = (8, 8), 2, 2
        config.methods = ("bp", "cbp", "head_reset", "input_normalization")
        config.observe = ("weights", "features", "gradients", "step", "curvature")
    settings.add_sweep(config)
    return config.lock()
