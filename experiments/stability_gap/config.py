"""The stability gap: accuracy on old tasks falls whenever a new session starts.

Rotated MNIST as in van de Ven's code for Hess et al. 2023 (arXiv 2311.04898), at
another size in all presets but ``rotated``; and the protocol of Harun & Kanan, TMLR
2024, scaled down: a pre-trained network, and new classes of another distribution.
"""

import ml_collections

from experiments.methods import settings
from experiments.methods.table import PLUGINS
from experiments.studies import defaults

# What each preset is for; the first is the default.
PRESETS = {
    "laptop": "rotated MNIST, reduced, 5 seeds, every update evaluated",
    "digits": "6 classes of handwritten digits, then 4, no download; two minutes",
    "rotated": "rotated MNIST at the size of van de Ven's code",
    "pretrained": (
        "MNIST, then Fashion-MNIST in 5 sessions; scaled protocol of SGM, all its parts"
    ),
    "cifar": (
        "CIFAR-100, 60 classes, then 40 in 5 sessions; ConvNeXt with a frozen trunk; "
        "scaled protocol of SGM"
    ),
    "paper": (
        "ImageNet-1K, then Places365-LT in 5 sessions; ConvNeXt V2 Femto, published "
        "weights; for an accelerator"
    ),
    "many": "100 permutations of MNIST: does the gap deepen as plasticity is lost",
    "smoke": "seconds, on the digits; for tests",
}
# SGM, each of its parts alone, each left out, and what these are compared with.
_PARTS = ("class_mean", "soft_targets", "lora", "freeze_old_outputs")
SGM = (
    "er+one_cycle",
    "er",
    *(f"er+{part}+one_cycle" for part in _PARTS),
    "er+head_only+one_cycle",
    *(
        "+".join(["er", *(p for p in _PARTS if p != part), "one_cycle"])
        for part in _PARTS
    ),
    "sgm+one_cycle",
    "sgm",
    "joint+one_cycle",
)


def get_config(preset: str = "laptop") -> ml_collections.ConfigDict:
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
    config.methods = ("bp", "joint", "er", "er+a_gem", "er+ema", "cbp", "er+cbp")
    defaults.add_sessions(config)
    config.network = "mlp"  # mlp or convnext
    config.hidden = (400, 400)
    config.final_norm = False  # whether a layer norm stands before the output layer
    config.activation = "relu"  # relu, tanh, sigmoid, elu, leaky_relu, swish
    config.convnext = ml_collections.ConfigDict()
    config.convnext.dims = (24, 48, 96, 192)  # channels of each stage
    config.convnext.depths = (1, 1, 2, 1)  # blocks
    config.convnext.side = 3  # of the depthwise kernels
    config.convnext.patch = 2  # side and stride of the stem's kernel
    config.convnext.frozen = 0  # the first so many stages never learn
    config.patches = "auto"  # convolutions as matrix products: yes, no, auto (on CPU)
    config.optimizer = "sgd"  # or another of experiments/methods
    config.pretrain = ml_collections.ConfigDict()
    config.pretrain.steps = 0  # minibatches of the first session, before all runs
    config.pretrain.batch = 128
    config.pretrain.learning_rate = 1e-3
    config.pretrain.weight_decay = 0.05
    config.pretrain.weights = ""  # a safetensors file, in place of these steps
    config.seeds = 5
    config.seed = 0  # of the study: another seed, other runs

    config.learning_rate = 0.1
    config.observe = ()  # diagnostics, at the end of each bin
    settings.add_methods(config)
    config.cbp.replacement_rate = 1e-3
    config.ema.decay_rate = 0.98
    defaults.add_execution(config)
    config.unroll = 1  # steps per loop iteration; 0: 2 on cpu, 1 elsewhere

    if preset == "rotated":
        config.train_examples, config.test_examples = 0, 2000
        config.steps = 500
    if preset in ("digits", "smoke"):
        config.dataset = "digits"
        config.order, config.classes = "classes", (6, 4)
        config.subsets = "old_new"
        config.train_examples, config.test_examples = 0, 297
        config.hidden = (100, 100)
        config.batch = 32
        for name, plugin in PLUGINS.items():
            if "memory" in plugin.choices:
                config[name].memory = 32
            if "capacity" in plugin.choices:
                config[name].capacity = 200
        config.mir.replayed = 8
    if preset in ("pretrained", "cifar", "paper"):
        config.order, config.subsets = "classes", "old_new"
        config.optimizer, config.adamw.learning_rate = "adamw", 1e-3
        config.adamw.weight_decay = 0.05
        config.new_optimizer = True
        config.methods = SGM
        config.steps = 100
        config.er.capacity, config.er.weighting = 0, "examples"
        config.er.later = (96, 32, 128)
        config.joint.memory, config.joint.per_session = 256, False
    if preset == "pretrained":
        config.dataset = "mnist+fashion_mnist"
        config.classes = (10, 2, 2, 2, 2, 2)
        config.train_examples, config.test_examples = 20_000, 1000
        config.hidden, config.final_norm = (200, 200), True
        config.every = 2
        config.pretrain.steps = 2000
    if preset == "cifar":
        config.dataset, config.classes = "cifar100", (60, 8, 8, 8, 8, 8)
        config.train_examples, config.test_examples = 0, 5000
        config.network, config.convnext.frozen = "convnext", 2
        config.every = 10
        config.pretrain.steps = 3500  # 15 times through 30,000 images
        config.lora.rank = 24  # a quarter of the width of the first that learns
    if preset == "paper":
        config.dataset = "imagenet2012+places365_small"
        config.classes = (1000, 73, 73, 73, 73, 73)
        config.train_examples = config.test_examples = 0
        config.train_per_class = (38, 0)  # 38,000 of ImageNet, as in a buffer of 48K
        config.test_per_class = (0, 20)
        config.long_tail = (5, 4980, 62_500)
        config.network, config.convnext.frozen = "convnext", 2
        config.convnext.dims = (48, 96, 192, 384)
        config.convnext.depths = (2, 2, 6, 2)
        config.convnext.side, config.convnext.patch = 7, 4
        config.pretrain.weights = "model.safetensors"
        config.steps, config.every = 600, 50
        config.seeds = 6
        config.adamw.learning_rate = 1.5e-3
        config.lora.rank = 48
    if preset == "many":
        config.order, config.sessions = "permutations", 100
        config.subsets, config.observe = "recent", ("features",)
        config.train_examples, config.test_examples = 2_000, 200
        config.test_batch = 200
        config.hidden, config.steps, config.every = (100, 100), 100, 10
        config.seeds = 3
        config.methods = ("bp", "cbp", "er", "er+cbp")
    if preset == "smoke":
        config.hidden, config.steps, config.seeds = (8,), 20, 2
        config.every = 4
    settings.add_sweep(config)
    return config.lock()
