"""Examples of one's own: what a file holds is what is learned, or it is refused."""

import numpy as np
import pytest

from loplax.streams import arrays, datasets

RNG = np.random.default_rng(0)
GOOD = {
    "train_x": RNG.normal(size=(6, 4)),
    "train_y": np.array([0, 1, 2, 0, 1, 2]),
    "test_x": RNG.normal(size=(3, 4)),
    "test_y": np.array([2, 0, 1], np.uint8),
}


@pytest.fixture
def written(tmp_path):
    """``(name=array) -> path`` of a good file with others, or without those None."""

    def write(**changes):
        kept = {n: x for n, x in (GOOD | changes).items() if x is not None}
        np.savez(tmp_path / "own.npz", **kept)
        return tmp_path / "own.npz"

    return write


def test_a_file_is_a_data_set(written):
    path = written(more=np.zeros(1))
    found = datasets.load("own.npz", path.parent)
    assert found.num_classes == 3
    for field, name in zip(found, arrays.NAMES, strict=False):
        np.testing.assert_array_equal(field, GOOD[name].astype(field.dtype))
    assert [x.dtype.name for x in found[:4]] == ["float32", "int32"] * 2
    again = datasets.load(
        str(path), train=lambda records: records["label"].nonzero()[0]
    )
    np.testing.assert_array_equal(again.train_labels, [1, 2, 1, 2])
    np.testing.assert_array_equal(again.train_images, found.train_images[[1, 2, 4, 5]])


def test_images_stay_bytes(written):
    images = {
        n: RNG.integers(256, size=(k, 2, 2, 1), dtype=np.uint8)
        for n, k in (("train_x", 6), ("test_x", 3))
    }
    found = arrays.read(written(**images))
    assert found[0].dtype == found[2].dtype == np.uint8
    np.testing.assert_array_equal(found[2], images["test_x"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_y": None, "test_x": None}, "own.npz lacks train_y, test_x"),
        ({"train_y": GOOD["train_y"][:5]}, r"train_y must have a label.*6.*\(5,\)"),
        ({"test_y": GOOD["test_y"][:, None]}, r"test_y must have a label.*\(3, 1\)"),
        ({"train_y": GOOD["train_y"] + 0.0}, "train_y must be integers.* float64"),
        ({"train_y": np.array(list("abcabc"))}, "train_y must be integers.* <U1"),
        ({"train_y": GOOD["train_y"] - 1}, "train_y must be integers from 0, got -1"),
        (
            {"test_y": GOOD["test_y"] + 1},
            "test_y has the class 3, train_y none above 2",
        ),
        ({"train_x": np.zeros(6)}, r"train_x must be \[examples, \.\.\.\], got \(6,\)"),
        ({"train_x": np.zeros((0, 4))}, r"train_x must be .* got \(0, 4\)"),
        ({"train_x": np.zeros((6, 5))}, r"must be alike, got \(\(5,\), 'float32'\)"),
        ({"train_x": np.zeros((6, 4), np.uint8)}, "must be alike, got .*'uint8'"),
        (
            {"test_x": np.zeros((3, 4), int)},
            "test_x must be uint8 or floats, got int64",
        ),
        ({"test_x": np.full((3, 4), np.nan)}, "test_x has values that are not finite"),
        ({"test_x": np.full((3, 4), 1e300)}, "test_x has values that are not finite"),
        ({"test_x": np.array([[None] * 4] * 3)}, "own.npz cannot be read: .*pickle"),
    ],
)
def test_what_is_not_such_a_file_is_refused(written, changes, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(str(written(**changes)))


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no\.npz is not there, or no \.npz file"):
        datasets.load("no.npz", tmp_path)
    (tmp_path / "text.npz").write_text("features")
    with pytest.raises(ValueError, match=r"text\.npz is not there, or no \.npz file"):
        datasets.load("text.npz", tmp_path)
    with pytest.raises(ValueError, match="no photographs"):
        datasets.load("no.npz", tmp_path, sides=(2, 1))


def test_damage_is_said(written):
    path = written()
    damaged = bytearray(path.read_bytes())
    damaged[100:140] = bytes(40)
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"own\.npz cannot be read"):
        datasets.load(str(path))
