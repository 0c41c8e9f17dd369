"""The sweep: what it computes, and what it refuses."""

import json
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st

from loplax.studies import compiling, results, runs, signals, statistics, sweep
from tests.studies import toys
from tests.studies.toys import WALK, init, segment, study

BINS = toys.BINS


def test_results_are_those_of_the_plain_loop(plain):
    """Every cell holds what init and segment give for its key and its setting."""
    found, _ = plain
    for arm, seed in [(0, 0), (1, 2), (5, 1)]:
        cell = found.isel(arm=arm, seed=seed)
        hparams = {"size": jnp.float32(cell["size"].item())}
        state = init(jax.random.fold_in(jax.random.key(7), seed), hparams)
        collected = []
        for _ in range(6):
            state, metrics = segment(state)
            collected.append(metrics)
        for name in ("draw", "loss", "count"):
            expected = np.concatenate([metrics[name] for metrics in collected])
            np.testing.assert_allclose(cell[name], expected, rtol=2e-5)


def test_the_dataset_is_labelled(plain):
    found, _ = plain
    assert dict(found.sizes) == {"arm": 6, "seed": 3, "bin": 24}
    assert list(found["method"].values) == ["walk"] * 2 + ["deaf"] * 4
    arms = found["arm"].values
    assert list(arms[[0, 5]]) == ["walk size=0.1", "deaf deaf=2 size=0.5"]
    assert list(found["size"].values) == [0.1, 0.5, 0.1, 0.5, 0.1, 0.5]
    np.testing.assert_array_equal(found["deaf"], [np.nan, np.nan, 1, 1, 2, 2])
    assert list(found["step"].values) == [10.0 * (i + 1) for i in range(24)]
    assert json.loads(found.attrs["config"]) == {}
    assert (found["bins_done"] == 24).all() and not found["diverged"].any()


def test_seeds_draw_the_same_in_all_arms(plain):
    draws = plain[0]["draw"]
    assert (draws == draws.isel(arm=0)).all()
    assert len(np.unique(draws.isel(arm=0))) == 3 * 24


def test_without_a_directory_all_stays_in_memory(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    xarray.testing.assert_identical(study(None), plain[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("runs_per_block", [1, 4])
def test_grouping_changes_no_draw(plain, tmp_path, runs_per_block):
    toys.same(study(tmp_path, runs_per_block=runs_per_block), plain[0])
    toys.same(results.load(tmp_path), plain[0])


def test_two_devices(plain, tmp_path):
    """Two devices give the same numbers."""
    toys.ended(toys.start(tmp_path, devices=2, runs_per_block=2))
    toys.same(results.load(tmp_path), plain[0])


@given(st.integers(1, 500), st.integers(1, 8), st.integers(1, 64))
def test_layout_wastes_little_and_holds_one_block(count, num_devices, runs_per_block):
    rows = runs.layout(count, num_devices, runs_per_block)
    used = min(num_devices, count)
    assert rows % used == 0 and rows // used <= runs_per_block
    units = -(-count // rows)
    assert rows * units - count < units * used


def test_memory_does_not_grow_with_the_runs(tmp_path, monkeypatch):
    """At any time one block is there, however many seeds there are."""
    counts, begin = [], runs.begin
    monkeypatch.setattr(
        runs, "begin", lambda *args: (counts.append(args[0].rows), begin(*args))[1]
    )
    study(tmp_path, {"walk": WALK}, settings={}, num_seeds=12, runs_per_block=4)
    assert counts == [4, 4, 4]


def test_devices_do_not_talk_to_each_other():
    """And the compiled program has no argument without elements."""
    asked = {"size": np.ones(4)}
    about = runs.pieces.About("walk", {}, {}, [], 1.0, {})
    each = runs.Runs(WALK.learner, about, asked, np.arange(4), np.zeros(4, int), [])
    data = {"x": np.zeros([0, 3]), "y": np.zeros(2)}
    program = runs.trace(each, 4, jax.devices()[:1], jax.random.key(0), data)
    shapes = [x.shape for x in jax.tree.leaves(program.segment.in_avals)]
    assert (0,) not in [shape[-1:] for shape in shapes] and len(shapes) == 1 + 5
    text = program.segment.lower().compile().as_text()
    assert not any(word in text for word in ("all-", "collective", "permute"))


def test_a_method_is_traced_and_compiled_once(tmp_path):
    """Also where types are weak at first, and for the state of a checkpoint."""
    traced = []
    walk = sweep.Learner(init, lambda state, _: (traced.append(1), segment(state))[1])
    methods = {"walk": sweep.Method(walk, {"size": 0.3})}
    study(tmp_path, methods, settings={}, num_segments=2, keep_states=True)
    study(tmp_path, methods, settings={}, num_segments=4)
    assert len(traced) == 1


def test_what_is_finished_is_not_traced(plain, monkeypatch):
    monkeypatch.setattr(runs, "trace", None)
    xarray.testing.assert_identical(study(plain[1]), plain[0])


def test_a_diverged_run_is_marked_and_leaves_the_others_alone(plain):
    def segment_that_fails(state, data):
        state, metrics = segment(state)
        fails = (state["hparams"]["size"] > 1) & (state["count"] > 2 * BINS)
        late = jnp.where(state["count"] > BINS, metrics["loss"], jnp.nan)
        loss = jnp.where(fails, jnp.nan, metrics["loss"])
        return state, metrics | {"loss": loss, "late": late}

    walk = sweep.Method(sweep.Learner(init, segment_that_fails), {"size": 1.0})
    found = study(None, {"walk": walk}, settings={"size": [0.1, 2.0]})
    assert found["diverged"].values.tolist() == [[False] * 3, [True] * 3]
    assert (found["bins_done"] == 24).all()
    assert found["bins_sound"].values.tolist() == [[24] * 3, [8] * 3]
    where = np.isnan(found["loss"].isel(arm=1)).all("seed")
    assert where.values.tolist() == [False] * 8 + [True] * 16
    table = statistics.summary(found, "late", range(24))
    seen = [[0] * 4 + [3] * 20, [0] * 4 + [3] * 4 + [0] * 16]
    assert table["runs"].values.tolist() == seen
    np.testing.assert_allclose(
        found["loss"][0], plain[0]["loss"].isel(arm=0), rtol=2e-5
    )


def test_methods_may_have_different_metrics(tmp_path):
    def segment_with_more(state, data):
        state, metrics = segment(state)
        return state, metrics | {"more": metrics["loss"] + 1}

    more = sweep.Method(sweep.Learner(init, segment_with_more), {"size": 0.3})
    found = study(tmp_path, {"walk": WALK, "more": more}, settings={})
    assert found["more"].sel(arm="walk").isnull().all()
    assert found["more"].sel(arm="more").notnull().all()
    assert not found["diverged"].any()
    xarray.testing.assert_identical(results.load(tmp_path), found)


def test_subsets_are_a_dimension(tmp_path):
    """Beside metrics and methods that have none."""

    def segment_with_subsets(state, data):
        state, metrics = segment(state)
        both = jnp.stack([metrics["loss"], -metrics["loss"]], axis=1)
        return state, metrics | {"held_out": both}

    learner = sweep.Learner(init, segment_with_subsets, ("task 1", "task 2"))
    methods = {"walk": WALK, "held": sweep.Method(learner, {"size": 0.3})}
    told = []
    found = study(tmp_path, methods, settings={}, on_segment=[told.append])
    assert found["held_out"].dims == ("arm", "seed", "bin", "subset")
    assert found["subset"].values.tolist() == ["task 1", "task 2"]
    held = found.sel(arm="held")
    second = held["held_out"].sel(subset="task 2")
    np.testing.assert_array_equal(second, -held["loss"])
    assert found["held_out"].sel(arm="walk").isnull().all()
    xarray.testing.assert_identical(results.load(tmp_path), found)
    last = told[-1].metrics
    assert last["held_out/task 2"] == -last["held_out/task 1"] == -last["loss"]


def test_data_is_shared_by_all_runs():
    """Every run gets the whole of it, however runs are grouped."""

    def segment_with_data(state, data):
        state, metrics = segment(state)
        return state, metrics | {"sum": metrics["loss"] * 0 + data["x"].sum()}

    method = sweep.Method(sweep.Learner(init, segment_with_data), {"size": 0.3})
    data = {"x": np.arange(5, dtype=np.uint8), "none": np.zeros([0, 2])}
    for block in (1, 2):
        options = {"settings": {}, "data": data, "runs_per_block": block}
        found = study(None, {"walk": method}, **options)
        assert (found["sum"] == 10).all()


def test_segments_are_told(plain):
    """To functions of the user, with means over runs and bins."""
    told = []
    found = study(None, on_segment=[told.append, told.append])
    assert len(told) == 2 * 2 * 6 and told[::2] == told[1::2]
    last = told[-1]
    assert (last.method, last.step, last.runs) == ("deaf", 240.0, 12)
    part = found["loss"].isel(arm=slice(2, 6), bin=slice(20, 24))
    assert last.metrics["loss"] == pytest.approx(part.mean().item(), rel=1e-6)
    assert all(type(value) is float for value in last.metrics.values())


def test_a_segment_that_takes_long_is_told(monkeypatch):
    monkeypatch.setattr(signals, "GRACE", 0.0)
    with pytest.warns(UserWarning, match="a segment of walk takes .* shorter"):
        study(None, {"walk": WALK}, settings={})


def test_two_programs_compile_while_another_runs(monkeypatch):
    """The second method is compiled before the first one has ended."""
    seen = []
    compiled = runs.compiled
    monkeypatch.setattr(
        runs, "compiled", lambda *args: (seen.append("compiled"), compiled(*args))[1]
    )
    study(None, on_segment=[lambda told: seen.append(told.method)])
    assert seen.count("compiled") == 2 and seen.index("walk") > 0
    assert "compiled" not in seen[seen.index("deaf") :]


# What it refuses.


def changes_shape(state, data):
    return state | {"w": jnp.zeros([4])}, {"loss": jnp.zeros([2])}


def changes_nesting(state, data):
    return (state | {"none": None}, {"loss": jnp.zeros([2])})


def of_shape(*shape):
    return lambda state, data: (state, {"loss": jnp.zeros(shape)})


def named(name, dtype=float):
    return lambda state, data: (state, {name: jnp.zeros([2], dtype)})


def method(function, **hparams):
    learner = sweep.Learner(init, function)
    return {"walk": sweep.Method(learner, {"size": 0.3, **hparams})}


BAD = [
    ({"num_seeds": 0}, "num_seeds is 0"),
    ({"num_seeds": np.True_}, "num_seeds is"),
    ({"num_seeds": jnp.array(True)}, "num_seeds is"),
    ({"num_segments": 1.5}, "num_segments is 1.5"),
    ({"num_segments": np.array([2])}, "num_segments is"),
    ({"steps_per_segment": True}, "steps_per_segment is True"),
    ({"steps_per_segment": "40"}, "steps_per_segment is '40'"),
    ({"runs_per_block": -1}, "runs_per_block is -1"),
    ({"devices": []}, "devices is 0"),
    ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds is nan"),
    ({"checkpoint_seconds": -1}, "checkpoint_seconds is -1"),
    ({"key": 3}, "typed key"),
    ({"key": np.zeros(2, np.uint32)}, "typed key"),
    ({"settings": {"sise": [0.1]}}, "'sise', only deaf, size; did you mean 'size'"),
    ({"settings": {"banana": [0.1]}}, "'banana', only deaf, size$"),
    ({"settings": {"size": []}}, "missing"),
    ({"settings": {"size": 0.1}}, "must be a list"),
    ({"settings": {"size": [0.1, 0.1]}}, "repeated"),
    ({"settings": {"size": [0.1, 0.1 + 1e-12]}}, "repeated"),
    ({"settings": {"size": [0.1, float("inf")]}}, "size is inf"),
    ({"settings": {"size": [0.1, True]}}, "size is True"),
    ({"settings": {"size": ["0.1"]}}, "size is '0.1'"),
    ({"settings": {"size": [1e39]}}, "size is 1e[+]39; as a float32"),
    ({"settings": {"size": [1e-50]}}, "size is 1e-50; as a float32"),
    ({"settings": {"size": [10**400]}}, "size is 1000"),
    ({"methods": {}}, "methods is empty"),
    ({"methods": {"": WALK}}, "method name ''"),
    ({"methods": {"a/b": WALK}}, "method name 'a/b'"),
    ({"methods": {"..\\b": WALK}}, "path separators"),
    ({"methods": {"a\nb": WALK}}, "control characters"),
    ({"methods": {" a": WALK}}, "blanks at its ends"),
    ({"methods": {3: WALK}}, "method name 3"),
    ({"methods": method(segment, **{"a b": 1.0})}, "hyper-parameter name 'a b'"),
    ({"methods": {"a": WALK._replace(hparams={"size": np.nan})}}, "size is nan"),
    ({"methods": {"a": WALK._replace(choices={"x": object()})}}, "choices of .* JSON"),
    ({"methods": method(changes_shape)}, r"state\['w'\] from"),
    ({"methods": method(changes_nesting)}, r"state\['none'\]|nests"),
    ({"methods": method(of_shape())}, r"one shape \[bins\]"),
    ({"methods": method(of_shape(0))}, r"one shape \[bins\]"),
    ({"methods": method(of_shape(2, 3))}, r"one shape \[bins\]"),
    ({"methods": method(of_shape(2, 0))}, r"one shape \[bins\]"),
    ({"methods": method(named("loss", complex))}, "must be a real number"),
    ({"methods": method(named("step"))}, "'step' is taken"),
    ({"methods": method(named("run"))}, "'run' is taken"),
    ({"methods": method(named("size"))}, "'size' is taken"),
    ({"methods": method(named("double"))}, "metric name 'double'"),
    ({"methods": method(named("a/b"))}, "metric name 'a/b'"),
    ({"config": {"net": object()}}, "JSON"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_input_is_refused_before_anything_is_touched(
    tmp_path, plain, contents, changes, message
):
    """Also where a study is to be overwritten."""
    before = contents(plain[1])
    settings = {"settings": {"size": [0.1]}}
    for directory in (tmp_path / "new", plain[1]):
        with pytest.raises(ValueError, match=message):
            study(directory, **(settings | changes), overwrite=True)
    assert not (tmp_path / "new").exists()
    assert before == contents(plain[1])


def test_numbers_of_numpy_and_jax_are_taken(plain):
    """All are the study of plain numbers."""
    found = study(
        plain[1],
        num_seeds=np.int32(3),
        num_segments=jnp.array(6),
        steps_per_segment=np.uint8(40),
        settings={"size": np.array([0.1, 0.5]), "deaf": [jnp.float32(1), 2]},
    )
    xarray.testing.assert_identical(found, plain[0])


def test_data_of_other_types_is_that_which_jax_makes_of_it():
    """Numpy's 64 bits among them."""
    segment_with_data = lambda state, data: (state, {"x": data["x"] * jnp.ones([2])})
    methods = method(segment_with_data)
    found = study(None, methods, settings={}, data={"x": np.float64(2.5)})
    assert (found["x"] == 2.5).all()


def test_ctrl_c_does_not_wait_for_the_compiler(monkeypatch):
    """Nothing has begun yet that would have to be saved."""
    release = threading.Event()
    monkeypatch.setattr(runs, "compiled", lambda *_: release.wait(20))
    wish = signals.Wish()
    wish.make(signal.SIGINT)
    programs = compiling.Programs(jax.random.key(0), (), jax.devices()[:1], {})
    about = runs.pieces.About("walk", {}, {}, [], 1.0, {})
    numbers = {"size": np.ones(3)}
    each = runs.Runs(WALK.learner, about, numbers, np.arange(3), np.zeros(3, int), [])
    with pytest.raises(signals.Stop):
        programs.get(each, 3, wish)
    release.set()
    programs.close()
