"""Data sets of labelled images, as arrays in memory."""

import importlib.util
import os
import pathlib
from typing import NamedTuple

import numpy as np

from loplax import checks, extras, locks
from loplax.streams import arrays, makers, records

NAMES = ("digits", *makers.MAKERS)


class Dataset(NamedTuple):
    """Labelled images.

    Attributes:
      train_images: uint8 ``[examples, height, width, channels]``; from a file of one's
        own whatever its examples are.
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
    name: str,
    data_dir: str | os.PathLike | None = None,
    *,
    download: bool = True,
    train: records.Selection | None = None,
    test: records.Selection | None = None,
    sides: tuple[int, int] | None = None,
) -> Dataset:
    """Loads a data set.

    ``"digits"`` comes with scikit-learn: 8 x 8 grey levels ``v`` of 0 to 16 as
    ``(255 v + 8) // 16``, 1,500 examples for training and 297 for testing, drawn once
    and for all with equal shares of every class.

    A name that ends in ``.npz`` is a file of one's own, in ``data_dir`` if it is given,
    with the arrays ``train_x`` and ``test_x``, ``[examples, ...]``, uint8 or floating
    point, and ``train_y`` and ``test_y``, integers from 0: features, for example.

    The others are read from the folder that tensorflow-datasets prepares, in its order
    (a fixed shuffle). If there is none yet, it is prepared

    1. from the files that the makers of the data publish, if they lie in
       ``data_dir/<name>`` or in ``data_dir`` (by checksum, since MNIST's and
       Fashion-MNIST's have the same names);
    2. else by tensorflow-datasets, which downloads them, if TensorFlow is installed.

    Only 2. prepares those of ImageNet and Places365 (from files in ``data_dir/<name>``,
    if there). They are tested on their validation images, as those of the test have no
    labels:

    - ``"imagenet32"`` is ImageNet at 32 x 32 (``imagenet_resized/32x32``), 4 GB.
    - ``"imagenet2012"`` and ``"places365_small"`` are photographs. Their shorter side
      is scaled to 256 pixels, and the central 224 x 224 are kept, 150,528 bytes an
      image: 193 GB for all of ImageNet's to train on, 29 GB for 192 of each class, and
      7.5 GB for its 50,000 to test on. ImageNet's files must be in place, as one must
      register to download them.

    Args:
      name: one of ``NAMES``, or a file.
      data_dir: the data folder of tensorflow-datasets; by default its own,
        ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
      download: whether 2. is allowed.
      train: gives the indices of the training examples that are wanted, from
        everything in the records but the images: ``"label"``, and ``"file_name"`` or
        ``"filename"`` of photographs. By default all are. Records are read twice then,
        but only the images that are wanted are decoded.
      test: the same for testing.
      sides: of photographs, others than 256 and 224.

    Returns:
      The data set, in the order of the indices.

    Raises:
      ValueError: for an unknown name, a file that is not there or not of that kind,
        indices that there are not, or sides that cannot be; if the data cannot be found
        or read, or is not what its makers publish; if another process is preparing it.
        Nothing is left half prepared.

    Example:
      >>> data = load("digits")
      >>> data.train_images.shape, data.test_labels.shape, data.num_classes
      ((1500, 8, 8, 1), (297,), 10)
      >>> from loplax import streams
      >>> few = lambda records: streams.first_of_class(records["label"], 20)
      >>> load("digits", train=few).train_labels.shape
      (200,)
    """
    if str(name).endswith(".npz"):
        _check_sides(name, sides, None)
        found = arrays.read(pathlib.Path(data_dir or "", name).expanduser())
        own = Dataset(*found, num_classes=int(found[1].max()) + 1)
        return _selected(own, train, test)
    checks.one_of("name", name, NAMES)
    if name == "digits":
        _check_sides(name, sides, None)
        return _selected(_digits(), train, test)
    maker = makers.MAKERS[name]
    _check_sides(name, sides, maker.sides)
    with extras.needed("data", repr(name)):
        importlib.import_module("tensorflow_datasets")
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    data_dir = pathlib.Path(data_dir).expanduser()
    folder = data_dir / maker.prepared
    if not folder.exists():
        folder = _prepare(name, data_dir, download)
    return _read(folder, maker.test, train, test, sides or maker.sides)


def _check_sides(name: str, sides, known: tuple[int, int] | None) -> None:
    if sides is None:
        return
    if known is None:
        raise ValueError(f"{name} has no photographs to scale; got sides {sides}.")
    whole = all(isinstance(side, int) for side in sides)
    if len(sides) != 2 or not whole or not sides[0] >= sides[1] >= 1:
        raise ValueError(
            "sides must be two whole numbers, the shorter side after scaling and that "
            f"of the square cut out, at least 1 and at most as large; got {sides}."
        )


def _selected(data: Dataset, train, test) -> Dataset:
    def some(
        select, images: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if select is None:
            return images, labels
        indices = records.chosen(select, {"label": labels})
        return images[indices], labels[indices]

    learned = some(train, data.train_images, data.train_labels)
    tested = some(test, data.test_images, data.test_labels)
    return Dataset(*learned, *tested, data.num_classes)


def _digits() -> Dataset:
    with extras.needed("studies", "the digits"):
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
    if maker.register:  # what is not there cannot be downloaded
        whole = lambda place: all((place / file).exists() for file in maker.downloads)
        places = [place for place in places if whole(place)]
    published = bool(places and maker.files)
    official = download and _has_tensorflow() and (places or not maker.register)
    if not published and not official:
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
    files = "".join(f"\n     {maker.url}{file}" for file in maker.downloads)
    by_tensorflow = "     pip install tensorflow importlib_resources\n"
    copy = (
        "Any of these will do:\n"
        "  1. Copy the folder, prepared elsewhere by tensorflow-datasets in "
        f"array_record format, to\n     {data_dir / maker.prepared}\n"
    )
    if maker.register:
        return (
            f"{copy}  2. Register at {maker.register}, put these files into "
            f"{data_dir / name},\n     and let tensorflow-datasets prepare them, with "
            f"download=True:\n{by_tensorflow.rstrip()}{files}"
        )
    also = "" if maker.files else " (and do 2, which will find them there)"
    return (
        f"{copy}  2. Let tensorflow-datasets download and prepare it, with "
        f"download=True:\n{by_tensorflow}"
        f"  3. Put its makers' files into {data_dir / name}{also}:{files}"
    )


def _read(folder: pathlib.Path, split: str, train, test, sides) -> Dataset:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        trained = records.arrays(builder, "train", train, sides)
        tested = records.arrays(builder, split, test, sides)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{folder} cannot be read: {error}\nIt must hold what tensorflow-datasets "
            "prepares in array_record format. Delete it, or choose another data_dir."
        ) from error
    classes = builder.info.features["label"].num_classes
    return Dataset(*trained, *tested, classes)
