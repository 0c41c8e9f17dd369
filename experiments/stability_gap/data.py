"""What is learned in the sessions of the stability gap, and which of it in which."""

import pathlib
from collections.abc import Callable

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
      ValueError: if there are fewer examples than asked for, no data, images of several
        sizes, or not one number for each data set.
    """
    names = config.dataset.split("+")
    for each in ("train_per_class", "test_per_class"):
        if len(config[each]) not in (0, len(names)):
            raise ValueError(
                f"{each} must have a number for each of {names}, got {config[each]}."
            )
    parts, classes = [], 0
    for i, name in enumerate(names):
        last = i == len(names) - 1
        found = datasets.load(
            name,
            data_dir,
            train=_selection(config, "train", i, last),
            test=_selection(config, "test", i, last),
            sides=tuple(config.sides) or None,
        )
        train = _first(*found[:2], config.train_examples, classes)
        parts.append((train, _first(*found[2:4], config.test_examples, classes)))
        classes += found.num_classes
    sizes = sorted({train[0].shape[1:] for train, _ in parts})
    if len(sizes) > 1:
        raise ValueError(f"data sets must have images of one size, got {sizes}.")
    join = lambda each: tuple(map(np.concatenate, zip(*each, strict=True)))
    train, test = map(join, zip(*parts, strict=True))
    return train, test, classes


def _selection(config, part: str, number: int, last: bool) -> Callable | None:
    """Which examples of a data set are read, by what is known without the images."""
    if last and config.lists:
        path = pathlib.Path(config.lists, f"Places_LT_{part}.txt")
        return lambda records: streams.listed(records["filename"], path)
    if last and config.long_tail and part == "train":
        least, most, total = config.long_tail
        return lambda records: streams.long_tail(
            records["label"], least=least, most=most, total=total
        )
    most = (config[f"{part}_per_class"] or (0,) * (number + 1))[number]
    if not most:
        return None
    return lambda records: streams.first_of_class(records["label"], most)


def _first(images, labels, number: int, classes: int):
    """The first examples, their labels behind other classes; all for 0."""
    checks.whole("number of examples", number, 0)
    if number > len(labels):
        raise ValueError(f"there are {len(labels)} examples, not {number}.")
    number = number or len(labels)
    return images[:number], labels[:number] + np.int32(classes)


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
