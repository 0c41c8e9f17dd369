"""The digest of functions is that of what they do."""

import functools
import subprocess
import sys
import textwrap
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from loplax import source

BEGIN = """
    import functools, jax, jax.numpy as jnp
    from typing import NamedTuple
    class Pair(NamedTuple):
        init: object
        draw: object
    NUMBER = 3
    def helper(x):
        return x * NUMBER
    def make(size, of=frozenset({"a", "b", "c"})):
        def inner(x):
            '''What it says.'''
            return jnp.tanh(helper(x)) + size if "a" in {"a", "b", "c"} else x
        return inner
    def loop(n):
        return loop(n - 1) if n else 0
"""
SAME = {
    "a comment": ("def helper(x):", "# here\n    def helper(x):"),
    "another place": ("NUMBER = 3", "\n\n\n    NUMBER = 3"),
    "what nobody calls": ("NUMBER = 3", "NUMBER = 3; OTHER = 4"),
}
OTHER = {
    "a number of the module": ("NUMBER = 3", "NUMBER = 4"),
    "a helper": ("return x * NUMBER", "return x + NUMBER"),
    "the function": ("+ size", "- size"),
    "a constant": ('"a" in {"a", "b"', '"a" in {"a", "d"'),
    "another function of a package": ("jnp.tanh", "jnp.sin"),
    "a recursion": ("else 0", "else 1"),
}
ASKED = "Pair(make(2.0), (jax.jit(make(1)), functools.partial(make, of=1), loop))"


def digest(text):
    scope = {"__name__": "user"}
    exec(textwrap.dedent(text), scope)
    return source.digest(eval(ASKED, scope))


@pytest.mark.parametrize("name", SAME)
def test_what_does_the_same(name):
    changed = BEGIN.replace(*SAME[name])
    assert changed != BEGIN and digest(changed) == digest(BEGIN)


@pytest.mark.parametrize("name", OTHER)
def test_what_does_something_else(name):
    changed = BEGIN.replace(*OTHER[name])
    assert changed != BEGIN and digest(changed) != digest(BEGIN)


class Pair(NamedTuple):
    init: object
    draw: object


def test_numbers_that_are_bound_count():
    scale = lambda size: lambda x: size * x
    found = {source.digest(scale(size)) for size in (1.0, 1.0, 2.0, "2.0")}
    assert len(found) == 3
    part = functools.partial
    assert source.digest(part(scale, 1)) != source.digest(part(scale, 2))
    one, other = Pair(scale(1), scale(2)), Pair(scale(2), scale(1))
    assert source.digest(one) != source.digest(other)


def test_code_of_others_counts_by_its_name():
    assert source.digest(jax.nn.relu) != source.digest(jnp.tanh)


def test_another_process_finds_the_same():
    """Whose texts have other hashes, so that sets have another order."""
    program = f"""
from loplax import source
exec({textwrap.dedent(BEGIN)!r}, scope := {{"__name__": "user"}})
print(source.digest(eval({ASKED!r}, scope)))
"""
    run = functools.partial(subprocess.run, capture_output=True, text=True)
    found = run([sys.executable, "-c", program])
    assert found.stdout.strip() == digest(BEGIN), found.stderr
