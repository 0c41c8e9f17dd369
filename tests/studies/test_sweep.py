"""The sweep: what it computes, refuses, saves, and resumes after any mishap.

Run as a program, this file is a toy study: ``python test_sweep.py directory '{...}'``.
"""

import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st

from loplax.studies import results, runs, statistics, sweep

BINS = 4


def init(key, hparams, data=()):
    key, key_w = jax.random.split(key)
    return {
        "key": key,
        "w": jax.random.normal(key_w, [3]),
        "count": 0,
        "odd": False,
        "none": jnp.zeros([0]),
        "hparams": hparams,
    }


def step(state, _):
    key, key_draw, key_noise = jax.random.split(state["key"], 3)
    draw = jax.random.randint(key_draw, [], 0, 2**24)
    noise = state["hparams"]["size"] * jax.random.normal(key_noise, [3])
    w = jnp.tanh(state["w"] @ jnp.ones([3, 3]) / 3.1) + noise
    new = {"key": key, "w": w, "count": state["count"] + 1, "odd": ~state["odd"]}
    metrics = {"draw": draw, "loss": jnp.sum(w**2), "count": new["count"]}
    return state | new, metrics


def segment(state, data=()):
    return jax.lax.scan(step, state, None, BINS)


WALK = sweep.Method(sweep.Learner(init, segment), {"size": 0.3})
DEAF = sweep.Method(sweep.Learner(init, segment), {"size": 0.3, "deaf": 1.0})
METHODS = {"walk": WALK, "deaf": DEAF}


def study(directory, methods=METHODS, **changes):
    asked = {
        "key": jax.random.key(7),
        "num_seeds": 3,
        "num_segments": 6,
        "steps_per_segment": 40,
        "settings": {"size": [0.1, 0.5], "deaf": [1.0, 2.0]},
        "progress": False,
    }
    return sweep.run(directory, methods, **(asked | changes))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An uninterrupted study, and the bytes of its results."""
    directory = tmp_path_factory.mktemp("plain") / "study"
    return study(directory), (directory / "results.nc").read_bytes()


def start(directory, **changes):
    """Starts this file as a program."""
    two = {"JAX_NUM_CPU_DEVICES": str(changes.pop("devices", 1))}
    root = str(pathlib.Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, __file__, str(directory), json.dumps(changes)],
        env=os.environ | two | {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    """Waits for the program and returns what it wrote on stderr."""
    _, text = process.communicate(timeout=60)
    assert process.returncode == 0, text
    return text


def same(found, expected):
    """The draws are the same bit for bit, the floats up to rounding."""
    xarray.testing.assert_identical(found["draw"], expected["draw"])
    xarray.testing.assert_allclose(found, expected, rtol=2e-5)


def stop_after(monkeypatch, calls, act):
    """Does ``act`` when that many segments have been recorded."""
    left = [calls]

    def record(*args):
        RECORD(*args)
        left[0] -= 1
        if not left[0]:
            act()

    monkeypatch.setattr(results, "record", record)


RECORD = results.record


def crash():
    raise RuntimeError("crash")


@pytest.fixture(scope="module")
def crash_site(tmp_path_factory):
    """A study that has crashed in the second method, with two checkpoints."""
    directory = tmp_path_factory.mktemp("crash")
    with pytest.MonkeyPatch.context() as monkeypatch:
        stop_after(monkeypatch, 11, crash)
        with pytest.raises(RuntimeError, match="crash"):
            study(directory, checkpoint_seconds=0)
    names = sorted(path.name for path in (directory / "checkpoints").iterdir())
    assert names == ["8", "8.json", "9", "9.json"]
    return directory


@pytest.fixture
def crashed(crash_site, tmp_path):
    """A copy of the crashed study."""
    return shutil.copytree(crash_site, tmp_path / "crashed")


# What it computes.


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
    assert list(found["arm"].values[[0, 5]]) == [
        "walk size=0.1",
        "deaf deaf=2 size=0.5",
    ]
    assert list(found["size"].values) == [0.1, 0.5, 0.1, 0.5, 0.1, 0.5]
    np.testing.assert_array_equal(found["deaf"], [np.nan, np.nan, 1, 1, 2, 2])
    assert json.loads(found.attrs["config"]) == {}
    assert list(found["step"].values) == [10.0 * (i + 1) for i in range(24)]
    assert (found["bins_done"] == 24).all() and not found["diverged"].any()


def test_seeds_draw_the_same_in_all_methods_and_settings(plain):
    found, _ = plain
    draws = found["draw"]
    assert (draws == draws.isel(arm=0)).all()
    assert len(np.unique(draws.isel(arm=0))) == 3 * 24


@pytest.mark.parametrize(
    "grouping", [{"runs_per_block": 1}, {"runs_per_block": 4, "max_runs": 5}]
)
def test_grouping_changes_no_draw(plain, tmp_path, grouping):
    same(study(tmp_path, **grouping), plain[0])


def test_two_devices(plain, tmp_path):
    """Two devices give the same numbers, and do not talk to each other."""
    ended(start(tmp_path, devices=2, runs_per_block=2))
    same(results.load(tmp_path), plain[0])


@given(st.integers(1, 500), st.integers(1, 8), st.integers(1, 64))
def test_layout_wastes_little(count, num_devices, runs_per_block):
    rows, block = runs.layout(count, num_devices, runs_per_block)
    blocks = rows // num_devices // block
    assert rows == num_devices * blocks * block
    assert block <= runs_per_block
    assert 0 <= rows - count < num_devices * (blocks + 1)


def test_a_method_is_compiled_once():
    """Also where types are weak at first, and for the state of a checkpoint."""
    traced = []
    walk = sweep.Learner(init, lambda state, _: (traced.append(1), segment(state))[1])
    walk = sweep.Method(walk, {"size": 0.3})
    each = runs.enumerate_runs("walk", 0, walk, [{}], (jax.random.key(0), 3), ())
    program = runs.build(walk.learner, 3, jax.devices()[:1], 2)
    state = runs.begin(program, each, np.arange(3), jax.random.key(0), ())
    for _ in range(2):
        state, _ = program.segment((), state)
    state = runs.to_devices(program, each, runs.to_host(state, 3))
    program.segment((), state)
    assert len(traced) == 2  # the first is to find the shapes


def test_a_diverged_run_is_marked_and_leaves_the_others_alone(plain, tmp_path):
    def segment_that_fails(state, data):
        state, metrics = segment(state)
        fails = (state["hparams"]["size"] > 1) & (state["count"] > 2 * BINS)
        late = jnp.where(state["count"] > BINS, metrics["loss"], jnp.nan)
        loss = jnp.where(fails, jnp.nan, metrics["loss"])
        return state, metrics | {"loss": loss, "late": late}

    walk = sweep.Method(sweep.Learner(init, segment_that_fails), {"size": 1.0})
    found = study(tmp_path, {"walk": walk}, settings={"size": [0.1, 2.0]})
    assert found["diverged"].values.tolist() == [[False] * 3, [True] * 3]
    assert (found["bins_done"] == 24).all()
    assert found["bins_sound"].values.tolist() == [[24] * 3, [8] * 3]
    where = np.isnan(found["loss"].isel(arm=1)).all("seed")
    assert where.values.tolist() == [False] * 8 + [True] * 16
    table = statistics.summary(found, "late", range(24))
    runs = [[0] * 4 + [3] * 20, [0] * 4 + [3] * 4 + [0] * 16]
    assert table["runs"].values.tolist() == runs
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


def test_data_is_shared_by_all_runs(tmp_path):
    """Every run gets the whole of it, however runs are grouped."""

    def segment_with_data(state, data):
        state, metrics = segment(state)
        return state, metrics | {"sum": metrics["loss"] * 0 + data["x"].sum()}

    method = sweep.Method(sweep.Learner(init, segment_with_data), {"size": 0.3})
    data = {"x": np.arange(5, dtype=np.uint8)}
    for block in (1, 2):
        options = {"settings": {}, "data": data, "runs_per_block": block}
        found = study(tmp_path / str(block), {"walk": method}, **options)
        assert (found["sum"] == 10).all()


# What it refuses.


def changes_shape(state, data):
    return state | {"w": jnp.zeros([4])}, {"loss": jnp.zeros([2])}


def one_number(state, data):
    return state, {"loss": jnp.zeros([])}


def named(name):
    return lambda state, data: (state, {name: jnp.zeros([2])})


def method(function):
    return {"walk": sweep.Method(sweep.Learner(init, function), {"size": 0.3})}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_seeds": 0}, "num_seeds is 0"),
        ({"num_segments": 1.5}, "num_segments is 1.5"),
        ({"steps_per_segment": True}, "steps_per_segment is True"),
        ({"runs_per_block": -1}, "runs_per_block is -1"),
        ({"max_runs": 0}, "max_runs is 0"),
        ({"devices": []}, "devices is 0"),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds is nan"),
        ({"key": 3}, "typed key"),
        ({"key": np.zeros(2, np.uint32)}, "typed key"),
        ({"settings": {"sise": [0.1]}}, "'sise'; the nearest is 'size'"),
        ({"settings": {"size": []}}, "missing"),
        ({"settings": {"size": [0.1, 0.1]}}, "repeated"),
        ({"settings": {"size": [0.1, float("inf")]}}, "size is inf"),
        ({"settings": {"size": ["0.1"]}}, "size is '0.1'"),
        ({"methods": {}}, "methods is empty"),
        ({"methods": {"a": WALK._replace(hparams={"size": np.nan})}}, "size is nan"),
        ({"methods": method(changes_shape)}, r"state\['w'\] from"),
        ({"methods": method(one_number)}, r"one shape \[bins\]"),
        ({"methods": method(named("step"))}, "'step' is taken"),
        ({"methods": method(named("size"))}, "'size' is taken"),
        ({"config": {"net": object()}}, "JSON"),
    ],
)
def test_bad_input_is_refused_before_anything_is_touched(
    tmp_path, crashed, changes, message
):
    """Also where a study is to be overwritten."""
    before = {p: p.read_bytes() for p in crashed.rglob("*") if p.is_file()}
    settings = {"settings": {"size": [0.1]}}
    for directory in (tmp_path / "new", crashed):
        with pytest.raises(ValueError, match=message):
            study(directory, **(settings | changes), overwrite=True)
    assert not (tmp_path / "new").exists()
    assert before == {p: p.read_bytes() for p in crashed.rglob("*") if p.is_file()}


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("text")
    for directory in (tmp_path / "file", tmp_path / "file" / "study"):
        with pytest.raises(ValueError, match="cannot write to"):
            study(directory)


def test_another_config_is_refused_and_named(tmp_path):
    study(tmp_path, num_segments=2, config={"net": {"width": 8}, "sizes": (1, 2)})
    study(tmp_path, num_segments=2, config={"net": {"width": 8}, "sizes": (1, 2)})
    with pytest.raises(ValueError) as error:
        study(tmp_path, num_segments=3, config={"net": {"width": 9, "depth": 1}})
    assert "config.net.depth: none -> 1; config.net.width: 8 -> 9" in str(error.value)
    assert "config.sizes: [1, 2] -> none" in str(error.value)
    assert "study.num_segments: 2 -> 3" in str(error.value)
    assert study(tmp_path, num_segments=3, overwrite=True).sizes["bin"] == 12


def test_overwriting_leaves_what_is_not_the_study(tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match="no config.json"):
        study(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    study(tmp_path, num_segments=1)
    study(tmp_path, num_segments=1, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years"


# What it saves, and how it goes on.


def test_the_directory_of_a_finished_study(tmp_path, plain, monkeypatch):
    study(tmp_path, config={"net": "mlp"})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"results.nc", "config.json", "versions.json"}
    assert json.loads((tmp_path / "config.json").read_text())["config"] == {
        "net": "mlp"
    }
    assert {"python", "jax", "device"} <= set(
        json.loads((tmp_path / "versions.json").read_text())
    )
    found = xarray.load_dataset(tmp_path / "results.nc")
    xarray.testing.assert_equal(found, plain[0])
    assert json.loads(found.attrs["config"]) == {"net": "mlp"}
    monkeypatch.setattr(runs, "build", None)
    xarray.testing.assert_identical(study(tmp_path, config={"net": "mlp"}), found)


def test_a_crashed_study_goes_on_where_it_was(crashed, plain, monkeypatch):
    recorded = []
    stop_after(monkeypatch, 1, lambda: recorded.append(results.load(crashed)))
    study(crashed)
    assert recorded[0]["bins_done"].isel(arm=slice(2, 6)).values.min() == 4 * BINS
    assert (crashed / "results.nc").read_bytes() == plain[1]


def test_results_are_there_while_the_study_runs(crashed):
    found = results.load(crashed)
    walk, deaf = found.isel(arm=slice(0, 2)), found.isel(arm=slice(2, 6))
    assert (walk["bins_done"] == 24).all() and (deaf["bins_done"] == 16).all()
    assert deaf["loss"].notnull().sum() == 4 * 3 * 16


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def garble(path):
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [truncate, garble, pathlib.Path.unlink])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(crashed, plain, damage):
    files = [path for path in (crashed / "checkpoints" / "9").rglob("*")]
    for path in filter(pathlib.Path.is_file, files):
        damage(path)
    with pytest.warns(UserWarning, match="checkpoints/9 is damaged") as warned:
        study(crashed)
    assert len(warned) == 1
    assert (crashed / "results.nc").read_bytes() == plain[1]


def test_without_a_good_checkpoint_unfinished_runs_start_again(crashed, plain):
    for number in "89":
        shutil.rmtree(crashed / "checkpoints" / number / "state")
    with pytest.warns(UserWarning, match="checkpoints/[89] is damaged"):
        study(crashed)
    assert (crashed / "results.nc").read_bytes() == plain[1]


def test_a_checkpoint_of_other_code_is_left_out(crashed):
    def init_wider(key, hparams, data):
        return init(key, hparams) | {"count": 0.0}

    wider = sweep.Method(sweep.Learner(init_wider, segment), DEAF.hparams)
    with pytest.warns(UserWarning, match=r"state\['count'\] is int32\[\], not float32"):
        found = study(crashed, {"walk": WALK, "deaf": wider})
    assert (found["bins_done"] == 24).all()


def test_results_of_other_code_are_refused(crashed):
    more = sweep.Method(sweep.Learner(init, named("loss")), DEAF.hparams)
    less = sweep.Method(sweep.Learner(init, named("loss")), WALK.hparams)
    with pytest.raises(ValueError, match="metrics have changed"):
        study(crashed, {"walk": less, "deaf": more})


def test_damaged_or_missing_results_start_the_study_again(crashed, plain):
    truncate(crashed / "results.nc")
    with pytest.warns(UserWarning, match="starts anew|is left out"):
        study(crashed)
    assert (crashed / "results.nc").read_bytes() == plain[1]
    (crashed / "results.nc").unlink()
    study(crashed)
    assert (crashed / "results.nc").read_bytes() == plain[1]


def test_other_versions_are_told(crashed):
    versions = json.loads((crashed / "versions.json").read_text())
    (crashed / "versions.json").write_text(json.dumps(versions | {"jax": "0.0.1"}))
    with pytest.warns(UserWarning, match='jax: "0.0.1" -> '):
        study(crashed)


def test_the_grouping_may_change_on_the_way(crashed, plain):
    same(study(crashed, max_runs=2, runs_per_block=1), plain[0])


@pytest.fixture
def foreground():
    """Ctrl-C interrupts: a job in the background may have been started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("foreground")
def test_ctrl_c_saves_and_the_same_call_goes_on(tmp_path, plain, monkeypatch, capsys):
    before = signal.getsignal(signal.SIGINT)
    stop_after(monkeypatch, 8, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path)
    assert "the same call goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    assert results.load(tmp_path)["bins_done"].values.tolist() == [
        *[[24] * 3] * 2,
        *[[8] * 3] * 4,
    ]
    study(tmp_path)
    assert (tmp_path / "results.nc").read_bytes() == plain[1]


@pytest.mark.usefixtures("foreground")
def test_a_second_ctrl_c_interrupts_at_once(tmp_path, monkeypatch):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    stop_after(monkeypatch, 2, twice)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path)
    assert (results.load(tmp_path)["bins_done"] == 0).all()


def test_a_full_disk_is_told_and_leaves_the_files_of_before(crashed, plain):
    """A limit on the size of files stands for the disk."""
    before = {p: p.read_bytes() for p in crashed.rglob("*") if p.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**10, limits[1]))
    try:
        with pytest.raises(OSError, match="results.nc"):
            study(crashed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert before == {p: p.read_bytes() for p in crashed.rglob("*") if p.is_file()}
    study(crashed)
    assert (crashed / "results.nc").read_bytes() == plain[1]


def test_a_killed_study_ends_with_the_same_bytes(tmp_path):
    """Killed three times at random moments."""
    length = {"num_segments": 40, "max_runs": 6}
    whole = start(tmp_path / "whole", **length)
    killed = tmp_path / "killed"
    chance = random.Random(time.time_ns())
    for _ in range(3):
        process = start(killed, **length, checkpoint_seconds=0)
        before = (killed / "results.nc").stat().st_mtime_ns if killed.exists() else 0
        while process.poll() is None:
            time.sleep(0.01)
            path = killed / "results.nc"
            if path.exists() and path.stat().st_mtime_ns > before:
                break
        time.sleep(chance.uniform(0.5, 2.0))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    ended(whole)
    assert not (results.load(killed)["bins_done"] == 160).all()
    ended(start(killed, **length))
    expected = (tmp_path / "whole" / "results.nc").read_bytes()
    assert (killed / "results.nc").read_bytes() == expected


def test_the_bar_tells_method_and_speed(tmp_path):
    text = ended(start(tmp_path, progress=True))
    assert "deaf: 100%" in text and "step/s" in text
    assert "4.32k/4.32k" in text  # 3 seeds, 2 + 4 settings, 6 segments of 40


def main(directory, changes):
    study(directory, **changes)
    if len(jax.devices()) > 1:
        each = runs.enumerate_runs("walk", 0, WALK, [{}], (jax.random.key(0), 4), ())
        program = runs.build(each.learner, 4, jax.devices(), 1)
        state = runs.begin(program, each, np.arange(4), jax.random.key(0), ())
        text = program.segment.lower((), state).compile().as_text()
        assert not any(word in text for word in ("all-", "collective", "permute"))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
