"""A study in shards: each has its part, and together they are the study."""

import numpy as np
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st

from loplax.studies import merging, results, runs, shards
from tests.studies import toys
from tests.studies.toys import study


def divided(directory, of, **changes):
    """Computes all shards of the toy study, and returns their directories."""
    for number in range(1, of + 1):
        study(directory, shard=(number, of), **changes)
    return shards.every(directory)


@pytest.mark.filterwarnings("ignore:.*has nothing to compute")
@pytest.mark.parametrize(
    ("runs_per_block", "of"), [(32, 1), (32, 3), (4, 1), (4, 2), (4, 20), (1, 7)]
)
def test_together_they_are_the_study_bit_by_bit(tmp_path, of, runs_per_block):
    """Also with more shards than runs; the study has 18 of them, in 6 arms."""
    merging.merge(tmp_path, divided(tmp_path, of, runs_per_block=runs_per_block))
    whole = study(None, runs_per_block=runs_per_block)
    toys.equal(results.load(tmp_path), whole)


def test_a_shard_computes_its_part_only(tmp_path):
    found = study(tmp_path, shard=(2, 3), runs_per_block=4)
    there = found["bins_asked"] > 0
    assert there.sum() == 7 and (found["bins_done"] == found["bins_asked"]).all()
    assert (found["loss"].notnull().all("bin") == there).all()
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]
    loaded = results.load(tmp_path / "shards" / "2-of-3")
    xarray.testing.assert_equal(loaded, found)


def test_a_shard_in_memory(plain):
    found = study(None, shard="1/2")
    there = found["bins_asked"] > 0
    assert there.sum() == 12
    xarray.testing.assert_equal(found["loss"], plain[0]["loss"].where(there))


def test_a_shard_without_runs_says_so(tmp_path):
    with pytest.warns(UserWarning, match="3/3 has nothing to compute.*2 blocks"):
        found = study(tmp_path, shard=(3, 3))
    assert not found["bins_asked"].any() and found.sizes["bin"] == 24
    with pytest.warns(UserWarning, match="nothing to compute"):
        study(tmp_path, shard=(3, 3))


def test_a_shard_goes_on_with_the_same_blocks(tmp_path, monkeypatch):
    """Three blocks of 4, 4 and 2 runs: what is left is not divided anew."""
    how = {"settings": {}, "num_seeds": 10, "runs_per_block": 4}
    walk = {"walk": toys.WALK}
    seen = []

    def stop(progress):
        seen.append(progress.runs)
        if len(seen) == 9:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        study(tmp_path, walk, shard=(1, 1), on_segment=[stop], **how)
    study(tmp_path, walk, shard=(1, 1), on_segment=[stop], **how)
    assert set(seen) == {4, 2}


@given(
    st.dictionaries(st.text(), st.integers(1, 200), min_size=1, max_size=5),
    st.integers(1, 64),
    st.integers(1, 40),
)
def test_every_run_is_in_one_shard_and_work_is_balanced(counts, runs_per_block, of):
    """No shard has two blocks more than another one; methods come in any order."""
    blocks = shards.blocks(counts, runs_per_block)
    assert {name: some.size for name, some in blocks.items()} == counts
    every = np.unique(np.concatenate(list(blocks.values())))
    assert every.tolist() == list(range(every.size))
    number = np.bincount(every % of, minlength=of)
    assert number.max() - number.min() <= 1
    turned = shards.blocks(dict(reversed(counts.items())), runs_per_block)
    assert all((turned[name] == some).all() for name, some in blocks.items())


@given(st.integers(1, 300), st.integers(1, 8), st.integers(1, 64), st.integers(1, 300))
def test_blocks_of_a_part_are_those_of_the_whole(count, devices, per_block, part):
    whole = runs.layout(count, devices, per_block) // min(devices, count)
    rows = runs.layout(count, devices, per_block, min(part, count))
    assert rows % whole == 0
    assert rows - min(part, count) < whole or rows <= min(part, count)


@pytest.mark.parametrize(
    "shard",
    ["0/4", "5/4", "a/b", "-1/4", "1", "1/2/3", "1/0", "", (0, 4), (1.5, 4), (1,), 3],
)
def test_what_is_no_shard_is_refused(tmp_path, shard):
    with pytest.raises(ValueError, match="it must be one of 1/n to n/n"):
        study(tmp_path, shard=shard)
    assert not list(tmp_path.iterdir())


def test_a_study_that_is_not_divided_is_refused(plain, contents):
    before = contents(plain[1])
    with pytest.raises(ValueError, match="not divided"):
        study(plain[1], shard=(1, 4))
    assert contents(plain[1]) == before


def test_the_number_of_shards_stays(tmp_path, contents):
    study(tmp_path, shard=(1, 2))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="divided into 2 shards, not into 3"):
        study(tmp_path, shard=(1, 3))
    with pytest.raises(ValueError, match="has shards only: put them together"):
        study(tmp_path)
    assert contents(tmp_path) == before


def test_a_shard_may_begin_after_others_were_merged(tmp_path, plain):
    study(tmp_path, shard=(1, 2))
    merging.merge(tmp_path, shards.every(tmp_path))
    study(tmp_path, shard=(2, 2))
    merging.merge(tmp_path, shards.every(tmp_path))
    toys.equal(results.load(tmp_path), plain[0])


def test_processes_at_once(tmp_path, plain):
    """Each in its shard; a second one in the same ends with a clear error."""
    numbers = (1, 1, 2)
    started = [toys.start(tmp_path, shard=(i, 2)) for i in numbers]
    texts = [process.communicate(timeout=120)[1] for process in started]
    codes = [process.returncode for process in started]
    assert 0 in codes[:2] and codes[2] == 0
    for code, text in zip(codes, texts, strict=True):
        assert code == 0 or "1-of-2 is in use by" in text.splitlines()[-1]
    merging.merge(tmp_path, shards.every(tmp_path))
    toys.equal(results.load(tmp_path), plain[0])
