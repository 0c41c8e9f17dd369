"""Locks: one process holds one, and nobody who is dead."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from loplax import locks

HOLD = """
import sys, time, pathlib
from loplax import locks
with locks.held(sys.argv[1], "the study"):
    pathlib.Path(sys.argv[2]).write_text("held")
    time.sleep(60)
"""


def start(path, sign):
    root = str(pathlib.Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(sign)], cwd=root
    )
    while not sign.exists():
        time.sleep(0.01)
    return process


def test_a_second_process_is_told_who_holds_it(tmp_path):
    path = tmp_path / "lock"
    process = start(path, tmp_path / "sign")
    who = f"the study is in use by process {process.pid} on {socket.gethostname()}"
    with pytest.raises(ValueError, match=who), locks.held(path, "the study"):
        pass
    process.kill()
    process.wait()
    assert path.exists()  # it outlived its holder
    with locks.held(path, "the study"):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()


def test_a_thread_is_told_too(tmp_path):
    refused = pytest.raises(ValueError, match="the data is in use")
    with locks.held(tmp_path / "lock", "the data"), refused:
        locks.held(tmp_path / "lock", "the data").__enter__()
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_half_a_lock_is_none(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    with locks.held(tmp_path / "lock", "the study"):
        pass


@pytest.mark.parametrize("alive", [True, False])
def test_another_host_is_believed_while_its_heart_beats(tmp_path, monkeypatch, alive):
    """Its kernel holds a lock that this one may not know of."""
    monkeypatch.setattr(locks, "_WATCH", 0.6)
    path, ended = tmp_path / "lock", threading.Event()
    path.write_text(json.dumps({"host": "node7", "process": 1, "since": "today"}))

    def beat():
        while not ended.wait(0.05):
            os.utime(path)

    heart = threading.Thread(target=beat)
    if alive:
        heart.start()
        with pytest.raises(ValueError, match="process 1 on node7 since today"):
            locks.held(path, "the study").__enter__()
        ended.set()
        heart.join()
    with locks.held(path, "the study"):
        assert json.loads(path.read_text())["host"] == socket.gethostname()


def test_the_holders_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_BEAT", 0.01)
    with locks.held(tmp_path / "lock", "the study"):
        before = (tmp_path / "lock").stat().st_mtime_ns
        time.sleep(0.2)
        assert (tmp_path / "lock").stat().st_mtime_ns > before


def test_without_locks_of_the_kernel_the_beat_alone_tells(tmp_path, monkeypatch):
    """As on Windows, and on some file systems."""
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "_BEAT", 0.05)
    monkeypatch.setattr(locks, "_WATCH", 0.6)
    refused = pytest.raises(ValueError, match="in use by process")
    with locks.held(tmp_path / "lock", "the study"), refused:
        locks.held(tmp_path / "lock", "the study").__enter__()
    (tmp_path / "lock").write_text(json.dumps(locks._self()))
    with locks.held(tmp_path / "lock", "the study"):
        pass


def test_of_many_that_begin_at_once_one_at_a_time_holds_it(tmp_path):
    """Also when the lock of a dead process is there, and holders come and go."""
    (tmp_path / "lock").write_text(json.dumps(locks._self() | {"process": 1}))
    inside, most, held = [], [], []

    def work():
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            try:
                with locks.held(tmp_path / "lock", "the study"):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.001)
                    inside.pop()
                    held.append(1)
            except ValueError:
                time.sleep(0.001)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(held) > 10
