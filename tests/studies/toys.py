"""A toy study, that is quick and shows every number that it draws.

As a program it runs in a process of its own: ``python toys.py directory '{...}'``.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import xarray

from loplax.studies import sweep

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
    """Runs the toy study: 6 segments of 4 bins, 3 seeds, 2 + 4 arms."""
    asked = {
        "key": jax.random.key(7),
        "num_seeds": 3,
        "num_segments": 6,
        "steps_per_segment": 40,
        "settings": {"size": [0.1, 0.5], "deaf": [1.0, 2.0]},
        "progress": False,
    }
    return sweep.run(directory, methods, **(asked | changes))


def same(found, expected):
    """The draws are the same bit for bit, the floats up to rounding."""
    xarray.testing.assert_identical(found["draw"], expected["draw"])
    xarray.testing.assert_allclose(found, expected, rtol=2e-5)


def equal(found, expected):
    """All is the same bit for bit, but for the order of arms."""
    xarray.testing.assert_identical(found.sortby("arm"), expected.sortby("arm"))


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
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0, text
    return text


if __name__ == "__main__":
    study(sys.argv[1], **json.loads(sys.argv[2]))
