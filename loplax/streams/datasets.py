"""Data sets of labelled images, as arrays in memory."""

import importlib.util
import io
import os
import pathlib
from typing import NamedTuple

import numpy as np
import tqdm

from loplax import locks, spelling
from loplax.streams import makers

NAMES = ("digits", *makers.MAKERS)
BATCH = 1000  # records read at a time


class Dataset(NamedTuple):
    """Labelled images.

    Attributes:
      train_images: uint8 ``[examples, height, width, channels]``.
      train_labels: int32 ``[examples]``, from 0.
      test_images: as ``train_images``.
      test_labels: as ``train_labels``.
      num_classes: number of classes.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int


def load(
    name: str, data_dir: str | os.PathLike | None = None, *, download: bool = True
) -> Dataset:
    """Loads a data set.

    ``"digits"`` comes with scikit-learn: 8 x 8 grey levels ``v`` of 0 to 16 as
    ``(255 v + 8) // 16``, 1,500 examples for training and 297 for testing, drawn once
    and for all with equal shares of every class.

    The others are read from the folder that tensorflow-datasets prepares, in its order
    (a fixed shuffle). If there is none yet, it is prepared

    1. from the files that the makers of the data publish, if they lie in
       ``data_dir/<name>`` or in ``data_dir`` (by checksum, since MNIST's and
       Fashion-MNIST's have the same names);
    2. else by tensorflow-datasets, which downloads them, if TensorFlow is installed.

    ``"imagenet32"`` is ImageNet at 32 x 32 (``imagenet_resized/32x32``), with the
    validation images for testing, as those of the test have no labels. It takes 4 GB of
    memory, and only 2. prepares it (from files in ``data_dir/imagenet32``, if there).

    Args:
      name: one of ``NAMES``.
      data_dir: the data folder of tensorflow-datasets; by default its own,
        ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
      download: whether 2. is allowed.

    Returns:
      The data set.

    Raises:
      ValueError: for an unknown name; if the data cannot be found or read, or is not
        what its makers publish; if another process is preparing it. Nothing is left
        half prepared.

    Example:
      >>> data = load("digits")
      >>> data.train_images.shape, data.test_labels.shape, data.num_classes
      ((1500, 8, 8, 1), (297,), 10)
    """
    if name not in NAMES:
        hint = spelling.hint(name, NAMES)
        raise ValueError(f"name must be one of {list(NAMES)}, got {name!r}{hint}")
    if name == "digits":
        return _digits()
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    data_dir = pathlib.Path(data_dir).expanduser()
    folder = data_dir / makers.MAKERS[name].prepared
    if not folder.exists():
        folder = _prepare(name, data_dir, download)
    try:
        return _read(folder, makers.MAKERS[name].test)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{folder} cannot be read: {error}\nIt must hold what tensorflow-datasets "
            "prepares in array_record format. Delete it, or choose another data_dir."
        ) from error


def _digits() -> Dataset:
    from sklearn import datasets, model_selection

    digits = datasets.load_digits()
    images = ((255 * digits.images + 8) // 16).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    train_images, test_images, train_labels, test_labels = (
        model_selection.train_test_split(
            images, labels, test_size=297, stratify=labels, random_state=0
        )
    )
    return Dataset(train_images, train_labels, test_images, test_labels, 10)


def _prepare(name: str, data_dir: pathlib.Path, download: bool) -> pathlib.Path:
    """Prepares the data set and returns the prepared folder."""
    maker, places = makers.MAKERS[name], makers.find(name, data_dir)
    published = bool(places and maker.files)
    if not published and not (download and _has_tensorflow()):
        raise ValueError(f"{name} is not in {data_dir}.\n{_ways(name, data_dir)}")
    data_dir.mkdir(parents=True, exist_ok=True)
    folder = data_dir / maker.prepared
    with locks.held(data_dir / f".{name}.lock", f"{name} in {data_dir}"):
        if folder.exists():  # another process has prepared it meanwhile
            return folder
        if published:
            makers.prepare(name, places, data_dir)
            return folder
        try:
            return _prepare_officially(maker, data_dir, (*places, data_dir / name)[0])
        except Exception as error:  # what it raises has no narrower class in common
            raise ValueError(
                f"tensorflow-datasets cannot prepare {name}: {error}\n"
                f"{_ways(name, data_dir)}"
            ) from error


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


def _prepare_officially(
    maker: makers.Maker, data_dir: pathlib.Path, manual_dir: pathlib.Path
) -> pathlib.Path:
    import tensorflow_datasets as tfds

    name = maker.prepared.rpartition("/")[0]
    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    # What it finds in manual_dir it does not download.
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    builder.download_and_prepare(file_format="array_record", download_config=config)
    return pathlib.Path(builder.data_path)


def _ways(name: str, data_dir: pathlib.Path) -> str:
    """The ways to get a data set, for error messages."""
    maker = makers.MAKERS[name]
    urls = "".join(f"\n     {maker.url}{file}" for file in maker.downloads)
    also = "" if maker.files else " (and do 2, which will find them there)"
    return (
        "Any of these will do:\n"
        "  1. Copy the folder, prepared elsewhere by tensorflow-datasets in "
        f"array_record format, to\n     {data_dir / maker.prepared}\n"
        "  2. Let tensorflow-datasets download and prepare it, with download=True:\n"
        "     pip install tensorflow importlib_resources\n"
        f"  3. Put its makers' files into {data_dir / name}{also}:{urls}"
    )


def _read(folder: pathlib.Path, test: str) -> Dataset:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    classes = builder.info.features["label"].num_classes
    return Dataset(*_arrays(builder, "train"), *_arrays(builder, test), classes)


def _arrays(builder, split: str) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds
    from PIL import Image

    # Decoded by tensorflow-datasets, it takes half as long again.
    decoders = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split, decoders=decoders)
    images = np.empty((len(source), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    starts = tqdm.tqdm(
        range(0, len(source), BATCH),
        desc=f"{builder.name} {split}",
        unit="image",
        unit_scale=BATCH,
        disable=None,  # unless stderr is a terminal
    )
    for start in starts:
        records = source.__getitems__(range(start, min(start + BATCH, len(source))))
        for i, record in enumerate(records, start):
            image = Image.open(io.BytesIO(record["image"]))
            images[i] = np.asarray(image).reshape(images.shape[1:])
            labels[i] = record["label"]
    return images, labels
