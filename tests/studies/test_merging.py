"""Directories of one study, put together in one."""

import jax
import pytest
import xarray

from loplax import locks
from loplax.studies import merging, results, shards
from tests.studies import toys
from tests.studies.test_resuming import crash, stop_after
from tests.studies.toys import study


@pytest.fixture(scope="module")
def parts(shared_programs, tmp_path_factory):
    """A shard that is finished, and one that crashed, with states of its last unit."""
    directory = tmp_path_factory.mktemp("parts")
    how = {"runs_per_block": 4, "checkpoint_seconds": 0}
    study(directory, shard=(1, 2), **how)
    with pytest.raises(RuntimeError, match="crash"):
        study(directory, shard=(2, 2), **how, **stop_after(9, crash))
    return shards.every(directory)


@pytest.fixture(scope="module")
def whole(shared_programs):
    return study(None, runs_per_block=4)


def test_the_undivided_study_goes_on_from_unfinished_shards(tmp_path, parts, whole):
    """It computes only what is missing, from the states of the shards."""
    merging.merge(tmp_path, parts)
    before = results.load(tmp_path)
    assert (before["bins_asked"] == 24).all()
    assert sorted(set(before["bins_done"].values.ravel())) == [12, 24]
    told = []
    found = study(tmp_path, runs_per_block=4, on_segment=[told.append])
    assert [each.step for each in told] == [160.0, 200.0, 240.0]
    toys.equal(found, whole)
    toys.equal(results.load(tmp_path), whole)


def test_it_may_be_done_again_and_changes_no_input(tmp_path, parts, contents):
    before = [contents(part) for part in parts]
    merging.merge(tmp_path, parts)
    once = contents(tmp_path)
    merging.merge(tmp_path, parts)
    assert contents(tmp_path) == once
    assert [contents(part) for part in parts] == before


def test_what_has_gone_on_replaces_what_was_there(tmp_path, whole, contents):
    def merged(calls):
        how = {"runs_per_block": 4, "checkpoint_seconds": 0}
        if calls:
            with pytest.raises(RuntimeError, match="crash"):
                study(tmp_path, shard=(1, 1), **how, **stop_after(calls, crash))
        else:
            study(tmp_path, shard=(1, 1), **how)
        merging.merge(tmp_path / "out", shards.every(tmp_path))

    for calls in (3, 2, 8, 0):
        merged(calls)
    toys.equal(results.load(tmp_path / "out"), whole)
    names = sorted(path.name for path in (tmp_path / "out" / "results").iterdir())
    assert len(names) == 5 and not list((tmp_path / "out" / "states").iterdir())


def test_more_is_never_replaced_by_less(tmp_path, parts, contents, whole):
    study(tmp_path, runs_per_block=4)
    before = contents(tmp_path)
    merging.merge(tmp_path, parts)
    after = contents(tmp_path)
    assert {n: x for n, x in after.items() if n != "asked.json"} == {
        n: x for n, x in before.items() if n != "asked.json"
    }
    toys.equal(results.load(tmp_path), whole)


def test_other_seeds_methods_and_settings(tmp_path, plain):
    """What one has and others do not; who merges first does not matter."""
    walk, deaf = {"walk": toys.WALK}, {"deaf": toys.DEAF}
    swept = {"size": [0.1, 0.5]}
    study(tmp_path / "a", walk, num_seeds=2, settings=swept)
    study(tmp_path / "b", walk, num_seeds=3, settings=swept)
    study(tmp_path / "c", deaf, settings={**swept, "deaf": [1.0]})
    study(tmp_path / "d", deaf, settings={**swept, "deaf": [2.0]})
    for order in ("abcd", "dcba"):
        out = tmp_path / f"out_{order}"
        merging.merge(out, [tmp_path / name for name in order])
        toys.same(results.load(out).sortby("arm"), plain[0].sortby("arm"))


def test_kept_states_are_merged_even_if_the_results_are_there(tmp_path, plain):
    """Then the study can be longer."""
    study(tmp_path / "without", num_segments=4)
    study(tmp_path / "with", num_segments=4, keep_states=True)
    merging.merge(tmp_path / "out", [tmp_path / "without"])
    merging.merge(tmp_path / "out", [tmp_path / "with"])
    told = []
    found = study(tmp_path / "out", on_segment=[told.append])
    assert {each.step for each in told} == {200.0, 240.0}
    toys.equal(found, plain[0])


def test_unfinished_runs_without_states_are_there(tmp_path, parts):
    """They do not replace what can be gone on with."""
    merging.merge(tmp_path / "bare", [parts[1]])
    for path in (tmp_path / "bare" / "states").iterdir():
        path.unlink()
    merging.merge(tmp_path / "out", [tmp_path / "bare"])
    assert set(results.load(tmp_path / "out")["bins_done"].values.ravel()) >= {12}
    merging.merge(tmp_path / "out", [parts[1]])
    assert len(list((tmp_path / "out" / "states").iterdir())) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"width": 9}}, "config.width: 8 -> 9"),
        ({"key": jax.random.key(8)}, r"key: .*7.* -> .*8"),
        ({"data": jax.numpy.ones(3)}, "data: "),
        ({"steps_per_segment": 80}, "walk: steps_per_bin: 10.* -> 20"),
    ],
)
def test_other_studies_are_refused(tmp_path, contents, changes, message):
    how = {"config": {"width": 8}, "settings": {}, "num_segments": 1, "num_seeds": 1}
    walk = {"walk": toys.WALK}
    study(tmp_path / "a", walk, **how)
    study(tmp_path / "b", walk, **(how | changes))
    before = contents(tmp_path)
    named = rf"/a and .*/b are of different studies: .*{message}"
    with pytest.raises(ValueError, match=named):
        merging.merge(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    assert contents(tmp_path) == before
    with pytest.raises(ValueError, match=message):
        merging.merge(tmp_path / "a", [tmp_path / "b"])


def test_another_method_of_the_same_name_is_refused(tmp_path):
    how = {"settings": {}, "num_segments": 1, "num_seeds": 1}
    for name, width in (("a", 8), ("b", 9)):
        method = toys.WALK._replace(choices={"width": width})
        study(tmp_path / name, {"walk": method}, **how)
    with pytest.raises(ValueError, match="walk: choices.width: 8 -> 9"):
        merging.merge(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_merged_is_refused(tmp_path, plain, contents):
    before = contents(plain[1])
    for out, given, message in (
        (tmp_path / "out", [plain[1], tmp_path], "no study in"),
        (tmp_path / "out", [plain[1], plain[1]], "given twice"),
        (plain[1], [plain[1]], "merged into itself"),
        (tmp_path / "out", [], "nothing to merge"),
    ):
        with pytest.raises(ValueError, match=message):
            merging.merge(out, given)
    with (
        locks.held(plain[1] / ".lock", "it"),
        pytest.raises(ValueError, match="in use by process"),
    ):
        study(tmp_path / "other")
        merging.merge(plain[1], [tmp_path / "other"])
    assert contents(plain[1]) == before and not (tmp_path / "out").exists()


def test_damaged_files_are_left_out(tmp_path, parts, whole, contents):
    """The next one computes them again; the input stays as it is."""
    merging.merge(tmp_path / "in", parts)
    first, *_ = sorted((tmp_path / "in" / "results").iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    before = contents(tmp_path / "in")
    with pytest.warns(UserWarning, match="is left out"):
        merging.merge(tmp_path / "out", [tmp_path / "in"])
    assert contents(tmp_path / "in") == before
    xarray.testing.assert_equal(
        study(tmp_path / "out", runs_per_block=4).sortby("arm"), whole.sortby("arm")
    )


def test_another_number_of_shards_goes_on_with_what_was_gathered(tmp_path, whole):
    """Each begins with what the others have; in the end no shards are left."""
    how = {"runs_per_block": 4, "checkpoint_seconds": 0}
    shards.divide(tmp_path, 2)
    study(tmp_path, shard=(1, 2), **how)
    with pytest.raises(RuntimeError, match="crash"):
        study(tmp_path, shard=(2, 2), **how, **stop_after(9, crash))
    merging.gather(tmp_path)
    assert not (tmp_path / "shards").exists()
    shards.divide(tmp_path, 3)
    told = []
    for place in shards.every(tmp_path):
        merging.merge(place, [tmp_path])
    for number in (1, 2, 3):
        study(tmp_path, shard=(number, 3), **how, on_segment=[told.append])
    assert [each.step for each in told] == [160.0, 200.0, 240.0]
    merging.gather(tmp_path)
    assert not (tmp_path / "shards").exists()
    toys.equal(results.load(tmp_path), whole)


def test_gathering_leaves_what_is_not_the_studys(tmp_path, plain):
    study(tmp_path, shard=(1, 1))
    notes = tmp_path / "shards" / "1-of-1" / "notes.txt"
    notes.write_text("precious")
    merging.gather(tmp_path)
    assert list((tmp_path / "shards").rglob("*.*")) == [notes]
    toys.equal(results.load(tmp_path), plain[0])


def test_a_shard_in_use_is_not_deleted(tmp_path):
    study(tmp_path, shard=(1, 1))
    place = tmp_path / "shards" / "1-of-1"
    with (
        locks.held(place / ".lock", "it"),
        pytest.raises(ValueError, match="in use by process"),
    ):
        merging.gather(tmp_path)
    assert list((place / "results").iterdir())
