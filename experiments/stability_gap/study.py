"""The stability gap: what a configuration means."""

import jax.numpy as jnp
import numpy as np

from experiments.studies import learning
from loplax import nets, streams, supervised
from loplax.optim import checks
from loplax.streams import datasets
from loplax.supervised import losses

ORDERS = ("rotations", "classes", "data")


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
    checks.one_of("order", config.order, ORDERS)
    found = datasets.load(config.dataset, data_dir)
    train = _first(found.train_images, found.train_labels, config.train_examples)
    test = _first(found.test_images, found.test_labels, config.test_examples)
    if config.order == "rotations":
        train, test, split = _rotations(train, test, config.degrees)
    elif config.order == "classes":
        split = streams.class_incremental(train[1], test[1], config.classes)
    else:
        split = streams.data_incremental(train[1], test[1], config.sessions)
    pixels = train[0].shape[1]

    def stream(data, numbers=()) -> streams.Stream:
        return streams.sessions(
            *data,
            split,
            classes=found.num_classes,
            steps=config.steps,
            batch=config.batch,
            subsets=config.subsets,
            test_batch=min(500, test[1].size),
            probe=min(500, test[1].size),
        )

    def network(options) -> supervised.Network:
        options = {"activation": config.activation, **options}
        hidden = learning.widths(config.hidden, options["activation"])
        hidden = () if options.pop("linear", False) else hidden
        net = nets.MLP(hidden, found.num_classes, **options)
        example = jnp.zeros(pixels)
        return supervised.stateless(
            lambda key: net.init(key, example)["params"],
            lambda params, x: net.apply({"params": params}, x),
            lambda params, x: net.apply({"params": params}, x, method="embed"),
        )

    parts = learning.whole("steps", config.steps, "every", config.every)
    return learning.Study(
        stream=stream,
        network=network,
        length=(),
        loss=losses.cross_entropy,
        initializer=nets.kaiming_uniform(config.activation),
        bins=split.sessions * parts,
        chunks=1,
        batch=config.batch,
        bins_per_chunk=parts,
        test_starts=True,
        measures={"accuracy": losses.accuracy},
        data=(train, test),
        at_task=("new_optimizer",) if config.new_optimizer else (),
        fresh=False,
        bins_per_segment=1,
    )


def _first(images, labels, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The first examples, their pixels in a row; all for 0."""
    checks.whole("number of examples", number, 0)
    if number > len(labels):
        raise ValueError(f"there are {len(labels)} examples, not {number}.")
    number = number or len(labels)
    return images[:number].reshape(number, -1), labels[:number]


def _rotations(train, test, degrees):
    """The examples at every angle, and whose session they are."""
    side = round(train[0].shape[1] ** 0.5)

    def turned(images, labels):
        square = images.reshape(len(images), side, side)
        turned = streams.rotated(square, degrees).reshape(-1, side * side)
        return turned, np.tile(labels, len(degrees))

    of = lambda labels: np.repeat(np.arange(len(degrees)), len(labels))
    split = streams.given(of(train[1]), of(test[1]))
    return turned(*train), turned(*test), split
