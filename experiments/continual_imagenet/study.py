"""Continual ImageNet: what a configuration means."""

import jax.numpy as jnp
import numpy as np

from experiments.studies import images, learning
from loplax import checks, nets, streams, supervised
from loplax.streams import datasets
from loplax.supervised import losses


def make(config, data_dir: str | None = None) -> learning.Study:
    """The study of a configuration.

    Args:
      config: a configuration as ``config.get_config`` returns it.
      data_dir: where the data set is, or is to be prepared.

    Returns:
      The study.

    Raises:
      ValueError: for an unknown name or a size that is out of range, or if there is no
        data.
    """
    if config.tasks < 1:
        raise ValueError(f"tasks must be at least 1, got {config.tasks}.")
    data = _by_class(config, data_dir)

    def stream(data, numbers) -> streams.Stream:
        train, test = data
        sizes = {"epochs": config.epochs, "batch": config.batch}
        return streams.class_pairs(train, test, **sizes)

    hidden, output = _initializers(config)

    def network(options) -> supervised.Network:
        options = {"activation": config.activation, **options}
        options["kernel_init"] = hidden if config.initialization == "pytorch" else None
        example = jnp.zeros((1, *data[0].shape[2:]))
        if options.pop("linear", False):
            net = nets.MLP((), 2, **options)
            view = lambda x: x.reshape(len(x), -1)
        else:
            sizes = {"filters": config.filters, "hidden": config.hidden}
            sizes = {
                name: learning.widths(size, options["activation"])
                for name, size in sizes.items()
            }
            options |= {"patches": images.patches(config)}
            net, view = nets.ConvNet(2, **sizes, **options), lambda x: x
        return supervised.stateless(
            lambda key: net.init(key, view(example))["params"],
            lambda params, x: net.apply({"params": params}, view(x)),
        )

    return learning.Study(
        stream=stream,
        network=network,
        length=("tasks",),
        loss=losses.cross_entropy,
        initializer=hidden,
        output_initializer=output,
        bins=config.tasks,
        chunks=config.epochs,
        batch=config.batch,
        measures={"accuracy": losses.accuracy},
        data=data,
        at_task=("zero_head",),
        fresh=False,  # it would learn for one epoch of many
    )


def _initializers(config):
    """Distributions of the hidden weights and of those of the output."""
    checks.one_of("initialization", config.initialization, ("pytorch", "kaiming"))
    if config.initialization == "pytorch":
        return nets.pytorch_uniform(), nets.pytorch_uniform()
    return nets.kaiming_uniform(config.activation), nets.kaiming_uniform("linear")


def _by_class(config, data_dir) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images, uint8 ``[classes, images, 32, 32, channels]``."""
    found = datasets.load(config.dataset, data_dir)
    train = streams.by_class(found.train_images, found.train_labels)
    test = streams.by_class(found.test_images, found.test_labels)
    numbers = config.train_per_class, config.test_per_class
    if config.dataset == "imagenet32":  # as the authors: all from the training images
        test = train[:, max(0, numbers[0]) :]
    for name, number, there in zip(
        ("train_per_class", "test_per_class"), numbers, (train, test), strict=True
    ):
        if not 1 <= number <= there.shape[1]:
            raise ValueError(
                f"{name} is {number}; {config.dataset} has {there.shape[1]} of a class."
            )
    train, test = train[:, : numbers[0]], test[:, : numbers[1]]
    flatten = lambda x: x.reshape(-1, *x.shape[2:])
    split = lambda x: images.to_32(flatten(x)).reshape(*x.shape[:2], 32, 32, -1)
    return split(train), split(test)
