"""Walking along a stream, and comparing what was seen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="session")
def walker():
    """``(stream, draws) -> (key -> (states, items, (inputs, targets)))``, stacked."""

    def walker(stream, draws):
        def step(state, _):
            state, items = stream.draw(state)
            shown = jax.vmap(stream.example, (None, 0))(state, items)
            return state, (state, items, shown)

        walk = lambda key: jax.lax.scan(step, stream.init(key), None, draws)[1]
        return jax.jit(walk)

    return walker


@pytest.fixture(scope="session")
def numbers():
    """A tree as NumPy arrays, typed keys as the integers they are."""

    def number(x):
        key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if key else x)

    return lambda tree: jax.tree.map(number, tree)


@pytest.fixture(scope="session")
def assert_alike_side_by_side(walker, numbers):
    """Asserts that streams under vmap are those of each key alone, also out of step."""
    assert_same = functools.partial(jax.tree.map, np.testing.assert_array_equal)

    def check(stream, draws):
        walk = walker(stream, draws)
        keys = jax.random.split(jax.random.key(4), 3)
        together = numbers(jax.vmap(walk)(keys))
        for i, key in enumerate(keys):
            states, items, shown = walk(key)
            found = jax.tree.map(lambda leaf, i=i: leaf[i], together)
            assert_same(found, numbers((states, items, shown)))
        before = jax.tree.map(lambda leaf: leaf[:-1], states)
        after = jax.tree.map(lambda leaf: leaf[1:], (states, items))
        assert_same(numbers(jax.jit(jax.vmap(stream.draw))(before)), numbers(after))

    return check


@pytest.fixture(scope="session")
def assert_state_keeps_its_types():
    """Asserts that drawing leaves shapes and types of a state as they are.

    And that there is no task before the first draw, and task 0 after it.
    """

    def check(stream):
        before = jax.eval_shape(stream.init, jax.random.key(0))
        after, items = jax.eval_shape(stream.draw, before)
        types = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
        assert types(after) == types(before)
        assert {leaf.shape[0] for leaf in jax.tree.leaves(items)} == {stream.chunk}
        start = stream.init(jax.random.key(0))
        assert [int(stream.task(s)) for s in (start, stream.draw(start)[0])] == [-1, 0]

    return check
