"""Data sets: digits, the makers' files, prepared folders, and all that can be wrong."""

import gzip
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import types

import numpy as np
import pytest

from loplax import locks
from loplax.streams import datasets, makers

RAW = ("mnist", "fashion_mnist", "cifar10", "cifar100")
SIZES = {"train": 40, "test": 15}


@pytest.fixture(autouse=True)
def without_tensorflow(monkeypatch):
    monkeypatch.setattr(datasets, "_has_tensorflow", lambda: False)


def idx(array):
    """The format of the MNIST files: two zeros, type, dimensions, sizes, values."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def invented(name):
    """Random arrays per split, and files that hold them as the makers' do."""
    rng = np.random.default_rng(0)
    arrays, files = {}, {}
    for split, n in SIZES.items():
        names = list(makers.MAKERS[name].files[split])
        labels = {
            label: rng.integers(classes, size=n, dtype=np.uint8)
            for label, classes in makers.MAKERS[name].labels.items()
        }
        shape = (28, 28, 1) if "mnist" in name else (32, 32, 3)
        images = rng.integers(256, size=(n, *shape), dtype=np.uint8)
        arrays[split] = {"image": images} | labels
        if "mnist" in name:
            files |= dict(
                zip(names, map(idx, [images[..., 0], *labels.values()]), strict=True)
            )
        else:
            planes = images.transpose(0, 3, 1, 2).reshape(n, -1)
            rows = np.concatenate([np.stack([*labels.values()], 1), planes], axis=1)
            parts = np.split(rows, len(names))
            files |= dict(zip(names, (part.tobytes() for part in parts), strict=True))
    return arrays, files


@pytest.fixture
def published(monkeypatch):
    """``name -> (arrays, files)``: as if the makers had published invented files."""

    def publish(name):
        arrays, files = invented(name)
        maker = makers.MAKERS[name]
        checks = {
            split: {
                f: (len(files[f]), hashlib.md5(files[f]).hexdigest()) for f in names
            }
            for split, names in maker.files.items()
        }
        monkeypatch.setitem(makers.MAKERS, name, maker._replace(files=checks))
        return arrays, files

    return publish


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def pack(archive, files, scratch):
    folder = put(scratch / "unpacked", files)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname="any-folder")
    return archive


def in_order(images, labels):
    """One row of bytes per example, sorted: the order does not count."""
    flat = np.column_stack([images.reshape(len(images), -1), labels])
    return flat[np.lexsort(flat.T)]


def assert_holds(data, arrays):
    for split, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        assert images.shape == arrays[split]["image"].shape
        expected = in_order(arrays[split]["image"], arrays[split]["label"])
        np.testing.assert_array_equal(in_order(images, labels), expected)


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def listing(folder):
    """All that is in the folder but the one that tensorflow-datasets downloads to."""
    paths = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(path for path in paths if not path.startswith("downloads"))


# Digits.


def test_digits_are_those_of_scikit_learn_once_each():
    from sklearn.datasets import load_digits

    data = datasets.load("digits")
    assert data.train_images.shape == (1500, 8, 8, 1)
    assert data.test_images.shape == (297, 8, 8, 1)
    assert data.train_images.dtype == data.test_images.dtype == np.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == np.int32
    assert data.num_classes == 10
    # 16 levels become 255: to the nearest, halves up.
    grey = np.array([0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223])
    grey = np.array([*grey, 239, 255])
    digits = load_digits()
    expected = in_order(grey[digits.images.astype(int)], digits.target)
    images = np.concatenate([data.train_images, data.test_images])
    labels = np.concatenate([data.train_labels, data.test_labels])
    np.testing.assert_array_equal(in_order(images, labels), expected)


def test_digits_are_split_evenly_and_always_alike():
    data = datasets.load("digits")
    train, test = np.bincount(data.train_labels), np.bincount(data.test_labels)
    np.testing.assert_allclose(test, (train + test) * 297 / 1797, atol=1)
    assert data.train_labels[:10].tolist() == [4, 3, 1, 3, 9, 8, 1, 5, 5, 7]
    assert_equal(data, datasets.load("digits"))


def test_digits_of_a_class_look_alike():
    """The nearest class mean is right for about 9 in 10, as is known of these data."""
    data = datasets.load("digits")
    train = data.train_images.reshape(1500, -1).astype(float)
    means = np.stack([train[data.train_labels == k].mean(axis=0) for k in range(10)])
    away = data.test_images.reshape(297, 1, -1) - means
    nearest = np.argmin((away**2).sum(axis=-1), axis=1)
    assert 0.85 < np.mean(nearest == data.test_labels) < 0.95


# The makers' files.


@pytest.mark.parametrize("name", RAW)
def test_makers_files_come_back_record_for_record(name, tmp_path, published):
    arrays, files = published(name)
    raw = put(tmp_path / name / makers.MAKERS[name].folder, files)
    data = datasets.load(name, tmp_path)
    assert_holds(data, arrays)
    assert data.num_classes == (100 if name == "cifar100" else 10)
    # The prepared folder is enough from now on.
    for file in files:
        (raw / file).unlink()
    assert_equal(datasets.load(name, str(tmp_path)), data)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_prepared_records_are_those_of_tensorflow_datasets(name, tmp_path, published):
    """Its features, and its ids: split and place in the makers' files."""
    import tensorflow_datasets as tfds

    arrays, files = published(name)
    put(tmp_path / name / makers.MAKERS[name].folder, files)
    datasets.load(name, tmp_path)
    builder = tfds.builder_from_directory(tmp_path / name / "3.0.2")
    source = builder.as_data_source("test")
    assert sorted(record["id"] for record in source) == [
        f"test_{i:05d}".encode() for i in range(15)
    ]
    assert {*source[0]} == {"id", "image", *makers.MAKERS[name].labels}
    for record in source:
        i = int(record["id"][5:])
        for feature, values in arrays["test"].items():
            np.testing.assert_array_equal(record[feature], values[i])


@pytest.mark.parametrize("where", ["cifar100", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_archive_or_folder_in_either_place(where, packed, tmp_path, published):
    arrays, files = published("cifar100")
    place = put(tmp_path / "data" / where, {})
    if packed:
        pack(place / "cifar-100-binary.tar.gz", files, tmp_path)
    else:
        put(place / "cifar-100-binary", files)
    assert_holds(datasets.load("cifar100", tmp_path / "data"), arrays)


def truncated(content):
    return content[: len(content) // 2]


def altered(content):
    return content[:-1] + bytes([content[-1] ^ 1])


BAD_FILES = [
    ("mnist", "train-labels-idx1-ubyte.gz"),
    ("fashion_mnist", "t10k-images-idx3-ubyte.gz"),
    ("cifar10", "data_batch_3.bin"),
    ("cifar100", "test.bin"),
]


@pytest.mark.parametrize(("name", "file"), BAD_FILES)
def test_wrong_files_are_named_and_nothing_is_written(name, file, tmp_path, published):
    arrays, files = published(name)
    folder = put(tmp_path / name / makers.MAKERS[name].folder, files)
    good = files[file]
    for bad in (truncated(good), altered(good), b""):
        (folder / file).write_bytes(bad)
        before = listing(tmp_path)
        with pytest.raises(ValueError, match=file) as caught:
            datasets.load(name, tmp_path)
        for told in (len(bad), len(good), hashlib.md5(good).hexdigest(), "https?://"):
            caught.match(rf"\b{told}")
        assert listing(tmp_path) == before
    (folder / file).unlink()
    with pytest.raises(ValueError, match=f"{file} is missing"):
        datasets.load(name, tmp_path)
    (folder / file).write_bytes(good)
    assert_holds(datasets.load(name, tmp_path), arrays)


def test_one_data_set_in_the_place_of_another(tmp_path, published):
    """Files of the same names lie in both places: those with the checksums are read."""
    arrays, files = published("mnist")
    _, own = published("fashion_mnist")
    others = {name: content + b"\0" for name, content in files.items()}
    put(tmp_path / "fashion_mnist", others)
    with pytest.raises(ValueError, match=r"fashion_mnist is not as published"):
        datasets.load("fashion_mnist", tmp_path)
    put(tmp_path, others)
    with pytest.raises(ValueError, match=r"(?s)fashion_mnist is not .*\n.* is not as"):
        datasets.load("fashion_mnist", tmp_path)
    put(tmp_path, own)
    assert_holds(datasets.load("fashion_mnist", tmp_path), arrays)


def test_an_archive_beside_a_damaged_folder(tmp_path, published):
    arrays, files = published("cifar100")
    pack(tmp_path / "cifar-100-binary.tar.gz", files, tmp_path)
    put(tmp_path / "cifar-100-binary", files | {"test.bin": b""})
    assert_holds(datasets.load("cifar100", tmp_path), arrays)


def test_bad_archives(tmp_path, published):
    _, files = published("cifar100")
    archive = pack(tmp_path / "cifar-100-binary.tar.gz", files, tmp_path)
    good = archive.read_bytes()
    for bad in (truncated(good), b"", b"<html>not found</html>"):
        archive.write_bytes(bad)
        with pytest.raises(
            ValueError, match=r"cifar-100-binary\.tar\.gz cannot be unp"
        ):
            datasets.load("cifar100", tmp_path)
    del files["test.bin"]
    shutil.rmtree(tmp_path / "unpacked")
    pack(archive, files, tmp_path)
    with pytest.raises(ValueError, match=r"test\.bin is missing in .*tar\.gz"):
        datasets.load("cifar100", tmp_path)


def test_interrupted_preparation_leaves_nothing(tmp_path, published, monkeypatch):
    arrays, files = published("mnist")
    put(tmp_path / "mnist", files)
    before, encode, made = listing(tmp_path), makers._png, []

    def full_disk(image):
        made.append(image)
        if len(made) > SIZES["train"] + 3:  # the training split is written by then
            raise OSError("no space left")
        return encode(image)

    with monkeypatch.context() as patch:
        patch.setattr(makers, "_png", full_disk)
        with pytest.raises(OSError, match="no space left"):
            datasets.load("mnist", tmp_path)
    assert listing(tmp_path) == before
    assert_holds(datasets.load("mnist", tmp_path), arrays)


# Prepared folders.


def test_default_folders(tmp_path, published, monkeypatch):
    arrays, files = published("mnist")
    put(tmp_path / "tensorflow_datasets" / "mnist", files)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    data = datasets.load("mnist")
    assert_holds(data, arrays)
    (tmp_path / "tensorflow_datasets").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    assert_equal(datasets.load("mnist"), data)


def test_one_process_prepares_a_data_set(tmp_path, published):
    """Another is told who does; afterwards it finds all prepared."""
    arrays, files = published("cifar10")
    put(tmp_path / "cifar-10-batches-bin", files)
    with (
        locks.held(tmp_path / ".cifar10.lock", "cifar10"),
        pytest.raises(ValueError, match="cifar10 in .* is in use by process"),
    ):
        datasets.load("cifar10", tmp_path)
    assert not (tmp_path / "cifar10").exists()
    assert_holds(datasets.load("cifar10", tmp_path), arrays)
    assert not (tmp_path / ".cifar10.lock").exists()


def test_imagenet32_is_tested_on_its_validation_split(tmp_path, published, monkeypatch):
    arrays, files = published("cifar10")
    maker = makers.MAKERS["cifar10"]
    splits = {"train": maker.files["train"], "validation": maker.files["test"]}
    monkeypatch.setitem(makers.MAKERS, "cifar10", maker._replace(files=splits))
    put(tmp_path / maker.folder, files)
    makers.prepare("cifar10", [tmp_path], tmp_path)
    prepared = tmp_path / "imagenet_resized" / "32x32" / "0.1.0"
    shutil.copytree(tmp_path / maker.prepared, prepared)
    assert_holds(datasets.load("imagenet32", tmp_path), arrays)


def tfrecord(folder):
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))


def shard_gone(folder):
    next(folder.glob("mnist-test*")).unlink()


def shard_cut(folder):
    shard = next(folder.glob("mnist-train*"))
    shard.write_bytes(truncated(shard.read_bytes()))


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("damage", [tfrecord, shard_gone, shard_cut, emptied])
def test_prepared_folders_that_cannot_be_read(damage, tmp_path, published):
    _, files = published("mnist")
    put(tmp_path / "mnist", files)
    datasets.load("mnist", tmp_path)
    damage(tmp_path / "mnist" / "3.0.1")
    with pytest.raises(
        ValueError, match=r"(?s)mnist/3\.0\.1 cannot be read.*Delete it"
    ):
        datasets.load("mnist", tmp_path)


# What there is to do if there are no data.


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", [*RAW, "imagenet32"])
def test_three_ways_are_told(name, download, tmp_path):
    with pytest.raises(ValueError, match=rf"{name} is not in") as caught:
        datasets.load(name, tmp_path, download=download)
    text, maker = str(caught.value), makers.MAKERS[name]
    assert str(tmp_path / maker.prepared) in text
    assert "pip install tensorflow importlib_resources" in text
    assert str(tmp_path / name) in text
    for file in maker.downloads:
        assert f"{maker.url}{file}" in text.split()
    assert listing(tmp_path) == []


def test_files_of_imagenet_are_for_tensorflow_only(tmp_path):
    put(tmp_path / "imagenet32", {"Imagenet32_train_npz.zip": b""})
    with pytest.raises(ValueError, match="and do 2, which will find them there"):
        datasets.load("imagenet32", tmp_path)


@pytest.mark.parametrize(
    ("name", "near"), [("cifar_10", "'cifar10'"), ("Digits", "'digits'"), (3, "got 3")]
)
def test_unknown_names(name, near, tmp_path):
    with pytest.raises(ValueError, match=near):
        datasets.load(name, tmp_path)


# With TensorFlow.


@pytest.fixture
def official(monkeypatch, published):
    """Makes the official builders work as if TensorFlow were there; records calls."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(datasets, "_has_tensorflow", lambda: True)
    calls = []

    def builder(name, *, data_dir, file_format):
        def download_and_prepare(*, file_format, download_config):
            calls.append((file_format, download_config))
            scratch = data_dir / "scratch"
            _, files = published("cifar10")
            put(scratch / "cifar-10-batches-bin", files)
            makers.prepare("cifar10", [scratch], data_dir)

        calls.append((name, data_dir, file_format))
        path = str(data_dir / "cifar10" / "3.0.2")
        return types.SimpleNamespace(
            download_and_prepare=download_and_prepare, data_path=path
        )

    monkeypatch.setattr(tfds, "builder", builder)
    return calls


def test_official_builder_is_asked_for_what_is_not_there(tmp_path, official):
    data = datasets.load("cifar10", tmp_path)
    assert len(data.train_labels) == SIZES["train"]
    (built, (file_format, config)) = official
    assert built == ("cifar10", tmp_path, "array_record")
    assert file_format == "array_record"
    assert not config.try_download_gcs
    assert config.manual_dir == tmp_path / "cifar10"
    # Once only.
    assert_equal(datasets.load("cifar10", tmp_path), data)
    assert len(official) == 2


@pytest.mark.parametrize("where", ["imagenet32", "."])
def test_official_builder_is_shown_the_files_of_imagenet(where, tmp_path, official):
    put(tmp_path / where, {"Imagenet32_val_npz.zip": b"not looked at here"})
    with pytest.raises(ValueError, match="validation"):  # the mock has a test split
        datasets.load("imagenet32", tmp_path)
    assert official[0][0] == "imagenet_resized/32x32"
    assert official[1][1].manual_dir == tmp_path / where


@pytest.mark.parametrize("download", [True, False])
def test_makers_files_need_no_official_builder(download, tmp_path, official, published):
    arrays, files = published("mnist")
    put(tmp_path / "mnist", files)
    assert_holds(datasets.load("mnist", tmp_path, download=download), arrays)
    assert not official


@pytest.mark.parametrize("name", ["mnist", "imagenet32"])
def test_without_download_the_official_builder_is_not_asked(name, tmp_path, official):
    with pytest.raises(ValueError, match=f"{name} is not in"):
        datasets.load(name, tmp_path, download=False)
    assert not official


def test_failure_of_the_official_builder(tmp_path, official, monkeypatch):
    import tensorflow_datasets as tfds

    def offline(*args, **kwargs):
        raise ConnectionError("name or service not known")

    monkeypatch.setattr(tfds, "builder", offline)
    with pytest.raises(ValueError, match="not known\nAny of these") as caught:
        datasets.load("mnist", tmp_path)
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_tensorflow_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not datasets._has_tensorflow()
    put(tmp_path / "tensorflow", {"__init__.py": b"1 / 0"})  # it is not imported
    assert datasets._has_tensorflow()


def test_importing_loads_nothing_heavy():
    code = "import sys, loplax.streams.datasets\nprint(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"tensorflow_datasets", "sklearn", "PIL", "tensorflow", "array_record"}
    assert not heavy & set(ended.stdout.split())


# The real files.

ACTUAL = {
    "mnist": ([0.1307], [0.3081]),
    "fashion_mnist": ([0.2860], [0.3530]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": (
        [0.50707516, 0.48654887, 0.44091784],
        [0.26733429, 0.25643846, 0.27615047],
    ),
}


@pytest.mark.parametrize("name", RAW)
def test_actual_data(name, tmp_path):
    """Published means and deviations of the channels, and shares of the classes."""
    raw = os.environ.get("LOPLAX_TEST_DATA")
    if raw is None:
        pytest.skip("LOPLAX_TEST_DATA does not name a folder with the makers' files")
    places = makers.find(name, pathlib.Path(raw).resolve())
    if not places:
        pytest.skip(f"LOPLAX_TEST_DATA has no {name}")
    makers.prepare(name, places, tmp_path)
    data = datasets.load(name, tmp_path)
    classes = data.num_classes
    for labels, total in (
        (data.train_labels, 60_000 if "mnist" in name else 50_000),
        (data.test_labels, 10_000),
    ):
        counts = np.bincount(labels, minlength=classes)
        assert counts.sum() == total
        if name != "mnist":
            assert np.all(counts == total // classes)
    if name == "mnist":
        assert np.bincount(data.train_labels).tolist() == [
            *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
        ]
    mean, deviation = ACTUAL[name]
    level = np.arange(256) / 255
    for channel, (m, d) in enumerate(zip(mean, deviation, strict=True)):
        share = np.bincount(data.train_images[..., channel].ravel(), minlength=256)
        share = share / share.sum()
        found = share @ level, np.sqrt(share @ level**2 - (share @ level) ** 2)
        np.testing.assert_allclose(found, (m, d), atol=6e-5)
