"""Class-incremental CIFAR-100: what a configuration means."""

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
    checks.one_of("reading", config.reading, ("reference", "exact"))
    checks.in_range("factor", config.factor)
    for epoch in config.milestones:
        checks.whole("milestones", epoch, 1)
    data = _by_class(config, data_dir)
    steps = learning.whole("classes", config.classes, "increment", config.increment)
    net = nets.ResNet18(config.classes, config.width, patches=images.patches(config))
    example = jnp.zeros((1, *data[0].shape[2:-1], 3))

    def stream(data, numbers=()) -> streams.Stream:
        return streams.incremental_classes(
            *data,
            increment=config.increment,
            epochs=config.epochs,
            batch=config.batch,
            augment=config.augment,
        )

    def init(key):
        variables = net.init(key, example)
        return variables["params"], variables["batch_stats"]

    def forward(params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        options = {"train": True, "mutable": ["batch_stats"]}
        (outputs, features), new = net.apply(
            variables, x, method="with_features", **options
        )
        return (outputs, new["batch_stats"]), features

    def features(params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        return net.apply(variables, x, method="with_features")[1]

    def predict(params, stats, x):
        return net.apply({"params": params, "batch_stats": stats}, x)

    def network(options) -> supervised.Network:
        del options  # it has none
        return supervised.Network(init, lambda *args: forward(*args)[0], predict)

    chunk = stream(data).chunk
    reference = config.reading == "reference"
    return learning.Study(
        stream=stream,
        network=network,
        loss=losses.masked(losses.cross_entropy),
        initializer=nets.kaiming_normal("relu"),
        output_initializer=nets.kaiming_normal("linear"),
        bins=steps * (steps + 1) // 2,
        chunks=config.epochs,
        batch=config.batch,
        measures={"accuracy": losses.masked(losses.accuracy)},
        data=data,
        maintained=nets.resnet18_reference_units(config.width) if reference else None,
        forward=forward if reference else None,
        features=features if reference else None,
        batch_norm=True,
        options=(),
        schedule=lambda rate: _schedule(config, rate, chunk),
        early_stopping=config.early_stopping,
        fresh=False,  # it would learn for less than an epoch
        bins_per_segment=1,
    )


def _schedule(config, rate, chunk: int):
    """The step size: it drops within every step of the study and starts again."""

    def schedule(count):
        bins, within = jnp.divmod(count // chunk, config.epochs)
        # Step k, from 0, has k + 1 bins; before it lie k (k + 1) / 2.
        later = jnp.arange(1, config.classes // config.increment)
        step = jnp.sum(bins >= later * (later + 1) // 2)
        chunks = (bins - step * (step + 1) // 2) * config.epochs + within
        epoch = chunks // (step + 1)
        drops = jnp.sum(epoch >= jnp.array(config.milestones, jnp.int32))
        return rate * config.factor**drops

    return schedule


def _by_class(config, data_dir) -> tuple[np.ndarray, ...]:
    """Images of training, validation and test, ``[classes, images, side, side, 3]``."""
    found = datasets.load(config.dataset, data_dir)
    train = streams.by_class(found.train_images, found.train_labels)
    test = streams.by_class(found.test_images, found.test_labels)
    first, number = config.validation_per_class, config.train_per_class
    if not (first >= 1 and number >= 1 and first + number <= train.shape[1]):
        raise ValueError(
            f"train_per_class ({number}) and validation_per_class ({first}) must be at "
            f"least 1 and together at most {train.shape[1]}."
        )
    if not 1 <= config.classes <= len(train):
        raise ValueError(f"classes must be 1 to {len(train)}, got {config.classes}.")
    parts = train[:, first : first + number], train[:, :first], test
    colour = lambda x: np.broadcast_to(x, (*x.shape[:-1], 3))
    return tuple(colour(part[: config.classes]) for part in parts)
