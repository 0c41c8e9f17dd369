"""States on disk: what is read is what was saved, whatever happens to the files."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from loplax.studies import checkpoints, pieces

ABOUT = pieces.About("bp", {"net": "mlp"}, {}, ["old"], 10.0, {"config": {}})


def group(unit=3):
    return pieces.Group(unit, ABOUT, {"rate": np.array([0.1, 1 / 3])}, np.arange(2))


@pytest.fixture
def study(tmp_path):
    (tmp_path / "states").mkdir()
    return tmp_path


def leaves(number):
    rng = np.random.default_rng(number)
    return {
        "['a/b'].c": rng.normal(size=[2, 50]).astype(np.float32),
        "['key']": rng.integers(0, 2**32, [2, 2], np.uint32),
        "": np.asarray(jnp.arange(2, dtype=jnp.bfloat16)),
        "flag": np.array([True, False]),
        "turned": np.arange(12.0).reshape(2, 2, 3).swapaxes(1, 2),
    }


def equal(found, saved):
    assert list(found) == list(saved)
    for name, leaf in saved.items():
        assert found[name].dtype == leaf.dtype
        np.testing.assert_array_equal(found[name], leaf)


def test_the_last_two_of_each_unit_are_kept(study):
    for number in range(4, 40, 4):
        for unit in (3, 12):
            checkpoints.save(study, group(unit), number, leaves(number))
    names = [path.name for path in checkpoints.of_units(study)]
    assert names == [f"{u:06d}-{n:08d}.npz" for u in (3, 12) for n in (32, 36)]
    path = checkpoints.of_unit(study, 12)[-1]
    found = checkpoints.check(path)
    assert (found.group.unit, found.bin) == (12, 36)
    assert found.group.about == ABOUT and found.group.runs() == group(12).runs()
    assert found.leaves["['key']"] == ("uint32", (2,))
    equal(checkpoints.load(path), leaves(36))


ARRAYS = hnp.arrays(
    st.sampled_from(["float32", "float64", "int8", "uint32", "bool"]),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4),
)


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.text(max_size=5), ARRAYS, max_size=3))
def test_any_state_comes_back_bit_for_bit(tmp_path_factory, state):
    study = tmp_path_factory.mktemp("any")
    (study / "states").mkdir()
    checkpoints.save(study, group(), 2, state)
    equal(checkpoints.load(checkpoints.of_unit(study, 3)[0]), state)


def test_no_changed_byte_goes_unnoticed(study):
    """It is told, or was of no meaning."""
    checkpoints.save(study, group(), 2, leaves(0))
    (path,) = checkpoints.of_units(study)
    whole, told = path.read_bytes(), 0
    for place in range(0, len(whole), 13):
        data = bytearray(whole)
        data[place] ^= 1
        path.write_bytes(data)
        try:
            equal(checkpoints.load(path), leaves(0))
        except ValueError as error:
            assert "is damaged" in str(error)
            told += 1
    assert told > len(whole) / 13 / 2


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_half_a_file_is_damaged(study, length):
    checkpoints.save(study, group(), 2, leaves(0))
    (path,) = checkpoints.of_units(study)
    path.write_bytes(path.read_bytes()[:length])
    for read in (checkpoints.check, checkpoints.load):
        with pytest.raises(ValueError, match="is damaged"):
            read(path)


def test_a_failed_save_leaves_the_earlier_ones(study, monkeypatch):
    checkpoints.save(study, group(), 2, leaves(0))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left .*left as it was"):
        checkpoints.save(study, group(), 4, leaves(1))
    (path,) = checkpoints.of_units(study)
    equal(checkpoints.load(path), leaves(0))
