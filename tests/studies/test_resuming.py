"""A study that stops, however it does, goes on and ends with the same numbers."""

import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import xarray

from loplax.studies import compiling, results, runs, sweep, watching
from tests.studies import toys
from tests.studies.toys import DEAF, WALK, init, segment, study


def stop_after(calls, act):
    """Does ``act`` when that many segments have been computed."""
    left = [calls]

    def told(_):
        left[0] -= 1
        if not left[0]:
            act()

    return {"on_segment": [told]}


def crash():
    raise RuntimeError("crash")


@pytest.fixture(scope="session")
def crash_site(shared_programs, tmp_path_factory):
    """A study that has crashed in the second method, with two states."""
    directory = tmp_path_factory.mktemp("crash")
    with pytest.raises(RuntimeError, match="crash"):
        study(directory, checkpoint_seconds=0, **stop_after(11, crash))
    names = sorted(path.name for path in (directory / "states").iterdir())
    assert names == ["000002-00000016.npz", "000002-00000020.npz"]
    return directory


@pytest.fixture
def crashed(crash_site, tmp_path):
    """A copy of the crashed study."""
    return shutil.copytree(crash_site, tmp_path / "crashed")


def test_the_directory_of_a_finished_study(tmp_path, plain):
    """A file for each unit, which plain xarray opens; and no lock."""
    study(tmp_path, config={"net": "mlp"})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"study.json", "asked.json", "versions.json", "results", "states"}
    assert not list((tmp_path / "states").iterdir())
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert {"python", "jax", "device"} <= set(versions)
    first, second = sorted((tmp_path / "results").iterdir())
    with xarray.open_dataset(second) as found:
        assert dict(found.sizes) == {"run": 12, "bin": 24}
        assert set(found["method"].values) == {"deaf"}
        deaf = found["hparams.deaf"].values.tolist()
        assert deaf == [1.0] * 6 + [2.0] * 6
        expected = plain[0]["loss"].isel(arm=slice(2, 6)).values.reshape(12, 24)
        np.testing.assert_array_equal(found["loss"], expected)
    with xarray.open_dataset(first) as found:
        assert dict(found.sizes) == {"run": 6, "bin": 24}
    found = results.load(tmp_path)
    assert json.loads(found.attrs["config"]) == {"net": "mlp"}
    xarray.testing.assert_equal(found, plain[0])


def test_a_crashed_study_goes_on_where_it_was(crashed, plain):
    told = []
    found = study(crashed, on_segment=[told.append])
    assert [each.step for each in told] == [240.0] and told[0].unit == 2
    xarray.testing.assert_identical(found, plain[0])
    xarray.testing.assert_identical(results.load(crashed), plain[0])


def test_results_are_there_while_the_study_runs(crashed):
    found = results.load(crashed)
    walk, deaf = found.isel(arm=slice(0, 2)), found.isel(arm=slice(2, 6))
    assert (walk["bins_done"] == 24).all() and (deaf["bins_done"] == 20).all()
    assert deaf["loss"].notnull().sum() == 4 * 3 * 20


def test_what_was_saved_is_not_written_again(crashed):
    """While a unit runs, a file holds what is new."""
    spans = [path.name[:24] for path in sorted((crashed / "results").iterdir())]
    later = [f"000002-{first:08d}-{first + 4:08d}" for first in range(0, 20, 4)]
    assert spans == ["000001-00000000-00000024", *later]


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def garble(path):
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [truncate, garble])
def test_a_damaged_state_falls_back_to_the_one_before(crashed, plain, damage):
    path = crashed / "states" / "000002-00000020.npz"
    damage(path)
    data, told = path.read_bytes(), []
    with pytest.warns(UserWarning, match="00020.npz is damaged and was moved"):
        found = study(crashed, on_segment=[told.append])
    assert [each.step for each in told] == [200.0, 240.0]
    xarray.testing.assert_identical(found, plain[0])
    (aside,) = (crashed / "damaged").iterdir()
    assert aside.read_bytes() == data


def test_without_a_good_state_unfinished_runs_start_again(crashed, plain):
    for path in (crashed / "states").iterdir():
        path.unlink()
    found = study(crashed)
    xarray.testing.assert_identical(found, plain[0])
    xarray.testing.assert_identical(results.load(crashed), plain[0])
    assert len(list((crashed / "results").iterdir())) == 2


def test_a_state_of_other_code_is_left_out(crashed):
    def init_wider(key, hparams, data):
        return init(key, hparams) | {"count": 0.0}

    wider = sweep.Method(sweep.Learner(init_wider, segment), DEAF.hparams)
    with pytest.warns(UserWarning, match=r"state\['count'\] is int32\[\], not float32"):
        found = study(crashed, {"walk": WALK, "deaf": wider})
    assert (found["bins_done"] == 24).all()


@pytest.mark.parametrize("damage", [truncate, garble])
@pytest.mark.parametrize("unit", [1, 2])
def test_a_damaged_result_costs_no_more_than_its_unit(crashed, plain, damage, unit):
    """It is set aside, and computed again."""
    first = sorted((crashed / "results").glob(f"{unit:06d}-00000000-*"))[0]
    damage(first)
    data, told = first.read_bytes(), []
    with pytest.warns(UserWarning, match=f"{first.name} is damaged and was moved"):
        found = study(crashed, on_segment=[told.append])
    xarray.testing.assert_identical(found, plain[0])
    assert [each.method for each in told] == (
        ["walk"] * 6 + ["deaf"] if unit == 1 else ["deaf"] * 6
    )
    (aside,) = (crashed / "damaged").iterdir()
    assert aside.read_bytes() == data
    xarray.testing.assert_identical(results.load(crashed), plain[0])


def test_loading_leaves_out_what_is_damaged(crashed, contents):
    path = next((crashed / "results").glob("000001-*"))
    truncate(path)
    before = contents(crashed)
    with pytest.warns(UserWarning, match="is left out"):
        found = results.load(crashed)
    assert found["bins_done"].values[:, 0].tolist() == [0, 0, 20, 20, 20, 20]
    assert contents(crashed) == before


def test_other_versions_are_told(crashed, plain):
    versions = json.loads((crashed / "versions.json").read_text())
    (crashed / "versions.json").write_text(json.dumps(versions | {"jax": "0.0.1"}))
    with pytest.warns(UserWarning, match='jax: "0.0.1" -> '):
        xarray.testing.assert_identical(study(crashed), plain[0])


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "null"])
def test_missing_or_damaged_versions_refuse_nothing(crashed, plain, text):
    path = crashed / "versions.json"
    before = json.loads(path.read_text())
    path.unlink()
    if text is not None:
        path.write_text(text)
        with pytest.warns(UserWarning, match="versions.json is damaged"):
            found = study(crashed)
    else:
        found = study(crashed)
    xarray.testing.assert_identical(found, plain[0])
    assert json.loads(path.read_text()) == before


def test_a_damaged_mark_is_written_anew_where_results_tell_whose_they_are(
    crashed, plain
):
    truncate(crashed / "study.json")
    with pytest.warns(UserWarning, match="study.json is damaged"):
        xarray.testing.assert_identical(study(crashed), plain[0])
    with pytest.raises(ValueError, match="another study: config.a: none -> 1"):
        study(crashed, config={"a": 1})


def test_the_grouping_may_change_on_the_way(crashed, plain):
    toys.same(study(crashed, runs_per_block=1), plain[0])


@pytest.fixture
def foreground():
    """Ctrl-C interrupts: a job in the background may have been started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_call_goes_on(tmp_path, plain, capsys, number):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, **stop_after(8, lambda: signal.raise_signal(number)))
    assert "the same call goes on" in capsys.readouterr().err
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    done = results.load(tmp_path)["bins_done"].values[:, 0].tolist()
    # The signal came when the eighth segment was over, and was not saved yet.
    assert done == [24, 24, 8, 8, 8, 8]
    xarray.testing.assert_identical(study(tmp_path), plain[0])


@pytest.mark.usefixtures("foreground")
def test_a_second_ctrl_c_interrupts_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, **stop_after(2, twice))
    assert (results.load(tmp_path)["bins_done"] == 0).all()


def test_a_full_disk_is_told_and_leaves_the_files_of_before(crashed, plain, contents):
    """A limit on the size of files stands for the disk."""
    before = contents(crashed)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**10, limits[1]))
    try:
        with pytest.raises(OSError, match="left as it was.*[.]"):
            study(crashed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    after = contents(crashed)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.endswith(".tmp")]
    xarray.testing.assert_identical(study(crashed), plain[0])


def test_a_killed_process_ends_with_the_same_numbers(tmp_path):
    """Killed three times at random moments."""
    length = {"num_segments": 20, "runs_per_block": 6}
    whole = toys.start(tmp_path / "whole", **length)
    killed = tmp_path / "killed"
    chance = random.Random(time.time_ns())
    for _ in range(3):
        process = toys.start(killed, **length, checkpoint_seconds=0)
        names = lambda: set((killed / "results").glob("*.nc"))
        before = names()
        while process.poll() is None and names() <= before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 1.0))
        process.kill()
        process.communicate()
    toys.ended(whole)
    toys.ended(toys.start(killed, **length))
    xarray.testing.assert_identical(
        results.load(killed), results.load(tmp_path / "whole")
    )


def test_a_scheduler_may_stop_a_process(tmp_path, plain):
    """It saves and ends by itself."""
    process = toys.start(tmp_path, num_segments=20_000, checkpoint_seconds=0.1)
    while process.poll() is None and not list(tmp_path.glob("states/*.npz")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode != -signal.SIGTERM, text
    assert "signals.Stop: 15" in text and "stopped and saved" in text
    done = results.load(tmp_path)["bins_done"].values.max()
    states = sorted((tmp_path / "states").iterdir())
    assert 0 < done < 80_000 and states[-1].name == f"000001-{done:08d}.npz"


def test_the_bar_is_some_lines_where_there_is_no_terminal(
    tmp_path, capsys, monkeypatch
):
    """They tell compilation, method and speed, and have no carriage returns."""
    compiled, ready, asked = runs.compiled, compiling.Programs.ready, threading.Event()

    def late(*given):  # else it may be compiled before the bar is shown
        asked.wait(60)
        return compiled(*given)

    def noted(*given):
        found = ready(*given)
        asked.set()
        return found

    monkeypatch.setattr(runs, "compiled", late)
    monkeypatch.setattr(compiling.Programs, "ready", noted)
    study(tmp_path, progress=True, unit="example")
    text = capsys.readouterr().err
    assert "\r" not in text and "compiling walk (1/2)" in text
    assert "deaf (2/2): 100%" in text and "example/s" in text
    assert "4.32k/4.32k" in text  # 3 seeds, 2 + 4 arms, 6 segments of 40


def test_compilation_does_not_count_for_the_speed_of_the_bar(monkeypatch, capsys):
    """It counts as elapsed; a bar that is not shown has no clock."""
    clock = [time.time()]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    with watching.bar(1000, 0, "step", True) as bar:
        bar._time = time.time
        bar.start_t = bar.last_print_t = begun = clock[0]
        for number, wait in ((100, 900.0), (200, 500.0)):
            with watching.standing(bar):
                clock[0] += wait
            clock[0] += 40.0
            bar.update(number)
        assert 100 / 40 < bar.format_dict["rate"] < 200 / 40
        assert bar.format_dict["elapsed"] == clock[0] - begun
    with watching.bar(1000, 0, "step", False) as bar, watching.standing(bar):
        clock[0] += 1.0


def test_loading_needs_no_jax(crashed):
    code = (
        "import sys; from loplax.studies import results;"
        f"print(results.load({str(crashed)!r}).sizes['arm'], 'jax' in sys.modules)"
    )
    root = pathlib.Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True
    )
    assert ended.stdout.split() == ["6", "False"], ended.stderr
