"""Where a study runs, and how programs are compiled and kept."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from experiments.launch import devices

ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.parametrize("platform", ["gpx", "", None])
def test_unknown_platforms_are_refused(platform):
    with pytest.raises(ValueError, match=f"platform.*{platform!r}"):
        devices.devices(platform)


def test_platforms_that_are_not_there_are_refused():
    """GPUs are hidden from the program; on a TPU there is nothing to refuse."""
    code = (
        "from experiments.launch import command_line, devices\n"
        "for platform in ('gpu', 'tpu'):\n"
        "    try:\n"
        "        with command_line.clear_errors():\n"
        "            devices.devices(platform)\n"
        "    except SystemExit as ended:\n"
        "        print(ended)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0 and ended.stderr == ""
    gpu, *tpu = ended.stdout.splitlines()
    assert gpu.startswith("error: platform 'gpu' is not there")
    assert all(line.startswith("error: platform 'tpu' is not there") for line in tpu)
    assert len(tpu) <= 1


def test_after_jax_was_used_its_devices_stay():
    before = jax.devices()
    assert devices.devices("auto") == before


def test_the_compiler_takes_its_options():
    options = devices.compiler_options(jax.devices("cpu")[0])
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1.0) == 2.0


class Settings(dict):
    """Settings of jax."""

    jax_compilation_cache_dir = None
    update = dict.__setitem__


@pytest.fixture
def kept(monkeypatch):
    """``(environment, folder) -> settings`` that are made where jax has that folder."""

    def kept(environment, folder=None):
        for name in ("DIR", "MIN"):
            full = {"DIR": "JAX_COMPILATION_CACHE_DIR"}
            full["MIN"] = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
            monkeypatch.delenv(full[name], raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        found = Settings()
        found.jax_compilation_cache_dir = folder
        monkeypatch.setattr(devices.jax, "config", found)
        devices.keep_compiled()
        return found

    return kept


def test_compiled_programs_are_kept_in_the_users_cache(kept):
    folder = "jax_compilation_cache_dir"
    least = "jax_persistent_cache_min_compile_time_secs"
    cache = str(pathlib.Path("cache", "loplax"))
    assert kept({"XDG_CACHE_HOME": "cache"}) == {folder: cache, least: 0.1}
    own = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "3"}
    assert kept({"XDG_CACHE_HOME": "cache"} | own) == {folder: cache}


def test_settings_of_jax_count(kept):
    """Also an empty folder, which keeps nothing."""
    for folder in ("mine", ""):
        assert kept({"JAX_COMPILATION_CACHE_DIR": folder}) == {}
    assert kept({}, folder="mine") == {}
