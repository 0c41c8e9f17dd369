"""Slowly-changing regression: does an online learner keep tracking a changing target?

Defaults are those of Dohare et al., Nature 632, 2024, and their code.
"""

import ml_collections

from experiments.methods import settings
from experiments.studies import defaults

# What each preset is for; the first is the default.
PRESETS = {
    "paper": (
        "1M examples, 100 seeds, step size 0.01: backprop's squared error rises from "
        "0.65 to 1.25, that of continual backprop stays at 0.6"
    ),
    "laptop": "seven methods, 32 seeds, 500k examples: the same picture",
    "smoke": "seconds; for tests",
}
METHODS = ("bp", "cbp", "linear", "l2", "shrink_and_perturb", "l2_init", "redo")


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
    config.methods = (
        "bp",
        "cbp",
        "linear",
    )  # of plugins, joined by +
    config.optimizer = "sgd"  # or another of experiments/methods
    config.activation = "relu"  # relu, tanh, sigmoid, elu, leaky_relu, swish
    config.hidden = (5,)  # units per hidden layer
    config.examples = 1_000_000  # length of a run; the paper's long runs have 5M
    config.bin = 20_000  # examples per point of the curves
    config.seeds = 100
    config.seed = 0  # of the study: another seed, other runs

    config.learning_rate = 0.01  # the step size; paper: 0.01, 0.003, 0.001

    config.stream = ml_collections.ConfigDict()
    config.stream.inputs = 20  # bits
    config.stream.slow = 15  # of these, bits that change every `period` only
    config.stream.period = 10_000  # examples between changes
    config.stream.flip = (
        "all"  # all: re-draw all slow bits; one: flip one (paper's text)
    )
    config.stream.units = 100  # hidden units of the target network
    config.stream.beta = 0.7  # their threshold

    config.observe = ("weights", "features")  # diagnostics, at the end of each bin
    settings.add_methods(config)  # all with the defaults of experiments/methods
    defaults.add_execution(config)
    config.unroll = 0  # steps per loop iteration; 0: 2 on cpu, 1 elsewhere

    if preset == "laptop":
        config.methods = METHODS
        config.seeds, config.examples = 32, 500_000
    if preset == "smoke":
        config.methods = METHODS
        config.seeds, config.examples, config.bin = 3, 8_000, 2_000
        config.stream.period = 1_000
    settings.add_sweep(config, "stream.beta")
    return config.lock()
