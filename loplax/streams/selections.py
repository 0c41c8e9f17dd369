"""Which examples of a data set are wanted, by what is known without their images."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from loplax import checks


def first_of_class(labels: np.ndarray, number: int) -> np.ndarray:
    """The first examples of every class: all of a class that has no more.

    Args:
      labels: of all examples, integers from 0.
      number: of examples of each class, at least 1.

    Returns:
      Their indices, ascending.

    Raises:
      ValueError: for a number below 1.

    Example:
      >>> first_of_class(np.array([1, 0, 1, 1, 0]), 2).tolist()
      [0, 1, 2, 4]
    """
    checks.whole("number", number, 1)
    return np.sort(np.concatenate([part[:number] for part in _by_class(labels)]))


def long_tail(
    labels: np.ndarray, *, least: int, most: int, total: int, seed: int = 0
) -> np.ndarray:
    r"""Few classes with many examples, many classes with few.

    The :math:`r`-th largest of :math:`n` classes has, before it is rounded,

    .. math::
      l + (m - l) \frac{r^{-1/a} - n^{-1/a}}{1 - n^{-1/a}}

    examples: the quantiles of a Pareto law, between the least :math:`l` and the most
    :math:`m`, with the power :math:`a` at which they sum to the total. Classes and
    their examples are drawn; one that is too small for its size gets a smaller one.

    Places365-LT has 365 classes of 5 to 4,980 examples, 62,500 in all, which is
    :math:`a = 1.5`. These numbers are its makers', and so is the kind of the law; they
    name a power of 6, with which it would give 215,000 at these ends. Which class has
    which size, and which images it has, is drawn anew here: what they drew is in their
    lists, see `listed`.

    Args:
      labels: of all examples, integers from 0.
      least: examples of the smallest class, at least 1.
      most: of the largest.
      total: of all together.
      seed: of what is drawn.

    Returns:
      Their indices, ascending.

    Raises:
      ValueError: if no law has these numbers, or the classes are too small for it.

    Example:
      >>> labels = np.repeat(np.arange(4), 100)
      >>> found = long_tail(labels, least=2, most=90, total=120)
      >>> sorted(np.bincount(labels[found]).tolist())
      [2, 7, 21, 90]

    References:
      Liu et al., `Large-scale long-tailed recognition in an open world
      <https://arxiv.org/abs/1904.05160>`_, 2019.
    """
    parts = _by_class(labels)
    sizes = _sizes(len(parts), least, most, total)
    random = np.random.default_rng(seed)
    free, chosen = [parts[c] for c in random.permutation(len(parts))], []
    for size in sizes:  # descending: any class that has enough is as good
        stocks = [part.size for part in free]
        if max(stocks) < size:
            raise ValueError(
                f"a class must have {size} examples, but the largest that is left has "
                f"{max(stocks)}."
            )
        first = next(i for i, stock in enumerate(stocks) if stock >= size)
        chosen.append(random.choice(free.pop(first), size, replace=False))
    return np.sort(np.concatenate(chosen))


def listed(names: Sequence[bytes], path: str | os.PathLike) -> np.ndarray:
    r"""The examples that a list names, such as ``Places_LT_train.txt`` of Places365-LT.

    Args:
      names: of the files of all examples, as tensorflow-datasets keeps them.
      path: a text file, with the name of a file first on each line.

    Returns:
      Their indices, in the order of the examples.

    Raises:
      ValueError: if it cannot be read, or names what is not there.

    Example:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
      ...     _ = file.write("data_256/b/2.jpg 1\ndata_256/a/1.jpg 0\n")
      ...     file.flush()
      ...     listed([b"data_256/a/1.jpg", b"0.jpg", b"data_256/b/2.jpg"], file.name)
      array([0, 2])
    """
    try:
        lines = pathlib.Path(path).expanduser().read_bytes().splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    wanted = {line.split()[0].lstrip(b"/") for line in lines if line.strip()}
    if lacking := wanted.difference(names):
        raise ValueError(
            f"{len(lacking)} of {len(wanted)} files that {path} names are not there, "
            f"such as {min(lacking).decode(errors='replace')!r}."
        )
    return np.flatnonzero([name in wanted for name in names])


def _by_class(labels: np.ndarray) -> list[np.ndarray]:
    """The indices of every class's examples, ascending."""
    ends = np.cumsum(np.bincount(labels))
    return np.split(np.argsort(labels, kind="stable"), ends[:-1])


def _sizes(classes: int, least: int, most: int, total: int) -> np.ndarray:
    """Sizes of the classes, descending, of the law of `long_tail`."""
    from scipy import optimize

    checks.whole("least", least, 1)
    checks.whole("most", most, least)
    checks.whole("total", total, 0)
    checks.whole("number of classes", classes, 2)
    rank = np.arange(1.0, classes + 1)

    def law(inverse_power: float) -> np.ndarray:
        tail = rank**-inverse_power
        return least + (most - least) * (tail - tail[-1]) / (1 - tail[-1])

    steepest, flattest = 1000.0, 1e-6
    few, many = law(steepest).sum(), law(flattest).sum()
    if not few <= total <= many:
        raise ValueError(
            f"total must be {few:.0f} to {np.floor(many):.0f} for {classes} classes of "
            f"{least} to {most}, got {total}."
        )
    excess = lambda inverse_power: law(inverse_power).sum() - total
    exact = law(optimize.brentq(excess, flattest, steepest))
    sizes = np.floor(exact + 1e-9).astype(int)
    short = np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]
    sizes[short] += 1
    return sizes
