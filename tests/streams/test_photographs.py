"""Photographs as tensorflow-datasets prepares them: of many sizes, more than fit."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from loplax import streams
from loplax.streams import datasets, makers, records
from tests.streams.photographs import CLASSES, FILE, photographs, prepare

SIDES = (10, 8)


@pytest.fixture(autouse=True)
def without_tensorflow(monkeypatch):
    monkeypatch.setattr(datasets, "_has_tensorflow", lambda: False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with both, and their records by file name."""
    folder, by_file = tmp_path_factory.mktemp("prepared"), {}
    for name in CLASSES:
        splits = {
            "train": photographs(name, 40, 0),
            "validation": photographs(name, 9, 1),
        }
        prepare(name, folder, splits | {"test": photographs(name, 2, 2)})
        by_file[name] = [
            {r[FILE[name]].encode(): r for r in split} for split in splits.values()
        ]
    return folder, by_file


def seen(folder, name, split="train"):
    """The names of the files in the stored order, by the public path."""
    order = []
    keep = lambda found: (order.extend(found[FILE[name]]), np.arange(1))[1]
    datasets.load(name, folder, sides=SIDES, **{split: keep})
    return order


def centre(encoded, resize, crop):
    """Scaled by Pillow, cut out by NumPy."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    short = min(image.size)
    image = image.resize(
        (image.width * resize // short, image.height * resize // short),
        Image.Resampling.BILINEAR,
    )
    top, left = (round((n - crop) / 2) for n in (image.height, image.width))
    return np.asarray(image)[top : top + crop, left : left + crop]


@pytest.mark.parametrize("name", CLASSES)
def test_photographs_come_scaled_and_cut_in_the_stored_order(name, folder):
    folder, by_file = folder
    data = datasets.load(name, folder, sides=SIDES)
    assert data.num_classes == CLASSES[name]
    assert data.train_images.shape == (40, 8, 8, 3)
    assert data.test_images.shape == (9, 8, 8, 3)
    assert {x.dtype for x in data[:4]} == {np.dtype(np.uint8), np.dtype(np.int32)}
    for part, split in enumerate(("train", "test")):
        images, labels = data[2 * part : 2 * part + 2]
        files = seen(folder, name, split)
        assert sorted(files) == sorted(by_file[name][part])
        for file, image, label in zip(files, images, labels, strict=True):
            record = by_file[name][part][file]
            assert label == record["label"]
            np.testing.assert_array_equal(image, centre(record["image"], *SIDES))


def test_by_default_sides_are_those_of_the_paper(folder):
    one = lambda found: np.arange(1)
    data = datasets.load("imagenet2012", folder[0], train=one, test=one)
    assert data.train_images.shape == data.test_images.shape == (1, 224, 224, 3)


def test_the_square_is_that_of_torchvision():
    """Known cases of Resize(4), CenterCrop(3): even sides are cut towards the start."""
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
    cut = lambda image, *sides: np.asarray(records.square(image, *sides))[..., 0]
    wide = Image.fromarray(ramp[:4])  # 8 x 4 already has the shorter side
    assert cut(wide, 4, 4).tolist() == ramp[:4, 2:6].tolist()
    assert cut(wide, 4, 3).tolist() == ramp[0:3, 2:5].tolist()  # 0.5 to 0, 2.5 to 2
    blocks = Image.fromarray(np.repeat(np.repeat(ramp, 2, 0), 2, 1))
    assert cut(blocks, 16, 2).tolist() == ramp[[3, 4]][:, [3, 4]].tolist()
    assert records.square(Image.new("RGB", (999, 375)), 256, 224).size == (224, 224)


def test_only_what_is_wanted_is_decoded(folder, monkeypatch):
    folder, _ = folder
    every = datasets.load("imagenet2012", folder, sides=SIDES)
    opened, square = [], records.square
    monkeypatch.setattr(
        records, "square", lambda *args: (opened.append(1), square(*args))[1]
    )
    found = datasets.load(
        "imagenet2012",
        folder,
        train=lambda found: streams.first_of_class(found["label"], 3),
        test=lambda found: streams.first_of_class(found["label"], 1),
        sides=SIDES,
    )
    kept = []
    for label in range(4):
        kept.extend(np.flatnonzero(every.train_labels == label)[:3])
    np.testing.assert_array_equal(found.train_labels, every.train_labels[sorted(kept)])
    np.testing.assert_array_equal(found.train_images, every.train_images[sorted(kept)])
    assert sorted(found.test_labels) == sorted(set(every.test_labels))
    assert len(opened) == len(found.train_labels) + len(found.test_labels) < 20


def test_records_are_read_in_parts(folder, monkeypatch):
    folder, _ = folder
    load = lambda: datasets.load(
        "places365_small", folder, sides=SIDES, train=lambda f: np.arange(39, 3, -3)
    )
    whole = load()
    monkeypatch.setattr(records, "BATCH", 7)
    for a, b in zip(load(), whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_published_list_is_followed(folder, tmp_path):
    folder, by_file = folder
    files = sorted(by_file["places365_small"][0])
    path = tmp_path / "Places_LT_train.txt"
    path.write_bytes(b"".join(b"/%s 1\r\n" % file for file in files[5:30:4]) + b"\n")
    keep = lambda found: streams.listed(found["filename"], path)
    data = datasets.load("places365_small", folder, train=keep, sides=SIDES)
    order = [f for f in seen(folder, "places365_small") if f in files[5:30:4]]
    assert len(order) == len(data.train_labels) == 7
    for file, image in zip(order, data.train_images, strict=True):
        encoded = by_file["places365_small"][0][file]["image"]
        np.testing.assert_array_equal(image, centre(encoded, *SIDES))
    path.write_text("data_256/0/001.jpg 0\ndata_256/9/001.jpg 0\n")
    with pytest.raises(ValueError, match=r"1 of 2 files .*'data_256/9/001\.jpg'"):
        datasets.load("places365_small", folder, train=keep, sides=SIDES)
    path.unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        datasets.load("places365_small", folder, train=keep, sides=SIDES)


@pytest.mark.parametrize("name", ["digits", "imagenet2012"])
@pytest.mark.parametrize(
    ("indices", "match"),
    [
        (np.zeros(0, int), "got none"),
        ([0, 9999], "0 to 9999"),
        ([-1], "-1 to -1"),
        ([0.0], "float64"),
        ([True], "bool"),
        ([[0]], r"\(1, 1\)"),
    ],
)
def test_indices_that_there_are_not(name, indices, match, folder):
    with pytest.raises(ValueError, match=match):
        datasets.load(name, folder[0], train=lambda found: np.array(indices))


@pytest.mark.parametrize("sides", [(8, 10), (8,), (8.0, 8.0), (0, 0)])
def test_sides_that_cannot_be(sides, tmp_path):
    with pytest.raises(
        ValueError, match=rf"at most as large; got {re.escape(str(sides))}"
    ):
        datasets.load("imagenet2012", tmp_path, sides=sides)


@pytest.mark.parametrize("name", ["digits", "mnist", "imagenet32"])
def test_sides_are_of_photographs(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name} has no photographs"):
        datasets.load(name, tmp_path, sides=SIDES)


def test_a_photograph_that_is_cut_off(folder, tmp_path):
    """Its label can be read; whoever does not want it need not mind."""
    good, bad = photographs("imagenet2012", 2, 0)
    bad["image"], bad["label"] = bad["image"][:400], 3
    good["label"] = 0
    prepare("imagenet2012", tmp_path, {"train": [good, bad], "validation": [good]})
    with pytest.raises(ValueError, match=r"(?s)imagenet2012/5\.1\.0 cannot be read"):
        datasets.load("imagenet2012", tmp_path, sides=SIDES)
    keep = lambda found: np.flatnonzero(found["label"] == 0)
    data = datasets.load("imagenet2012", tmp_path, train=keep, sides=SIDES)
    assert data.train_labels.tolist() == [0]


# What there is to do if there are no data.


@pytest.mark.parametrize("tensorflow", [True, False])
@pytest.mark.parametrize("files", [(), ("ILSVRC2012_img_train.tar",)])
def test_imagenet_must_be_downloaded_by_hand(files, tensorflow, tmp_path, monkeypatch):
    """Half of the files is not enough: tensorflow-datasets would prepare that half."""
    monkeypatch.setattr(datasets, "_has_tensorflow", lambda: tensorflow)
    for file in files:
        (tmp_path / file).touch()
    with pytest.raises(ValueError, match="imagenet2012 is not in") as caught:
        datasets.load("imagenet2012", tmp_path)
    text = str(caught.value)
    assert "Register at https://image-net.org/download-images" in text
    assert "pip install tensorflow importlib_resources" in text
    assert str(tmp_path / "imagenet2012/5.1.0") in text
    assert set(makers.MAKERS["imagenet2012"].downloads) <= set(text.split())
    assert "let tensorflow-datasets download" not in text.lower()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(files)


def test_places_can_be_downloaded(tmp_path):
    with pytest.raises(ValueError, match="places365_small is not in") as caught:
        datasets.load("places365_small", tmp_path)
    maker = makers.MAKERS["places365_small"]
    assert {maker.url + file for file in maker.downloads} <= {
        *str(caught.value).split()
    }
    assert "Let tensorflow-datasets download" in str(caught.value)


@pytest.mark.parametrize("where", ["imagenet2012", "."])
def test_the_official_builder_is_shown_the_files(where, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    asked = []
    builder = lambda name, **how: asked.append(name) or 1 / 0
    monkeypatch.setattr(datasets, "_has_tensorflow", lambda: True)
    monkeypatch.setattr(tfds, "builder", builder)
    (tmp_path / where).mkdir(exist_ok=True)
    for file in makers.MAKERS["imagenet2012"].downloads:
        (tmp_path / where / file).touch()
    with pytest.raises(ValueError, match="cannot prepare imagenet2012: division"):
        datasets.load("imagenet2012", tmp_path)
    assert asked == ["imagenet2012"]


def test_names_and_versions_are_those_of_tensorflow_datasets():
    """Read from its sources, as importing its builders needs TensorFlow."""
    import tensorflow_datasets as tfds

    for name in CLASSES:
        path = f"datasets/{name}/{name}_dataset_builder.py"
        text = tfds.core.tfds_path(path).read_text()
        version = re.search(r"VERSION = tfds\.core\.Version\(.([\d.]+).\)", text)[1]
        assert makers.MAKERS[name].prepared == f"{name}/{version}"
        assert f"{FILE[name]!r}" in text.replace('"', "'")
        assert all(file in text for file in makers.MAKERS[name].downloads)
