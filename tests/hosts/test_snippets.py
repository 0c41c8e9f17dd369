"""The code of docs/hosts.md runs, and adds little to a plain loop."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from loplax import optim

TEXT = (pathlib.Path(__file__).parents[2] / "docs" / "hosts.md").read_text()
SECTIONS = [part for part in re.split(r"^## ", TEXT, flags=re.M) if "```python" in part]
BLOCKS = {
    part.splitlines()[0]: "\n".join(re.findall(r"```python\n(.*?)```", part, re.S))
    for part in SECTIONS
}
SETTING, *_, VERIFY, BINARY, TASKS = BLOCKS.values()
LOOPS = dict(list(BLOCKS.items())[1:-3])
NO_TRANSFORMATIONS = {
    "fisher",
    "gaussian",
    "newly_replaced",
    "permuted",
    "sample",
    "sensitivity",
}


@pytest.mark.parametrize("title", LOOPS)
def test_a_loop_runs_and_learns(title):
    space = {}
    exec(SETTING + LOOPS[title], space)
    assert LOOPS[title].count("# +") <= 8
    assert len(space["hidden"]) in (1, 2) and space["hidden"][0].size == 64
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(space["x"]))


def test_the_call_of_verify_runs():
    space = {}
    exec(SETTING + LOOPS["Equinox"] + VERIFY, space)


def test_the_binarised_network_is_released(capsys):
    space = {}
    exec(SETTING + BINARY, space)
    said = capsys.readouterr().out
    assert "sign(hidden_0/kernel)[1] sign(hidden_1/kernel)[0]" in " ".join(said.split())
    assert set(space["tx"].init(space["params"]).released) == {"hidden_0", "hidden_1"}


def test_two_tasks_are_consolidated():
    space = {}
    exec(SETTING + TASKS, space)
    state, params = space["state"][0], space["params"]
    assert all(jnp.any(leaf > 0) for leaf in jax.tree.leaves(state.importance))
    assert jax.tree.structure(state.anchor) == jax.tree.structure(params)


def test_the_line_for_nnx_consolidates():
    (line,) = re.findall(r"`(o\.opt_state = .*)`", TEXT)
    ewc = optim.elastic_weight_consolidation(5e3)
    m = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    o = nnx.Optimizer(m, optax.chain(ewc, optax.adam(1e-3)), wrt=nnx.Param)
    importance = jax.tree.map(jnp.ones_like, nnx.state(m, nnx.Param))
    exec(line, dict(o=o, m=m, ewc=ewc, nnx=nnx, importance=importance))
    held = nnx.to_pure_dict(nnx.state(o))["opt_state"][0]
    np.testing.assert_array_equal(held["anchor"]["kernel"], m.kernel[...])
    assert jnp.all(held["importance"]["kernel"] == 1)


def test_every_transformation_has_one_place():
    known = {name for name, made in vars(optim).items() if callable(made)}
    known = {name for name in known if name.islower()} - NO_TRANSFORMATIONS
    table = TEXT.split("## What wraps an optimiser")[1].split("\n## ")[0]
    cells = [row.split(" | ")[1] for row in table.splitlines() if row.count(" | ")]
    named = re.findall(r"`(\w+)`", " ".join(cells))
    assert sorted(named) == sorted(known)
