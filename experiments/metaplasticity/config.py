"""Metaplasticity in binarised networks: tasks in turn, without rehearsal.

Laborieux et al., Nature Communications 12, 2021: permuted MNIST and what else comes in
sessions, learned by a binarised network; all presets but ``paper`` at another size.
"""

import ml_collections

from experiments.methods import settings
from experiments.methods.table import PLUGINS
from experiments.studies import defaults

# What each preset is for; the first is the default.
PRESETS = {
    "digits": "5 permutations of handwritten digits, no download; half a minute",
    "laptop": "5 permutations of MNIST, two layers of 512, six values of m, rivals",
    "sequence": "MNIST, then Fashion-MNIST with the same outputs",
    "stream": "Fashion-MNIST in 60 pieces, without boundaries",
    "capacity": "10 permutations of MNIST, to be run at several widths",
    "many": "100 permutations of MNIST: what goes on learning when units are released",
    "features": "features of one's own, in two halves of the classes",
    "paper": "6 permutations of MNIST, two layers of 4096, 40 epochs; for a GPU",
    "smoke": "seconds, on the digits; for tests",
}
M = (0.5, 1.0, 1.35, 2.0, 2.5, 3.0)  # 0 is backprop


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
    config.methods = ("bp", "metaplastic")
    defaults.add_sessions(config)
    config.order, config.sessions = "permutations", 5
    config.train_examples, config.test_examples = 0, 0
    config.steps, config.batch = 3000, 100  # five times through MNIST
    config.every = 3000
    config.test_batch = 1000
    config.new_optimizer = True
    config.hidden = (512, 512)
    config.normalization = "batch"  # or layer
    config.affine = True  # whether norms have a scale and a bias
    config.running = False  # tested with running statistics, else the test batch's own
    config.task_norms = True  # whether each task is tested with the norms of its end
    config.binarize_input = False  # whether inputs are signs, around their own mean
    config.width = 0.1  # of the interval in which latent weights begin
    config.optimizer = "adam_eps_hat"
    config.learning_rate = 0.005
    config.seeds = 3
    config.seed = 0  # of the study: another seed, other runs
    config.observe = ()  # diagnostics, at the end of each bin
    settings.add_methods(config)
    config.metaplastic.m = 2.5
    defaults.add_execution(config)
    config.unroll = 1  # steps per loop iteration; 0: 2 on cpu, 1 elsewhere
    settings.add_sweep(config)

    if preset == "laptop":
        config.methods = (
            "bp",
            "metaplastic",
            "real_weights",
            "real_weights+metaplastic",
            "running_statistics+ewc",
            "running_statistics+random_consolidation",
            "running_statistics+si",
        )
        config.sweep.metaplastic.m = M
    if preset in ("digits", "smoke"):
        config.dataset = "digits"
        config.hidden = (100, 100)
        config.batch, config.test_batch = 50, 297
        config.steps = config.every = 300  # ten times
        config.methods = ("bp", "metaplastic", "running_statistics+ewc")
        for name, plugin in PLUGINS.items():
            if "examples" in plugin.choices:
                config[name].examples = 600
    if preset == "digits":
        config.sweep.metaplastic.m = (5.0, 10.0, 20.0)
    if preset == "sequence":
        config.dataset, config.order = "mnist+fashion_mnist", "datasets"
        config.sweep.metaplastic.m = (1.5, 2.5)
    if preset == "stream":
        config.dataset, config.order, config.sessions = "fashion_mnist", "data", 60
        config.subsets, config.task_norms, config.running = "old_new", False, True
        config.new_optimizer = False
        config.hidden = (1024, 1024)
        config.steps = config.every = 50  # five times through a piece
    if preset == "capacity":
        config.sessions = 10
        config.adam_eps_hat.weight_decay = 1e-8
        config.methods = ("bp", "metaplastic", "running_statistics+ewc")
    if preset == "many":
        config.sessions, config.train_examples, config.test_examples = 100, 2000, 200
        config.test_batch, config.subsets = 200, "last_five"
        config.task_norms, config.running = False, True
        config.steps = config.every = 100
        config.hidden = (100, 100)
        config.methods = (
            "bp",
            "metaplastic",
            "metaplastic+cbp",
            "metaplastic+release",
            "release",
        )
        config.metaplastic.m = 10.0
        config.cbp.replacement_rate = config.release.replacement_rate = 1e-3
    if preset == "features":
        # With the arrays of loplax.streams.datasets; in the paper CIFAR-10, ResNet-18.
        config.dataset, config.order, config.classes = "features.npz", "classes", (5, 5)
        config.binarize_input, config.running, config.hidden = True, True, (2048,)
        config.steps = config.every = 2500  # ten times through 25,000
        config.adam_eps_hat.weight_decay = 1e-8
        config.metaplastic.m = 1.8
    if preset == "paper":
        config.sessions, config.hidden = 6, (4096, 4096)
        config.steps, config.every = 24_000, 600
        config.running = True
        config.methods = ("bp", "metaplastic", "ewc", "random_consolidation")
        config.sweep.metaplastic.m = (0.5, 1.0, 1.35)
        config.seeds = 5
    if preset == "smoke":
        config.hidden, config.steps, config.every = (8,), 20, 20
        config.sessions, config.seeds = 2, 2
        config.ewc.examples = 50
    return config.lock()
