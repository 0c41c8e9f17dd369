"""The stability gap: what a configuration means."""

import jax.numpy as jnp
import numpy as np

from experiments.studies import learning, pretraining
from loplax import checks, nets, streams, supervised
from loplax.streams import datasets
from loplax.supervised import losses

ORDERS = ("rotations", "permutations", "classes", "data")


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
    train, test, classes = _examples(config, data_dir)
    if config.pretrain.steps and (
        config.order not in ("classes", "data") or not config.classes
    ):
        raise ValueError(
            "what is learned before all runs are the first of the classes: order must "
            f"be classes or data, and classes be given; got {config.order!r} and "
            f"{config.classes}."
        )
    if config.order == "data" and config.subsets != "old_new":
        raise ValueError(
            "random parts of the data are tested together: subsets must be old_new, "
            f"got {config.subsets!r}."
        )
    base = config.classes[0] if config.pretrain.steps else 0
    if config.order in ("rotations", "permutations"):
        train, test, split = _domains(config, train, test)
    elif config.order == "classes":
        labels = train[1], test[1]
        split = streams.class_incremental(*labels, config.classes, fixed=base)
    else:
        labels = train[1], test[1]
        split = streams.data_incremental(*labels, config.sessions, base=base)
    pixels = train[0].shape[1]
    test_batch = min(500, config.test_examples or test[1].size)
    parts = learning.whole("steps", config.steps, "every", config.every)
    learned = split.sessions - (base > 0)
    steps = (0,) * (base > 0) + (config.steps,) * learned

    def stream(data, numbers=()) -> streams.Stream:
        return streams.sessions(
            *data,
            split,
            classes=classes,
            steps=steps,
            batch=config.batch,
            subsets=config.subsets,
            test_batch=test_batch,
            probe=test_batch,
        )

    def network(options) -> supervised.Network:
        options = {"activation": config.activation, **options}
        options["final_norm"] = config.final_norm
        hidden = learning.widths(config.hidden, options["activation"])
        hidden = () if options.pop("linear", False) else hidden
        net = nets.MLP(hidden, classes, **options)
        example = jnp.zeros(pixels)
        plain = supervised.stateless(
            lambda key: net.init(key, example)["params"],
            lambda params, x: net.apply({"params": params}, x),
            lambda params, x: net.apply({"params": params}, x, method="embed"),
        )
        if not base:
            return plain
        known = train[1] < base
        data = train[0][known], train[1][known]
        found = pretraining.pretrained(
            plain, losses.cross_entropy, data, **config.pretrain
        )
        return pretraining.begun(plain, found, "output", base)

    return learning.Study(
        stream=stream,
        network=network,
        length=(),
        loss=losses.cross_entropy,
        initializer=nets.kaiming_uniform(config.activation),
        bins=learned * parts,
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


def _examples(config, data_dir):
    """Training and test examples of the data sets in turn, and number of classes."""
    trains, tests, classes = [], [], 0
    for name in config.dataset.split("+"):
        found = datasets.load(name, data_dir)
        for parts, images, labels, number in (
            (trains, found.train_images, found.train_labels, config.train_examples),
            (tests, found.test_images, found.test_labels, config.test_examples),
        ):
            parts.append(_first(images, labels + classes, number))
        classes += found.num_classes
    sizes = sorted({images.shape[1] for images, _ in trains})
    if len(sizes) > 1:
        raise ValueError(f"data sets must have one number of pixels, got {sizes}.")
    join = lambda parts: tuple(map(np.concatenate, zip(*parts, strict=True)))
    return join(trains), join(tests), classes


def _first(images, labels, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The first examples, their pixels in a row; all for 0."""
    checks.whole("number of examples", number, 0)
    if number > len(labels):
        raise ValueError(f"there are {len(labels)} examples, not {number}.")
    number = number or len(labels)
    return images[:number].reshape(number, -1), labels[:number]


def _domains(config, train, test):
    """The same examples seen in another way in every session."""

    def seen(images):
        if config.order == "permutations":
            return streams.permuted(images, config.sessions)
        side = round(images.shape[1] ** 0.5)
        square = images.reshape(len(images), side, side)
        return streams.rotated(square, config.degrees).reshape(-1, side * side)

    many = config.order == "permutations"
    number = config.sessions if many else len(config.degrees)
    of = lambda labels: np.repeat(np.arange(number), len(labels))
    split = streams.given(of(train[1]), of(test[1]))
    all_seen = lambda images, labels: (seen(images), np.tile(labels, number))
    return all_seen(*train), all_seen(*test), split
