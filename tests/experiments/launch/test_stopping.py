"""A program that is stopped: what is finished is saved, and it ends at once."""

import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time

import pytest

from loplax.studies import results

ROOT = pathlib.Path(__file__).parents[3]
SECONDS = 20  # until a program has begun, or has ended; a segment would take minutes
# The third of four segments takes minutes, or the compiler does.
PROGRAM = """
import signal, sys, time, types
import jax, jax.numpy as jnp
from experiments.launch import program, running
from experiments.slowly_changing_regression import config
from loplax.studies import runs, signals, sweep

# A job in the background may have been started to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
slow, workdir = sys.argv[1:]
signals.GRACE = 1.0


def init(key, hparams, data):
    return {"x": jnp.ones([8, 8]) * hparams["size"], "count": 0}


def segment(state, data):
    times = jnp.where(state["count"] == 2, 2**30, 1)
    turn = lambda i, x: jnp.tanh(x @ jnp.ones([8, 8]) / 8 + 0.01 * i)
    x = jax.lax.fori_loop(0, times, turn, state["x"])
    return {"x": x, "count": state["count"] + 1}, {"loss": x.sum()[None]}


def study(*_, **__):
    return sweep.run(
        workdir,
        {"slow": sweep.Method(sweep.Learner(init, segment), {"size": 1.0})},
        key=jax.random.key(0),
        num_seeds=2,
        num_segments=4,
        steps_per_segment=1,
        checkpoint_seconds=1e6,
        on_segment=[lambda told: print(told.step, flush=True)],
    )


def compiled(*_):
    print("compiling", flush=True)
    time.sleep(1_000)


if slow == "compiler":
    runs.compiled = compiled
running.launch = study
for name, value in {"WORKDIR": workdir, "OVERWRITE": False, "WRITE": ()}.items():
    setattr(program, name, types.SimpleNamespace(value=value))
program.DATA_DIR = program.SHARD = types.SimpleNamespace(value=None)
program.DISTRIBUTED = program.SHARD
program._run(["run"], config.get_config("smoke"), "slowly_changing_regression", "smoke")
"""


def begun(slow, workdir, line):
    """Starts the program, and waits until it has printed the line."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, slow, str(workdir)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = queue.Queue()
    read = lambda: [lines.put(each.strip()) for each in process.stdout]
    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + 3 * SECONDS
    while lines.get(timeout=max(0, deadline - time.monotonic())) != line:
        pass
    time.sleep(0.3)
    return process


def ended(process, number):
    """Stops the program; returns its status and what it said."""
    process.send_signal(number)
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_segment_of_minutes_is_given_up_and_all_before_it_is_saved(tmp_path, number):
    status, text = ended(begun("device", tmp_path, "2.0"), number)
    assert status == 128 + number, text
    assert "the segment in progress has 1 s to end" in text
    assert "stopped and saved" in text
    assert results.load(tmp_path)["bins_done"].values.tolist() == [[2, 2]]
    assert [path.name for path in (tmp_path / "states").iterdir()] == [
        "000001-00000002.npz"
    ]
    assert not (tmp_path / ".lock").exists()


def test_a_second_signal_ends_at_once(tmp_path):
    process = begun("device", tmp_path, "2.0")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    status, text = ended(process, signal.SIGINT)
    assert status == 128 + signal.SIGINT, text
    assert "stopped and saved" not in text


def test_a_compiler_that_takes_minutes_holds_nothing_up(tmp_path):
    status, text = ended(begun("compiler", tmp_path, "compiling"), signal.SIGTERM)
    assert status == 128 + signal.SIGTERM, text
