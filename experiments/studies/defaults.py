"""The sections of a configuration that several problems share."""

import jax
import ml_collections

from experiments.methods import settings

# Options that methods choose, of `loplax.nets.MLP` or of none at all.
OPTIONS = ("activation", "normalization", "linear")
# The numbers of PPO, every one of which can be swept. Dohare et al. 2024.
PPO = {
    "gamma": 0.99,  # discount
    "gae_lambda": 0.95,
    "clip": 0.2,  # of the probability ratio
    "value_weight": 1.0,
    "entropy_weight": 0.0,
}


def add_execution(config: ml_collections.ConfigDict) -> None:
    """Adds what changes how a study runs, but not what it computes.

    Args:
      config: the configuration.
    """
    config.platform = "auto"  # auto, cpu, gpu or tpu
    config.runs_per_block = 0  # runs vmapped at once; 0: the problem's choice
    config.checkpoint_seconds = 10.0  # least time between two checkpoints
    config.keep_states = False  # whether a longer run can go on from the end of this


def add_sessions(config: ml_collections.ConfigDict) -> None:
    """Adds what comes in which session: rotated MNIST at a reduced size.

    Args:
      config: the configuration.
    """
    config.dataset = "mnist"  # of loplax.streams.datasets, or a file; several by +
    config.order = "rotations"  # or permutations, classes, data, datasets
    config.degrees = (0, 80, 160)  # of rotations
    config.classes = ()  # of each session, where classes come in
    config.sessions = 5  # where the data come in random parts or permutations
    config.train_examples = 12_000  # the first so many, of each session's; 0: all
    config.test_examples = 500
    config.train_per_class = ()  # the first so many, of each data set; 0: all
    config.test_per_class = ()  # the same for testing
    config.long_tail = ()  # of the last data set's classes: least, most, total
    config.lists = ""  # folder of Places_LT_train.txt and Places_LT_test.txt instead
    config.sides = ()  # to which photographs are scaled and cut; (): 256 and 224
    config.steps = 300  # minibatches per session
    config.batch = 128
    config.every = 1  # updates per bin: at its end all subsets are tested
    # What is tested apart: sessions, old_new, recent or last_five.
    config.subsets = "sessions"
    config.test_batch = 500  # examples that are tested at a time
    config.new_optimizer = False  # whether it starts again in every session


def on_cpu(config: ml_collections.ConfigDict) -> bool:
    """Whether a study is to run on a CPU, be that jax's own choice or not."""
    chosen = config.platform
    return (jax.default_backend() if chosen == "auto" else chosen) == "cpu"


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
    config.optimizer = "adam"  # or another of experiments/methods
    config.activation = "relu"  # relu, tanh, sigmoid, elu, leaky_relu, swish
    config.hidden = (256, 256)  # units per hidden layer, of policy and value each
    settings.add_methods(config)
    for name, value in PPO.items():
        config[name] = value
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


def add_sweep(config: ml_collections.ConfigDict) -> None:
    """Adds what can be swept of an agent and of what changes.

    Args:
      config: the configuration, complete.
    """
    settings.add_sweep(config, *PPO, "offset")
