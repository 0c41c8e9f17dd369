"""Continual ImageNet: thousands of binary tasks, each with two classes of images.

Defaults are those of Dohare et al., Nature 632, 2024, and their code.
"""

import ml_collections

from experiments.methods import settings
from experiments.studies import defaults

# What each preset is for; the first is the default.
PRESETS = {
    "digits": "pairs of scikit-learn's handwritten digits, no download",
    "laptop": "pairs of CIFAR-100's classes, short tasks",
    "paper": "ImageNet at 32x32, 2,000 tasks of 250 epochs, 30 seeds; accelerator",
    "smoke": "seconds, on the digits; for tests",
}


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
    config.methods = ("bp", "cbp", "l2", "shrink_and_perturb")
    config.dataset = "imagenet32"  # any of loplax.streams.datasets
    config.optimizer = "momentum"  # or another of experiments/methods
    config.activation = "relu"  # relu, tanh, sigmoid, elu, leaky_relu, swish
    config.filters = (32, 64, 128)  # units of the three convolutions
    config.hidden = (128, 128)  # units of the fully connected layers
    config.initialization = "pytorch"  # of the weights, re-drawn ones too, or kaiming
    config.tasks = 2_000  # paper: 2,000 for backprop, 5,000 for the others
    config.epochs = 250  # per task
    config.batch = 100
    config.train_per_class = 600  # images; the next ones test where there is no
    config.test_per_class = 100  # test set with labels
    config.seeds = 30
    config.seed = 0  # of the study: another seed, other runs
    config.patches = "auto"  # convolutions as matrix products: yes, no, auto (on CPU)

    config.learning_rate = 0.01  # the step size; paper: 0.01, 0.001, 0.0001
    config.observe = ("weights", "features")  # diagnostics, at the end of each bin
    settings.add_methods(config)  # all with the defaults of experiments/methods
    config.cbp.replacement_rate = 3e-4
    config.cbp.budget = "all"  # as the authors' convolutional code
    config.l2.weight_decay = 3e-6
    config.l2.learning_rate = 0.03  # its own, as published
    config.shrink_and_perturb.weight_decay = 1e-5
    config.shrink_and_perturb.perturb_scale = 1e-5
    config.self_normalized_resets.initial_threshold = 16
    defaults.add_execution(config)
    config.unroll = 0  # steps per loop iteration; 0: 2 on cpu, 1 elsewhere

    if preset != "paper":
        config.initialization = "kaiming"  # larger, to learn within a few epochs
    if preset == "laptop":
        config.dataset = "cifar100"
        config.train_per_class = 500
        config.methods = ("bp", "cbp")
        config.tasks, config.epochs, config.seeds = 120, 5, 2
    if preset in ("digits", "smoke"):
        config.dataset = "digits"
        config.train_per_class, config.test_per_class = 140, 25
        config.filters, config.hidden = (16, 32, 32), (64, 64)
        config.batch = 20
        config.methods = ("bp", "cbp")
        config.tasks, config.epochs, config.seeds = 100, 5, 2
    if preset == "smoke":
        config.filters, config.hidden = (4, 4, 4), (8, 8)
        config.tasks, config.epochs = 2, 1
    settings.add_sweep(config)
    return config.lock()
