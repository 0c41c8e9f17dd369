"""The files in which the makers of image data publish it.

`prepare` turns them into what tensorflow-datasets makes of them, record for record, but
needs no TensorFlow.
"""

import gzip
import hashlib
import io
import pathlib
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Maker(NamedTuple):
    """What the makers of a data set publish, and where tensorflow-datasets puts it.

    Attributes:
      prepared: the prepared folder, below the data folder.
      url: where ``downloads`` are.
      downloads: what there is to download.
      test: name of the test split in tensorflow-datasets.
      folder: where an unpacked archive has its files.
      files: per split, the size and MD5 of every file with data, unpacked.
      labels: number of classes of every label, in the order of the files.
      read: ``(maker, split, contents of its files) -> arrays by feature``.
      register: where one must register before downloading, if one must.
      sides: of photographs, which differ in size: the shorter side after scaling, and
        that of the square cut out of its centre.
    """

    prepared: str
    url: str
    downloads: tuple[str, ...]
    test: str = "test"
    folder: str = ""
    files: Mapping[str, Mapping[str, tuple[int, str]]] = {}
    labels: Mapping[str, int] = {}
    read: Callable | None = None
    register: str = ""
    sides: tuple[int, int] | None = None


def _read_idx(maker: Maker, split: str, contents: Sequence[bytes]) -> dict:
    def array(packed: bytes) -> np.ndarray:
        data = gzip.decompress(packed)
        shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + shape.nbytes).reshape(shape)

    del maker, split
    images, labels = (array(packed) for packed in contents)
    return {"image": images[..., None], "label": labels}


def _read_cifar(maker: Maker, split: str, contents: Sequence[bytes]) -> dict:
    first = len(maker.labels)
    rows = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, first + 3072)
    images = rows[:, first:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = dict(zip(maker.labels, rows[:, :first].T, strict=True))
    ids = [f"{split}_{i:05d}" for i in range(len(rows))]
    return {"id": ids, "image": images} | labels


# The makers of Fashion-MNIST and CIFAR publish MD5s; those of MNIST are of the files of
# its first site. CIFAR's are of whole archives: those here are of the files inside, as
# listed by projects that check the archive first, such as rai-project/dldataset.
MNIST = Maker(
    prepared="mnist/3.0.1",
    url="https://storage.googleapis.com/cvdf-datasets/mnist/",
    downloads=(
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ),
    files={
        "train": {
            "train-images-idx3-ubyte.gz": (9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            "train-labels-idx1-ubyte.gz": (28881, "d53e105ee54ea40749a09fcbcd1e9432"),
        },
        "test": {
            "t10k-images-idx3-ubyte.gz": (1648877, "9fb629c4189551a2d022fa330f9573f3"),
            "t10k-labels-idx1-ubyte.gz": (4542, "ec29112dd5afa0611ce80d1b7f02629c"),
        },
    },
    labels={"label": 10},
    read=_read_idx,
)

FASHION_MNIST = MNIST._replace(
    prepared="fashion_mnist/3.0.1",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    files={
        "train": {
            "train-images-idx3-ubyte.gz": (
                26421880,
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            ),
            "train-labels-idx1-ubyte.gz": (29515, "25c81989df183df01b3e8a0aad5dffbe"),
        },
        "test": {
            "t10k-images-idx3-ubyte.gz": (4422102, "bef4ecab320f06d8554ea6380940ec79"),
            "t10k-labels-idx1-ubyte.gz": (5148, "bb300cfdad3c16e7a12a480ee83cd310"),
        },
    },
)

CIFAR10 = Maker(
    prepared="cifar10/3.0.2",
    url="https://www.cs.toronto.edu/~kriz/",
    downloads=("cifar-10-binary.tar.gz",),
    folder="cifar-10-batches-bin",
    files={
        "train": {
            "data_batch_1.bin": (30730000, "5dd7e06a14cb22eb9f671a540d1b7c25"),
            "data_batch_2.bin": (30730000, "5ea93a67294ea407fff1d09f752e9692"),
            "data_batch_3.bin": (30730000, "942cd6a4bcdd0dd3c604fbe906cb4421"),
            "data_batch_4.bin": (30730000, "ae636b3ba5c66a11e91e8cb52e771fcb"),
            "data_batch_5.bin": (30730000, "53f37980c15c3d472c316c40844f3f0d"),
        },
        "test": {"test_batch.bin": (30730000, "803d5f7f4d78ea53de84dbe85f74fb6d")},
    },
    labels={"label": 10},
    read=_read_cifar,
)

CIFAR100 = CIFAR10._replace(
    prepared="cifar100/3.0.2",
    downloads=("cifar-100-binary.tar.gz",),
    folder="cifar-100-binary",
    files={
        "train": {"train.bin": (153700000, "6172c7755cfe09b2fe270c85cebc1b15")},
        "test": {"test.bin": (30740000, "4499cfba6c016c1be1438163640a0898")},
    },
    labels={"coarse_label": 20, "label": 100},
)

IMAGENET32 = Maker(
    prepared="imagenet_resized/32x32/0.1.0",
    url="https://image-net.org/data/downsample/",
    downloads=("Imagenet32_train_npz.zip", "Imagenet32_val_npz.zip"),
    test="validation",
)

IMAGENET2012 = Maker(
    prepared="imagenet2012/5.1.0",
    url="",  # each account has its own
    downloads=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
    test="validation",
    register="https://image-net.org/download-images",
    sides=(256, 224),
)

PLACES365_SMALL = Maker(
    prepared="places365_small/2.1.0",
    url="http://data.csail.mit.edu/places/places365/",
    downloads=(
        "train_256_places365standard.tar",
        "val_256.tar",
        "test_256.tar",
        "filelist_places365-standard.tar",
    ),
    test="validation",
    sides=(256, 224),
)

MAKERS = {
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "imagenet32": IMAGENET32,
    "imagenet2012": IMAGENET2012,
    "places365_small": PLACES365_SMALL,
}


def find(name: str, data_dir: pathlib.Path) -> list[pathlib.Path]:
    """Which of ``data_dir/<name>`` and ``data_dir`` have files with the makers' names.

    They may be another's: those of MNIST and Fashion-MNIST have the same names.
    """
    maker = MAKERS[name]
    unpacked = lambda place: maker.folder and (place / maker.folder).is_dir()
    packed = lambda place: any((place / file).exists() for file in maker.downloads)
    return [p for p in (data_dir / name, data_dir) if unpacked(p) or packed(p)]


def _unpack(archive: pathlib.Path) -> dict[str, bytes]:
    try:
        with tarfile.open(archive) as tar:
            return {
                pathlib.PurePosixPath(member.name).name: tar.extractfile(member).read()
                for member in tar
                if member.isfile()
            }
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error


def _sources(maker: Maker, places: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
    """Folders with files, and archives of them."""
    for place in places:
        if (place / maker.folder).is_dir():
            yield place / maker.folder
        if maker.folder and (place / maker.downloads[0]).exists():
            yield place / maker.downloads[0]


def _first_right(maker: Maker, places: Sequence[pathlib.Path]) -> dict:
    """The contents of the first source that is the makers'."""
    wrong = []
    for source in _sources(maker, places):
        try:
            return _contents(maker, source)
        except ValueError as error:
            wrong.append(str(error))
    raise ValueError("\n".join(wrong))


def _contents(maker: Maker, source: pathlib.Path) -> dict[str, list[bytes]]:
    """The contents of all files by split, once their checksums are found right."""
    if source.is_dir():
        names = [name for files in maker.files.values() for name in files]
        paths = [source / name for name in names if (source / name).exists()]
        found = {path.name: path.read_bytes() for path in paths}
    else:
        found = _unpack(source)

    def checked(name: str, size: int, md5: str) -> bytes:
        url = maker.url + (name if name in maker.downloads else maker.downloads[0])
        if name not in found:
            raise ValueError(f"{name} is missing in {source}. Get it from {url}")
        digest = hashlib.md5(found[name], usedforsecurity=False).hexdigest()
        if digest != md5:
            raise ValueError(
                f"{name} in {source} is not as published: it has {len(found[name])} "
                f"bytes and MD5 {digest}, but must have {size} bytes and MD5 {md5}. "
                f"Get it from {url}"
            )
        return found[name]

    return {
        split: [checked(name, *expected) for name, expected in files.items()]
        for split, files in maker.files.items()
    }


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(image.squeeze()).save(packed, format="png")
    return packed.getvalue()


def prepare(name: str, places: Sequence[pathlib.Path], data_dir: pathlib.Path) -> None:
    """Prepares the makers' files for tensorflow-datasets, without TensorFlow.

    Args:
      name: a data set of which `MAKERS` knows the files.
      places: folders with the files, or with the archive; the first right ones count.
      data_dir: where to write the prepared folder; whole or not at all.

    Raises:
      ValueError: if everywhere a file is missing or not the makers', before anything is
        written.
    """
    import tensorflow_datasets as tfds

    maker = MAKERS[name]
    splits = {
        split: maker.read(maker, split, contents)
        for split, contents in _first_right(maker, places).items()
    }
    features = {"image": tfds.features.Image(shape=splits["train"]["image"].shape[1:])}
    for label, classes in maker.labels.items():
        features[label] = tfds.features.ClassLabel(num_classes=classes)
    if "id" in splits["train"]:
        features["id"] = tfds.features.Text()
    official_name, official_version = maker.prepared.split("/")

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = official_name
        VERSION = tfds.core.Version(official_version)
        # To infer where this code lies, importlib_resources would be needed.
        code_path = None

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                homepage=maker.url,
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {s: self._generate_examples(split) for s, split in splits.items()}

        def _generate_examples(self, split):
            for i, values in enumerate(zip(*split.values(), strict=True)):
                record = dict(zip(split, values, strict=True))
                # Given an array, tensorflow-datasets would compress it by TensorFlow.
                yield i, record | {"image": _png(record["image"])}

    builder = Builder(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(file_format="array_record")
