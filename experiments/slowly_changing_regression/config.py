"""Slowly-changing regression: does an online learner keep tracking a changing target?

Every preset is ``config.py:NAME``:

  paper   (default) 1M examples, 100 seeds, step size 0.01, ReLU. On 2 CPU cores: see
          README.md. Backprop's squared error rises from about 0.65 to 1.25, that of
          continual backprop stays at about 0.6, a linear model's near 0.9.
  laptop  all methods, 32 seeds, 500k examples: the same picture in one or two minutes.
  smoke   seconds; for tests.

Defaults are those of Dohare et al., Nature 632, 2024, and their code.
"""

import ml_collections

METHODS = ("bp", "cbp", "linear", "l2", "shrink_and_perturb", "l2_init", "redo")
SWEEPABLE = (
    "learning_rate",
    "b1",
    "b2",
    "weight_decay",
    "perturb_scale",
    "replacement_rate",
    "maturity_threshold",
    "decay_rate",
    "threshold",
    "period",
)


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
    config.methods = ("bp", "cbp", "linear")  # any of METHODS
    config.optimizer = "sgd"  # sgd or adam
    config.activation = "relu"  # relu, tanh, sigmoid, elu, leaky_relu, swish
    config.hidden = (5,)  # units per hidden layer
    config.examples = 1_000_000  # length of a run; the paper's long runs have 5M
    config.bin = 20_000  # examples per point of the curves
    config.seeds = 100
    config.seed = 0  # of the study: another seed, other runs

    config.learning_rate = 0.01  # the step size; paper: 0.01, 0.003, 0.001
    config.adam = ml_collections.ConfigDict({"b1": 0.9, "b2": 0.999})

    config.stream = ml_collections.ConfigDict()
    config.stream.inputs = 20  # bits
    config.stream.slow = 15  # of these, bits that change every `period` only
    config.stream.period = 10_000  # examples between changes
    config.stream.flip = (
        "all"  # all: re-draw all slow bits; one: flip one (paper's text)
    )
    config.stream.units = 100  # hidden units of the target network
    config.stream.beta = 0.7  # their threshold

    config.cbp = ml_collections.ConfigDict()
    config.cbp.replacement_rate = 1e-4  # paper: 1e-6 to 1e-2
    config.cbp.maturity_threshold = 100  # steps before a unit may be replaced
    config.cbp.decay_rate = 0.99  # of the running utility
    config.cbp.utility = "adaptable_contribution"
    config.cbp.accumulate = True  # whether fractions of a replacement add up
    config.l2 = ml_collections.ConfigDict({"weight_decay": 1e-3})  # paper: 1e-6 to 1
    config.shrink_and_perturb = ml_collections.ConfigDict()
    config.shrink_and_perturb.weight_decay = 1e-2  # paper
    config.shrink_and_perturb.perturb_scale = 1e-3  # paper: 1e-6 to 1e-1
    config.l2_init = ml_collections.ConfigDict({"weight_decay": 1e-3})
    config.redo = ml_collections.ConfigDict()
    config.redo.threshold = 0.1  # of the layer's mean activation; Sokar et al.
    config.redo.period = 1000  # steps between checks; Sokar et al.
    config.redo.decay_rate = 0.99  # of the running activation; batches have one example

    # Values to sweep; all combinations run, each method with those it uses.
    config.sweep = ml_collections.ConfigDict({name: () for name in SWEEPABLE})

    config.platform = "auto"  # auto, cpu, gpu or tpu
    config.runs_per_block = 0  # runs vmapped at once; 0: 128 on cpu, 1024 elsewhere
    config.max_runs = 0  # runs held in memory at once; 0: all
    config.unroll = 0  # steps per loop iteration; 0: 2 on cpu, 1 elsewhere
    config.checkpoint_seconds = 10.0  # least time between two checkpoints

    if preset == "laptop":
        config.methods = METHODS
        config.seeds, config.examples = 32, 500_000
    if preset == "smoke":
        config.methods = METHODS
        config.seeds, config.examples, config.bin = 3, 8_000, 2_000
        config.stream.period = 1_000
    return config.lock()
