"""A study is its content: order means nothing, and it can grow."""

import jax
import numpy as np
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st

from experiments.figures import words
from loplax.studies import pieces, results, runs, sweep
from tests.studies import toys
from tests.studies.toys import METHODS, WALK, study

CONFIG = {"net": {"width": 8, "depth": 2}, "stream": {"beta": 0.5}, "seed": 3}
SETTINGS = {"size": [0.1, 0.5], "deaf": [1.0, 2.0]}
DATA = {"y": np.arange(3), "x": np.ones(2)}


def shuffled(values, chance):
    """The same dict, and those within it, in another order."""
    if not isinstance(values, dict):
        return values
    names = list(values)
    chance.shuffle(names)
    return {name: shuffled(values[name], chance) for name in names}


@pytest.fixture(scope="module")
def whole(shared_programs, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    options = {"config": CONFIG, "settings": SETTINGS, "data": DATA}
    found = study(directory, compiler_options={}, **options)
    return found, directory


@given(st.randoms(use_true_random=False))
def test_no_order_of_names_changes_anything(whole, chance):
    """Nothing is computed again, and all numbers are under their names."""
    expected, directory = whole
    turned = {
        name: method._replace(
            hparams=shuffled(dict(method.hparams), chance),
            choices=shuffled(dict(method.choices), chance),
        )
        for name, method in shuffled(METHODS, chance).items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "trace", None)
        found = study(
            directory,
            turned,
            config=shuffled(CONFIG, chance),
            settings=shuffled(SETTINGS, chance),
            data=shuffled(DATA, chance),
            defaults=shuffled({"net": {"depth": 2}, "new": 1}, chance),
        )
    toys.equal(found, expected)
    assert list(dict.fromkeys(found["method"].values)) == list(turned)
    again = results.load(directory)
    toys.equal(again, expected)


@given(st.randoms(use_true_random=False))
def test_no_order_of_names_changes_what_is_computed(plain, chance):
    """Neither do options of the compiler."""
    two = {"xla_embed_ir_in_executable": False, "xla_cpu_enable_fast_math": False}
    walk = {"walk": WALK._replace(hparams=shuffled(dict(WALK.hparams), chance))}
    turned = shuffled(SETTINGS | {"size": SETTINGS["size"][::-1]}, chance)
    turned.pop("deaf")
    found = study(None, walk, settings=turned, compiler_options=shuffled(two, chance))
    toys.equal(found, plain[0].isel(arm=slice(0, 2)).drop_vars("deaf"))


GROWN = {
    "seeds": {"num_seeds": 5},
    "methods": {"methods": {"new": WALK, **METHODS}},
    "settings": {"settings": {"deaf": [3.0, 2.0, 1.0], "size": [0.5, 0.7, 0.1]}},
    "all": {
        "num_seeds": 4,
        "methods": {**METHODS, "new": WALK},
        "settings": {"deaf": [2.0, 4.0], "size": [0.1]},
    },
}


@pytest.mark.parametrize("grown", GROWN.values(), ids=GROWN)
def test_a_study_grows_and_computes_only_what_is_new(tmp_path, grown):
    one = {"runs_per_block": 1}
    first, told = study(tmp_path, **one), []
    before = {p.name: p.read_bytes() for p in (tmp_path / "results").iterdir()}
    found = study(tmp_path, **grown, **one, on_segment=[told.append])
    xarray.testing.assert_identical(found, study(None, **grown, **one))
    every = {(a, s) for a in found["arm"].values for s in found["seed"].values}
    old = {(a, s) for a in first["arm"].values for s in first["seed"].values}
    assert sum(each.runs for each in told) == 6 * len(every - old)
    for name, data in before.items():
        assert (tmp_path / "results" / name).read_bytes() == data
    loaded = results.load(tmp_path)
    assert set(loaded["arm"].values) == {arm for arm, _ in every | old}
    for asked in (first, found):
        part = loaded.sel(arm=asked["arm"], seed=asked["seed"])
        xarray.testing.assert_equal(part[list(asked)], asked)


def test_what_nobody_asked_for_is_not_missing(tmp_path):
    """Another method with more seeds, and one in longer runs; one is not finished."""
    options = {"settings": {}, "num_segments": 2}
    study(tmp_path, {"walk": WALK}, num_seeds=2, **options)
    study(tmp_path, {"new": WALK}, **options)
    found = results.load(tmp_path)
    assert found["arm"].values.tolist() == ["walk", "new"]
    assert found["bins_asked"].values.tolist() == [[8, 8, 0], [8, 8, 8]]
    assert words.done(found) == 1 and not words.missing(found)

    def crash(_):
        raise RuntimeError("crash")

    longer = options | {"num_segments": 6, "num_seeds": 1, "on_segment": [crash]}
    with pytest.raises(RuntimeError, match="crash"):
        study(tmp_path, {"new": WALK}, **longer, checkpoint_seconds=0)
    study(tmp_path, {"walk": WALK}, num_seeds=1, **options)  # less than before
    found = results.load(tmp_path)
    assert found["bins_asked"].values.tolist() == [[8, 8, 0], [24, 8, 8]]
    assert words.done(found) == (2 + 3) * 8 / ((2 + 3) * 8 + 16)


def test_arms_stay_in_the_order_in_which_they_were_first_asked_for(tmp_path):
    """Differences are to the first: to that of the study as it began."""
    options = {"num_seeds": 1, "num_segments": 1}
    first = study(tmp_path, {"walk": WALK}, settings={"size": [0.5]}, **options)
    more = {"settings": {"size": [0.1, 0.5, 0.7]}, **options}
    study(tmp_path, {"new": WALK, "walk": WALK}, **more)
    study(tmp_path, {"new": WALK}, **more)
    arms = results.load(tmp_path)["arm"].values.tolist()
    assert arms[:1] == first["arm"].values.tolist() == ["walk size=0.5"]
    sizes = ("0.1", "0.5", "0.7")
    assert arms[1:] == [
        "walk size=0.1",
        "walk size=0.7",
        *(f"new size={s}" for s in sizes),
    ]


def test_a_smaller_question_has_a_smaller_answer(plain, monkeypatch):
    monkeypatch.setattr(runs, "trace", None)
    found = study(plain[1], {"walk": WALK}, settings={"size": [0.5]}, num_seeds=2)
    assert found["arm"].values.tolist() == ["walk size=0.5"]
    part = plain[0].sel(arm=["walk size=0.5"], seed=[0, 1])
    xarray.testing.assert_equal(found["loss"], part["loss"].drop_vars("deaf"))
    assert set(results.load(plain[1])["arm"].values) == set(plain[0]["arm"].values)
    monkeypatch.undo()
    xarray.testing.assert_identical(study(plain[1]), plain[0])


def test_shorter_runs_are_the_beginning_of_longer_ones(plain):
    found = study(plain[1], num_segments=2)
    xarray.testing.assert_equal(found["loss"], plain[0]["loss"].isel(bin=slice(0, 8)))
    assert (found["bins_done"] == 8).all()
    xarray.testing.assert_identical(study(plain[1]), plain[0])


@pytest.mark.parametrize("kept", [True, False])
def test_longer_runs_go_on_where_states_were_kept(tmp_path, plain, kept):
    """Without them they are computed anew, and what there is stays until then."""
    told, seen = [], []
    study(tmp_path, num_segments=4, keep_states=kept)
    old = set((tmp_path / "results").iterdir())
    assert len(list((tmp_path / "states").iterdir())) == 2 * kept

    def watch(progress):
        told.append((progress.method, progress.step))
        if progress.method == "walk" and progress.step < 240:
            assert old <= set((tmp_path / "results").iterdir())
        seen.append(results.load(tmp_path)["bins_done"].values.min())

    found = study(tmp_path, checkpoint_seconds=0, on_segment=[watch])
    xarray.testing.assert_identical(found, plain[0])
    assert len(told) == 2 * (2 if kept else 6)
    assert min(seen) == 16
    assert len(list((tmp_path / "results").iterdir())) == 2
    xarray.testing.assert_identical(results.load(tmp_path), plain[0])


def test_kept_states_are_of_use_to_some_of_the_runs(tmp_path, plain):
    """Fewer seeds go on further, then all of them."""
    study(tmp_path, num_segments=2, keep_states=True)
    told = []
    options = {"keep_states": True, "on_segment": [told.append]}
    some = study(tmp_path, num_seeds=2, num_segments=4, **options)
    assert [(each.runs, each.step) for each in told] == [
        (count, step) for count in (4, 8) for step in (120.0, 160.0)
    ]
    toys.same(
        some,
        plain[0]
        .isel(seed=slice(0, 2), bin=slice(0, 16))
        .assign({f"bins_{n}": some[f"bins_{n}"] for n in ("asked", "done", "sound")}),
    )
    loaded = results.load(tmp_path)
    assert loaded["bins_done"].values[0].tolist() == [16, 16, 8]
    told.clear()
    toys.same(study(tmp_path, **options), plain[0])
    steps = sorted(each.step for each in told if each.method == "walk")
    assert steps == [120.0, 160.0, 200.0, 200.0, 240.0, 240.0]


def test_a_setting_that_is_new_has_its_default(tmp_path, monkeypatch):
    """In the config, in numbers and in choices; then nothing is computed again."""
    old = WALK._replace(hparams={"size": 0.3, "rate": 0.1}, choices={"net": "mlp"})
    found = study(tmp_path, {"walk": old}, settings={}, config={"width": 8})
    new = old._replace(
        hparams={**old.hparams, "warmup": 0.0},
        choices={"net": "mlp", "norm": False},
        defaults={"warmup": 0, "norm": False, "rate": 0.2},
    )
    options = {"config": {"width": 8, "net": {"bias": True}}, "settings": {}}
    options["defaults"] = {"net": {"bias": True}, "width": 9}
    with monkeypatch.context() as patch:
        patch.setattr(runs, "trace", None)
        again = study(tmp_path, {"walk": new}, **options)
    xarray.testing.assert_equal(found, again)
    assert results.load(tmp_path)["arm"].values.tolist() == ["walk"]
    grown = study(tmp_path, {"walk": new}, **options, num_seeds=4)
    assert results.load(tmp_path)["loss"].dims == ("arm", "seed", "bin")
    xarray.testing.assert_equal(results.load(tmp_path), grown)
    # With another value it is another arm, and told from the first by its name.
    other = new._replace(hparams={**new.hparams, "warmup": 5.0})
    study(tmp_path, {"walk": other}, **options)
    arms = results.load(tmp_path)["arm"].values.tolist()
    assert sorted(arms) == ["walk warmup=0", "walk warmup=5"] or "walk" in arms


OTHERS = [
    (
        {"config": CONFIG | {"net": {"width": 9, "depth": 2}}},
        "config.net.width: 8 -> 9",
    ),
    ({"config": {}}, "config.net: .* -> none"),
    ({"data": {"y": np.arange(3), "x": np.array([1.0, 2.0])}}, "data: "),
    ({"data": {"y": np.arange(3.0), "x": np.ones(2)}}, "data: "),
    ({"data": {"z": np.arange(3), "x": np.ones(2)}}, "data: "),
    ({"key": jax.random.key(8)}, "key"),
    ({"steps_per_segment": 80, "num_segments": 9}, "a bin has 20 examples, but 10"),
    (
        {"methods": {"walk": WALK._replace(choices={"norm": True})}},
        "another method 'walk': norm: none -> true",
    ),
]


@pytest.mark.parametrize(("changes", "message"), OTHERS)
def test_another_study_is_refused_and_named(whole, contents, changes, message):
    before = contents(whole[1])
    options = {"config": CONFIG, "data": DATA, "settings": {"size": [0.1]}} | changes
    with pytest.raises(ValueError, match=message):
        study(whole[1], **options)
    assert contents(whole[1]) == before


def test_other_metrics_are_refused(plain, contents):
    """Where old runs would have none of them."""

    def segment(state, data):
        state, metrics = toys.segment(state)
        return state, metrics | {"more": metrics["loss"]}

    more = {"walk": sweep.Method(sweep.Learner(toys.init, segment), {"size": 0.3})}
    before = contents(plain[1])
    with pytest.raises(ValueError, match="metrics of 'walk' have changed"):
        study(plain[1], more, settings={"size": [0.1]}, num_seeds=4)
    assert contents(plain[1]) == before


def test_a_thousand_settings(tmp_path, monkeypatch):
    """Each is found again."""
    sizes = np.linspace(0.1, 0.5, 1_000).tolist()
    options = {"num_seeds": 1, "num_segments": 1, "settings": {"size": sizes}}
    options["runs_per_block"] = 512
    found = study(tmp_path, {"walk": WALK}, **options)
    assert found.sizes["arm"] == 1_000 == len(set(found["arm"].values))
    monkeypatch.setattr(runs, "trace", None)
    options["settings"] = {"size": sizes[::-1]}
    toys.equal(study(tmp_path, {"walk": WALK}, **options), found)


@pytest.mark.parametrize("limit", [1, 200, 1_000])
def test_large_results_are_several_files(tmp_path, plain, monkeypatch, limit):
    """Of fewer runs, or of fewer bins; while they run and in the end."""
    monkeypatch.setattr(pieces, "_MOST_BYTES", limit)
    found = study(tmp_path, checkpoint_seconds=0, num_segments=2)
    files = list((tmp_path / "results").iterdir())
    for path in files:
        with xarray.open_dataset(path) as part:
            size = sum(part[name].nbytes for name in part.data_vars)
            one = part.sizes["bin"] == part.sizes["run"] == 1
            assert size <= limit or one
    assert len(files) > 2
    part = plain[0]["loss"].isel(bin=slice(0, 8))
    xarray.testing.assert_identical(found["loss"], part)
    xarray.testing.assert_identical(results.load(tmp_path), found)
    xarray.testing.assert_identical(study(tmp_path, num_segments=2), found)


def test_nothing_is_told_by_the_name_of_a_file(tmp_path, plain):
    """Files of other names are nobody's business."""
    study(tmp_path)
    (tmp_path / "results" / "notes.nc").write_text("mine")
    (tmp_path / "results" / "2.nc").write_text("mine")
    xarray.testing.assert_identical(study(tmp_path), plain[0])
    study(tmp_path, overwrite=True)
    assert (tmp_path / "results" / "notes.nc").read_text() == "mine"
