"""Slowly-changing regression: does an online learner keep tracking a changing target?

Every preset is ``config.py:NAME``:

  paper   (default) 1M examples, 100 seeds, step size 0.01, ReLU. On 2 CPU cores: see
          README.md. Backprop's squared error rises from about 0.65 to 1.25, that of
          continual backprop stays at about 0.6, a linear model's near 0.9.
  laptop  seven methods, 32 seeds, 500k examples: the same picture in a minute or two.
  smoke   seconds; for tests.

Defaults are those of Dohare et al., Nature 632, 2024, and their code.
"""

import ml_collections

from experiments.methods import specs

METHODS = ("bp", "cbp", "linear", "l2", "shrink_and_perturb", "l2_init", "redo")


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a preset.

    Args:
      preset: ``paper``, ``laptop`` or ``smoke``.

    Returns:
      The configuration; every field can be set on the command line.

    Raises:
      ValueError: for an unknown preset.
    """
    presets = ("paper", "laptop", "smoke")
    if preset not in presets:
        raise ValueError(f"preset must be one of {presets}, got {preset!r}.")
    config = ml_collections.ConfigDict()
    config.methods = ("bp", "cbp", "linear")  # any of experiments/specs.py
    config.optimizer = "sgd"  # sgd or adam
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
    specs.add_methods(config)  # all with the defaults of experiments/specs.py
    specs.add_execution(config)
    config.unroll = 0  # steps per loop iteration; 0: 2 on cpu, 1 elsewhere

    if preset == "laptop":
        config.methods = METHODS
        config.seeds, config.examples = 32, 500_000
    if preset == "smoke":
        config.methods = METHODS
        config.seeds, config.examples, config.bin = 3, 8_000, 2_000
        config.stream.period = 1_000
    config.plasticity_injection.injection_step = config.examples // 2
    return config.lock()
