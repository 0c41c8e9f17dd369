"""Checkpoints: what is read is what was saved, whatever happens to the files."""

import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from loplax.studies import checkpoints


def example(segment):
    rng = np.random.default_rng(segment)
    leaves = {
        "['a/b'].c": rng.normal(size=[3, 50]).astype(np.float32),
        "['key']": rng.integers(0, 2**32, [3, 2], np.uint32),
        "": np.asarray(jnp.arange(3, dtype=jnp.bfloat16)),
        "none": np.zeros([3, 0], np.int32),
        "flag": np.array([True, False, True]),
    }
    return checkpoints.Checkpoint("bp", np.arange(3), segment, leaves)


def equal(found, saved):
    assert (found.method, found.segment) == (saved.method, saved.segment)
    np.testing.assert_array_equal(found.runs, saved.runs)
    assert list(found.leaves) == list(saved.leaves)
    for name, leaf in saved.leaves.items():
        assert found.leaves[name].dtype == leaf.dtype
        np.testing.assert_array_equal(found.leaves[name], leaf)


def test_the_last_two_are_kept_newest_first(tmp_path):
    assert list(checkpoints.read(tmp_path / "checkpoints")) == []
    for segment in range(1, 12):
        checkpoints.save(tmp_path / "checkpoints", example(segment))
    found = list(checkpoints.read(tmp_path / "checkpoints"))
    assert [checkpoint.segment for checkpoint in found] == [11, 10]
    for checkpoint in found:
        equal(checkpoint, example(checkpoint.segment))


ARRAYS = hnp.arrays(
    st.sampled_from(["float32", "float64", "int8", "uint32", "bool"]),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
)


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.text(max_size=5), ARRAYS, max_size=3))
def test_any_state_comes_back_bit_for_bit(tmp_path_factory, leaves):
    folder = tmp_path_factory.mktemp("any")
    saved = checkpoints.Checkpoint("bp", np.array([1]), 2, leaves)
    checkpoints.save(folder, saved)
    equal(next(checkpoints.read(folder)), saved)


def flip(path):
    data = path.read_bytes() or b"?"
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1] or b"?")


@pytest.mark.parametrize("damage", [flip, truncate, pathlib.Path.unlink])
def test_the_one_before_is_read_whichever_file_is_damaged(tmp_path, damage):
    """Each file of the newest checkpoint in turn."""
    for segment in (1, 2):
        checkpoints.save(tmp_path, example(segment))
    files = [path for path in (tmp_path / "2").rglob("*") if path.is_file()]
    for path in files:
        whole = path.read_bytes()
        damage(path)
        with pytest.warns(UserWarning, match="checkpoint .*2 is damaged"):
            equal(next(checkpoints.read(tmp_path)), example(1))
        path.write_bytes(whole)
    equal(next(checkpoints.read(tmp_path)), example(2))


@pytest.mark.parametrize("damage", [flip, truncate])
def test_a_damaged_description_is_not_believed(tmp_path, damage):
    for segment in (1, 2):
        checkpoints.save(tmp_path, example(segment))
    damage(tmp_path / "2.json")
    with pytest.warns(UserWarning, match="checkpoint .*2 is damaged"):
        equal(next(checkpoints.read(tmp_path)), example(1))


def test_a_save_that_was_broken_off_is_no_checkpoint(tmp_path):
    """It is left out without a word, and the next save clears it away."""
    for segment in (1, 2):
        checkpoints.save(tmp_path, example(segment))
    (tmp_path / "2.json").unlink()
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    equal(next(checkpoints.read(tmp_path)), example(1))
    checkpoints.save(tmp_path, example(3))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["1", "1.json", "2", "2.json"]
    equal(next(checkpoints.read(tmp_path)), example(3))


def test_a_failed_save_leaves_the_earlier_ones(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, example(1))

    def full(path, *_, **__):
        (path.parent / f"{path.name}.orbax-checkpoint-tmp").mkdir()
        raise ValueError("RESOURCE_EXHAUSTED: no space left on device")

    monkeypatch.setattr(checkpoints.ocp, "save", full)
    with pytest.raises(OSError, match="could not save .*no space left"):
        checkpoints.save(tmp_path, example(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "1.json"]
    equal(next(checkpoints.read(tmp_path)), example(1))


def test_what_does_not_fit_is_refused_early(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="no space left: it takes .* 100 are free"):
        checkpoints.save(tmp_path, example(1))
