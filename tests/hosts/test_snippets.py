"""The code of docs/hosts.md runs, and adds little to a plain loop."""

import pathlib
import re

import jax
import pytest

TEXT = (pathlib.Path(__file__).parents[2] / "docs" / "hosts.md").read_text()
SECTIONS = [part for part in re.split(r"^## ", TEXT, flags=re.M) if "```python" in part]
BLOCKS = {
    part.splitlines()[0]: "\n".join(re.findall(r"```python\n(.*?)```", part, re.S))
    for part in SECTIONS
}
SETTING, *_, VERIFY, BINARY = BLOCKS.values()
LOOPS = dict(list(BLOCKS.items())[1:-2])


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
