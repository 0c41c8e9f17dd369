"""Class-incremental CIFAR-100: five more classes every 200 epochs, up to 100.

Defaults are those of Dohare et al., Nature 632, 2024, and their code.
"""

import ml_collections

from experiments.methods import settings
from experiments.studies import defaults

# What each preset is for; the first is the default.
PRESETS = {
    "digits": (
        "scikit-learn's handwritten digits, two classes at a time, a narrow network, "
        "no download"
    ),
    "laptop": "CIFAR-100, a narrow network, few classes and epochs: end to end",
    "paper": "CIFAR-100, ResNet-18, 20 steps of 200 epochs, 15 seeds; accelerator",
    "smoke": "seconds, on the digits; for tests",
}
METHODS = ("bp", "head_reset", "shrink_and_perturb", "full_reset", "cbp")


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
    config.dataset = "cifar100"  # any of loplax.streams.datasets
    config.optimizer = "momentum"  # or another of experiments/methods
    config.width = 64  # units of the stem; ResNet-18 has 64
    config.classes = 100  # classes at the end
    config.increment = 5  # classes per step
    config.epochs = 200  # per step
    config.milestones = (60, 120, 160)  # epochs at which the step size drops
    config.factor = 0.2  # by this factor
    config.batch = 90
    config.train_per_class = 450  # images
    config.validation_per_class = 50  # images, for early stopping
    config.augment = True  # flips, shifts and rotations
    config.early_stopping = True  # steps end with their best weights in validation
    config.reading = "reference"  # of the units: the authors' chain, or exact
    config.seeds = 15
    config.seed = 0  # of the study: another seed, other runs
    config.patches = "auto"  # convolutions as matrix products: yes, no, auto (on CPU)

    config.learning_rate = 0.1  # the step size
    config.observe = ("weights", "features")  # diagnostics, at the end of each bin
    settings.add_methods(config)  # all with the defaults of experiments/methods
    config.momentum.weight_decay = 5e-4
    config.shrink_and_perturb.weight_decay = 5e-4
    config.input_normalization.weight_decay = 5e-4
    config.shrink_and_perturb.perturb_scale = 1e-5
    config.cbp.replacement_rate = 1e-5
    config.cbp.maturity_threshold = 1_000
    config.cbp.utility = "contribution"
    config.cbp.budget = "all"  # as the authors' convolutional code
    config.self_normalized_resets.initial_threshold = 16
    defaults.add_execution(config)
    config.unroll = 0  # steps per loop iteration; 0: 2 on cpu, 1 elsewhere

    if preset == "laptop":
        config.width, config.classes, config.seeds = 8, 20, 2
        config.epochs, config.milestones = 4, (2, 3)
    if preset != "paper":  # as many replacements per step of the study, in fewer steps
        config.cbp.maturity_threshold, config.cbp.replacement_rate = 50, 1e-3
    if preset in ("digits", "smoke"):
        config.dataset = "digits"
        config.width, config.classes, config.increment = 4, 10, 2
        config.train_per_class, config.validation_per_class = 100, 40
        config.batch, config.augment = 20, False
        config.epochs, config.milestones, config.seeds = 4, (2, 3), 2
    if preset == "smoke":
        config.width, config.epochs, config.milestones = 2, 2, (1,)
        config.train_per_class, config.validation_per_class = 20, 10
        config.methods = ("bp", "cbp")
    settings.add_sweep(config)
    return config.lock()
