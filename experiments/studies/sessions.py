"""What is learned in sessions, which of it in which, and the study of them."""

import pathlib
from collections.abc import Callable

import numpy as np

from experiments.studies import learning
from loplax import checks, streams
from loplax.streams import datasets
from loplax.supervised import losses

_listed = lambda values: ", ".join(map(str, values))
# What comes in the sessions, in words.
ORDERS = {
    "rotations": lambda config: f"turned by {_listed(config['degrees'])} degrees",
    "permutations": lambda config: f"{config['sessions']} permutations of the pixels",
    "classes": lambda config: f"classes in sessions of {_listed(config['classes'])}",
    "data": lambda config: f"random parts in {config['sessions']} sessions",
    "datasets": lambda config: "one data set after the other",
}


def about(config: dict) -> str:
    """What is learned in which order, for a figure."""
    names = "+".join(pathlib.Path(n).name for n in config["dataset"].split("+"))
    return f"{names}, {ORDERS[config['order']](config)}"


def examples(config, data_dir: str | None = None):
    """The examples of the data sets in turn, with one number of classes.

    Args:
      config: a configuration of this problem.
      data_dir: where the data sets are, or are to be prepared.

    Returns:
      Images and labels for training, the same for testing, how many classes, and the
      data set of each example, numbers for training and for testing.

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
        first = 0 if config.order == "datasets" else classes
        train = _first(*found[:2], config.train_examples, first)
        parts.append((train, _first(*found[2:4], config.test_examples, first)))
        classes = max(classes, first + found.num_classes)
    sizes = sorted({train[0].shape[1:] for train, _ in parts})
    if len(sizes) > 1:
        raise ValueError(f"data sets must have images of one size, got {sizes}.")
    join = lambda each: tuple(map(np.concatenate, zip(*each, strict=True)))
    which = lambda each: [np.full(len(labels), i) for i, (_, labels) in enumerate(each)]
    trains, tests = zip(*parts, strict=True)
    origins = tuple(np.concatenate(which(each)) for each in (trains, tests))
    return join(trains), join(tests), classes, origins


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


def in_sessions(config, train, test, origins, base: int = 0):
    """The examples, seen in another way in every session or not, and its split.

    Args:
      config: a configuration of this problem.
      train: images and labels.
      test: the same for testing.
      origins: the data set of each example, numbers for training and for testing.
      base: how many of the classes are known before.

    Returns:
      ``train``, ``test`` and what `loplax.streams.sessions` takes as split.

    Raises:
      ValueError: for an unknown order, or one that cannot be.
    """
    checks.one_of("order", config.order, tuple(ORDERS))
    if config.order in ("rotations", "permutations"):
        return _domains(config, train, test)
    if config.order == "datasets":
        return train, test, streams.given(*origins)
    labels = train[1], test[1]
    if config.order == "classes":
        split = streams.class_incremental(*labels, config.classes, fixed=base)
        return train, test, split
    if config.subsets != "old_new":
        raise ValueError(
            "random parts of the data are tested together: subsets must be old_new, "
            f"got {config.subsets!r}."
        )
    split = streams.data_incremental(*labels, config.sessions, base=base)
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


def make(
    config,
    learned: tuple,
    network: Callable,
    split,
    classes: int,
    *,
    known: bool = False,
    **how,
) -> learning.Study:
    """The study of what comes in sessions.

    Args:
      config: a configuration of a problem with sessions.
      learned: ``(train, test)``, inputs and labels each.
      network: as in `learning.Study`.
      split: as `in_sessions` returns it.
      classes: number of outputs.
      known: whether the first session is not learned, but known before.
      **how: other fields of the study.

    Returns:
      The study.

    Raises:
      ValueError: for sizes out of range.
    """
    test_batch = min(config.test_batch, learned[1][1].size)
    parts = learning.whole("steps", config.steps, "every", config.every)
    number = split.sessions - known

    def stream(data, numbers=()) -> streams.Stream:
        return streams.sessions(
            *data,
            split,
            classes=classes,
            steps=(0,) * known + (config.steps,) * number,
            batch=config.batch,
            subsets=config.subsets,
            test_batch=test_batch,
            probe=test_batch,
        )

    fixed = {
        "stream": stream,
        "network": network,
        "length": (),
        "loss": losses.cross_entropy,
        "bins": number * parts,
        "chunks": 1,
        "batch": config.batch,
        "bins_per_chunk": parts,
        "measures": {"accuracy": losses.accuracy},
        "data": learned,
        "at_task": ("new_optimizer",) if config.new_optimizer else (),
        "fresh": False,
        "bins_per_segment": 1,
    }
    return learning.Study(**fixed, **how)
