"""The methods by name, with the defaults of their numbers and where these come from."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections


class Spec(NamedTuple):
    """What a method is made of.

    Attributes:
      settings: its numbers, every one of which can be swept, with their defaults.
      label: what figures call it.
      network: options of the network that it learns with.
      at_task: what it does at a new task: ``"draw"`` the output layer, or ``"all"``.
      optimizer: the optimiser that it is, in place of the configured one.
      choices: its settings that are no numbers to sweep, with their defaults.
    """

    settings: Mapping[str, float]
    label: str
    network: Mapping[str, Any] = {}
    at_task: str = ""
    optimizer: str = ""
    choices: Mapping[str, Any] = {}


# The optimisers to choose from, with their numbers beside the learning rate, which has
# no common default.
OPTIMIZERS = {
    "sgd": {},
    # SGD with momentum and L2 regularisation, as torch.optim.SGD.
    "momentum": {"momentum": 0.9, "weight_decay": 0.0},
    # With L2 regularisation, as torch.optim.Adam.
    "adam": {"b1": 0.9, "b2": 0.999, "weight_decay": 0.0},
}

# The numbers of PPO, every one of which can be swept. Dohare et al. 2024.
PPO = {
    "gamma": 0.99,  # discount
    "gae_lambda": 0.95,
    "clip": 0.2,  # of the probability ratio
    "value_weight": 1.0,
    "entropy_weight": 0.0,
}

SPECS = {
    "bp": Spec({}, "backprop"),
    "linear": Spec({}, "linear model", network={"linear": True}),
    # Added to the gradient. Dohare et al. 2024: 1e-3 to 1e-6.
    "l2": Spec({"weight_decay": 1e-3}, "L2"),
    # Lyle et al. 2023, Dohare et al. 2024: equal betas.
    "tuned_adam": Spec(
        {"b1": 0.99, "b2": 0.99, "weight_decay": 0.0}, "tuned Adam", optimizer="adam"
    ),
    # Decoupled weight decay, in units of the step size. Loshchilov & Hutter 2019.
    "adamw": Spec(
        {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "weight_decay": 1e-2},
        "AdamW",
        optimizer="adamw",
    ),
    # Dohare et al. 2024; the rate is that of their regression problem.
    "cbp": Spec(
        {"replacement_rate": 1e-4, "maturity_threshold": 100, "decay_rate": 0.99},
        "continual backprop",
        choices={
            "utility": "adaptable_contribution",
            # How replacements add up: over the eligible units, over all once one is
            # eligible, or not at all but at random.
            "budget": "eligible",
            "reset_inner": True,  # whether the optimiser's moments start anew too
        },
    ),
    # McCutcheon 2026: its best values.
    "ccbp": Spec(
        {
            "replacement_rate": 0.015,  # most that a unit is pulled back at once
            "sharpness": 16.0,  # of the sigmoid of the utility
            "threshold": 1.0,  # utility, in layer means, below which the pull is full
            "decay_rate": 0.99,
            "period": 1000,
        },
        "CCBP",
    ),
    # Dohare et al. 2024: decay 1e-2 in the gradient, noise 1e-6 to 1e-1 at every step.
    # Ash & Adams 2020 shrink the weights themselves, every so often.
    "shrink_and_perturb": Spec(
        {"shrink": 1.0, "weight_decay": 1e-2, "perturb_scale": 1e-3, "period": 1},
        "shrink and perturb",
    ),
    "l2_init": Spec({"strength": 1e-3}, "L2 init"),  # Kumar et al. 2023: 1e-2 to 1e-5
    # Sokar et al. 2023; the decay is for batches of one example.
    "redo": Spec(
        {"threshold": 0.1, "period": 1000, "decay_rate": 0.99},
        "ReDo",
        choices={"reset_inner": True},
    ),
    # Liu et al. 2025: 0.01 to 0.25.
    "regrama": Spec({"threshold": 0.01, "period": 1000, "decay_rate": 0.99}, "ReGraMa"),
    # Elsayed & Mahmood 2024, input-permuted MNIST.
    "upgd": Spec(
        {
            "learning_rate": 0.01,
            "weight_decay": 0.01,
            "noise_scale": 0.1,
            "decay_rate": 0.9999,
        },
        "UPGD",
        optimizer="upgd",
    ),
    # Farias & Jozefiak 2025, whose first threshold of 16 is for large batches.
    "self_normalized_resets": Spec(
        {"rejection_threshold": 0.05, "initial_threshold": 1000, "period": 1000},
        "self-normalised resets",
    ),
    # Lee et al. 2024; the decay is the tortoise's momentum. What learns, and is
    # measured, is the hare.
    "hare_tortoise": Spec({"decay_rate": 0.999, "period": 1000}, "hare and tortoise"),
    # Lewandowski et al. 2025.
    "spectral": Spec({"strength": 1e-3, "exponent": 2.0}, "spectral"),
    # Chung et al. 2024; hidden layers only.
    "parseval": Spec({"strength": 1e-3, "scale": 2.0}, "Parseval"),
    "wasserstein": Spec({"strength": 1e-3}, "Wasserstein"),  # Lewandowski et al. 2024
    "weight_clipping": Spec({"kappa": 2.0}, "weight clipping"),  # Elsayed et al. 2024
    # Lyle et al. 2024.
    "nap": Spec({}, "normalise and project", network={"normalization": "layer"}),
    # Hernandez-Garcia et al. 2025: a fraction of each tensor's weights.
    "weight_resets": Spec(
        {"factor": 1e-3, "period": 1000},
        "weight resets",
        choices={
            "utility": "gradient",  # gradient, magnitude or random
            "pruning": "proportional",  # proportional or threshold
            "decay_rate": 0.0,  # of averaged utilities; 0: those of the step
        },
    ),
    "layer_norm": Spec({}, "layer norm", network={"normalization": "layer"}),
    # Abbas et al. 2023, with half the units.
    "crelu": Spec({}, "CReLU", network={"activation": "crelu"}),
    # Longer inputs make larger steps, and so need the decay added to the gradient.
    "input_normalization": Spec(
        {"decay_rate": 0.999, "weight_decay": 0.0}, "input normalisation"
    ),
    "head_reset": Spec({}, "head reset", at_task="draw"),  # Nikishin et al. 2022
    "full_reset": Spec({}, "retrained", at_task="all"),
    # Nikishin et al. 2023; in items of the stream. The problems take half of a run.
    "plasticity_injection": Spec({"injection_step": 1_000_000}, "plasticity injection"),
}

LABELS = {name: spec.label for name, spec in SPECS.items()}
SWEEPABLE = tuple(
    dict.fromkeys(
        setting
        for numbers in (
            {"learning_rate": 0.0},
            *OPTIMIZERS.values(),
            *(spec.settings for spec in SPECS.values()),
        )
        for setting in numbers
    )
)


def add_methods(config: ml_collections.ConfigDict) -> None:
    """Adds the numbers of all optimisers and methods, and the sweep, to a config.

    Args:
      config: the configuration, with its ``learning_rate``.
    """
    for name, numbers in OPTIMIZERS.items():
        if numbers:
            config[name] = ml_collections.ConfigDict(numbers)
    for name, spec in SPECS.items():
        if spec.settings or spec.choices:
            config[name] = ml_collections.ConfigDict({**spec.settings, **spec.choices})
    # Values to sweep; all combinations run, each method with those it uses.
    config.sweep = ml_collections.ConfigDict({name: () for name in SWEEPABLE})


def add_execution(config: ml_collections.ConfigDict) -> None:
    """Adds what changes how a study runs, but not what it computes.

    Args:
      config: the configuration.
    """
    config.platform = "auto"  # auto, cpu, gpu or tpu
    config.runs_per_block = 0  # runs vmapped at once; 0: the problem's choice
    config.max_runs = 0  # runs held in memory at once; 0: all
    config.checkpoint_seconds = 10.0  # least time between two checkpoints


def add_changes(config: ml_collections.ConfigDict) -> None:
    """Adds what changes in an environment from task to task: nothing.

    Args:
      config: the configuration, with its ``environment``.
    """
    # permutation or offset of the observation; a field of the environment's parameters,
    # such as gravity, length or friction; or none
    config.change = "none"
    config.period = (
        2_000_000  # steps of a run per task; the next begins with an episode
    )
    config.offset = 1.0  # standard deviation of offsets
    config.factors = (0.5, 2.0)  # range of the factors on a field, drawn log-uniformly
    config.listed = ()  # or the field's values one after the other


def add_control(config: ml_collections.ConfigDict) -> None:
    """Adds how an agent learns to a config: PPO as in Dohare et al., Nature 632, 2024.

    Args:
      config: the configuration, with its ``learning_rate``.
    """
    config.num_envs = 1  # environments of a run
    config.num_steps = 2048  # steps of each environment before an update
    config.epochs = 10  # how often an update goes through what was collected
    config.minibatches = 16  # steps per epoch
    config.bootstrap = True  # whether a time limit is no end of the return
    config.clip_actions = True  # to the action space, where they are continuous
    config.optimizer = "adam"  # sgd, momentum or adam
    config.activation = "relu"  # relu, tanh, sigmoid, elu, leaky_relu, swish
    config.hidden = (256, 256)  # units per hidden layer, of policy and value each
    add_methods(config)
    for name, value in PPO.items():
        config[name] = value
        config.sweep[name] = ()
    for name in ("l2", "cbp", "redo"):  # on top of tuned Adam
        config[name].b1 = config[name].b2 = 0.99
    config.l2.weight_decay = 1e-3
    config.cbp.weight_decay = 1e-4
    config.cbp.maturity_threshold = 10_000
    config.cbp.utility = "contribution"
    config.redo.weight_decay = 1e-4
    config.redo.period = 100
    config.redo.decay_rate = 0.0  # the activations are those of the minibatch
    add_execution(config)
