"""Examples of one's own, from a file of arrays."""

import pathlib
import zipfile
import zlib

import numpy as np

NAMES = ("train_x", "train_y", "test_x", "test_y")


def read(
    path: pathlib.Path,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads an ``.npz`` file of examples, such as features of a pretrained network.

    Args:
      path: the file. ``train_x`` and ``test_x`` are ``[examples, ...]``, uint8 or
        floating point, ``train_y`` and ``test_y`` integers from 0 ``[examples]``.

    Returns:
      The arrays in the order of ``NAMES``: uint8 or float32, and int32.

    Raises:
      ValueError: if there is no such file, it lacks an array, or one is not as above.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not there, or no .npz file; numpy.savez makes one, of the "
            f"arrays {', '.join(NAMES)}."
        )
    try:
        with np.load(path) as file:
            found = {name: file[name] for name in NAMES if name in file}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    missing = [name for name in NAMES if name not in found]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}.")
    train, test = (
        (_inputs(path, found, part), _labels(path, found, part))
        for part in ("train", "test")
    )
    alike = [(x.shape[1:], x.dtype.name) for x, _ in (train, test)]
    if alike[0] != alike[1]:
        raise ValueError(
            f"{path}: examples of train_x and test_x must be alike, got {alike[0]} and "
            f"{alike[1]}."
        )
    if test[1].max() > train[1].max():
        raise ValueError(
            f"{path}: test_y has the class {test[1].max()}, train_y none above "
            f"{train[1].max()}."
        )
    return *train, *test


def _inputs(path: pathlib.Path, found: dict, part: str) -> np.ndarray:
    x = found[f"{part}_x"]
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"{path}: {part}_x must be uint8 or floats, got {x.dtype}.")
    if x.ndim < 2 or not x.size:
        raise ValueError(f"{path}: {part}_x must be [examples, ...], got {x.shape}.")
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError(f"{path}: {part}_x has values that are not finite.")
    return x


def _labels(path: pathlib.Path, found: dict, part: str) -> np.ndarray:
    y, examples = found[f"{part}_y"], len(found[f"{part}_x"])
    if y.shape != (examples,):
        raise ValueError(
            f"{path}: {part}_y must have a label for each of the {examples} examples "
            f"of {part}_x, got shape {y.shape}."
        )
    whole = np.issubdtype(y.dtype, np.integer)
    if not whole or y.min() < 0:
        got = f"{y.min()}" if whole else f"{y.dtype}"
        raise ValueError(f"{path}: {part}_y must be integers from 0, got {got}.")
    return y.astype(np.int32)
