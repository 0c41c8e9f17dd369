"""Environments by name, and what importing them loads."""

import subprocess
import sys

import gymnax
import pytest

from loplax import envs


@pytest.mark.parametrize("name", ["CartPole-v1", "Breakout-MinAtar"])
def test_gymnax_environments_are_gymnaxs(name):
    env, params = envs.make(name)
    assert type(env) is type(gymnax.make(name)[0])
    assert type(params) is type(env.default_params)


@pytest.mark.parametrize(
    ("name", "near"),
    [("CartPole-v2", "CartPole-v1"), ("walker", "walker2d"), ("Ant", "ant")],
)
def test_an_unknown_name_is_an_error_with_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'"):
        envs.make(name)


def test_an_unknown_setting_is_an_error():
    with pytest.raises(TypeError, match="backend"):
        envs.make("CartPole-v1", backend="spring")


def test_importing_loads_gymnax_but_not_brax():
    code = "import sys, loplax.envs; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    loaded = {name.split(".")[0] for name in found.stdout.split()}
    assert "gymnax" in loaded
    assert not loaded & {"brax", "mujoco"}
