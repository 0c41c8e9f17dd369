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
SETTING, LOOPS, VERIFY = (
    list(BLOCKS.values())[0],
    dict(list(BLOCKS.items())[1:-1]),
    list(BLOCKS.values())[-1],
)


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
