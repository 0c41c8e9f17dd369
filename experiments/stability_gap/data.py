"""What is learned in the sessions of the stability gap, and which of it in which."""

import numpy as np

from loplax import checks, streams
from loplax.streams import datasets

ORDERS = ("rotations", "permutations", "classes", "data")


def examples(config, data_dir: str | None = None):
    """The examples of the data sets in turn, with one number of classes.

    Args:
      config: a configuration of this problem.
      data_dir: where the data sets are, or are to be prepared.

    Returns:
      Images and labels for training, the same for testing, and how many classes.

    Raises:
      ValueError: if there are fewer examples than asked for, no data, or images of
        several sizes.
    """
    trains, tests, classes = [], [], 0
    for name in config.dataset.split("+"):
        found = datasets.load(name, data_dir)
        for parts, images, labels, number in (
            (trains, found.train_images, found.train_labels, config.train_examples),
            (tests, found.test_images, found.test_labels, config.test_examples),
        ):
            parts.append(_first(images, labels + classes, number))
        classes += found.num_classes
    sizes = sorted({images.shape[1:] for images, _ in trains})
    if len(sizes) > 1:
        raise ValueError(f"data sets must have images of one size, got {sizes}.")
    join = lambda parts: tuple(map(np.concatenate, zip(*parts, strict=True)))
    return join(trains), join(tests), classes


def _first(images, labels, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The first examples; all for 0."""
    checks.whole("number of examples", number, 0)
    if number > len(labels):
        raise ValueError(f"there are {len(labels)} examples, not {number}.")
    number = number or len(labels)
    return images[:number], labels[:number]


def base(config) -> int:
    """How many classes the network knows before it learns.

    Raises:
      ValueError: if it cannot know the first of them.
    """
    if not (config.pretrain.steps or config.pretrain.weights):
        return 0
    if config.order not in ("classes", "data") or not config.classes:
        raise ValueError(
            "what is learned before all runs are the first of the classes: order must "
            f"be classes or data, and classes be given; got {config.order!r} and "
            f"{config.classes}."
        )
    return config.classes[0]


def in_sessions(config, train, test):
    """The examples, seen in another way in every session or not, and its split.

    Args:
      config: a configuration of this problem.
      train: images and labels.
      test: the same for testing.

    Returns:
      ``train``, ``test`` and what `loplax.streams.sessions` takes as split.

    Raises:
      ValueError: for an unknown order, or one that cannot be.
    """
    checks.one_of("order", config.order, ORDERS)
    if config.order in ("rotations", "permutations"):
        return _domains(config, train, test)
    labels, known = (train[1], test[1]), base(config)
    if config.order == "classes":
        split = streams.class_incremental(*labels, config.classes, fixed=known)
        return train, test, split
    if config.subsets != "old_new":
        raise ValueError(
            "random parts of the data are tested together: subsets must be old_new, "
            f"got {config.subsets!r}."
        )
    split = streams.data_incremental(*labels, config.sessions, base=known)
    return train, test, split


def _domains(config, train, test):
    many = config.order == "permutations"
    number = config.sessions if many else len(config.degrees)

    def seen(images):
        if not many:
            return streams.rotated(images, config.degrees)
        rows = images.reshape(len(images), -1)
        return streams.permuted(rows, number).reshape(-1, *images.shape[1:])

    of = lambda labels: np.repeat(np.arange(number), len(labels))
    all_seen = lambda images, labels: (seen(images), np.tile(labels, number))
    split = streams.given(of(train[1]), of(test[1]))
    return all_seen(*train), all_seen(*test), split
