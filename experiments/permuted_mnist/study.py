"""Online permuted MNIST: what a configuration means."""

import jax.numpy as jnp

from experiments.studies import learning
from loplax import nets, streams, supervised
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
    found = datasets.load(config.dataset, data_dir)
    data = (found.train_images, found.train_labels)
    pixels = data[0][0].size

    def stream(data, numbers=()) -> streams.Stream:
        images, labels = data
        return streams.permuted_images(
            images,
            labels,
            period=config.period,
            shift=config.shift,
            probe=config.probe,
        )

    def network(options) -> supervised.Network:
        options = {"activation": config.activation, **options}
        hidden = learning.widths(config.hidden, options["activation"])
        hidden = () if options.pop("linear", False) else hidden
        net = nets.MLP(hidden, found.num_classes, **options)
        return supervised.stateless(
            lambda key: net.init(key, jnp.zeros(pixels))["params"],
            lambda params, x: net.apply({"params": params}, x),
        )

    return learning.Study(
        stream=stream,
        network=network,
        length=("tasks",),
        loss=losses.cross_entropy,
        initializer=nets.kaiming_uniform(config.activation),
        bins=config.tasks,
        chunks=config.period // stream(data).chunk,
        measures={"accuracy": losses.accuracy},
        data=data,
    )
