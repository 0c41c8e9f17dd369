"""A proof, by perturbation, that a group owns exactly what it claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import units
from loplax.units import paths


def randomise(values, key):
    """Random parameters of a size that keeps activations alive."""
    new = {}
    for path, value in values.items():
        key, use = jax.random.split(key)
        real = jnp.issubdtype(value.dtype, jnp.inexact)
        noise = jax.random.normal(use, value.shape) if real else value
        new[path] = (0.5 * noise + 0.1).astype(value.dtype) if real else value
    return new


def write(values, records, chosen, make):
    """Replaces the entries that the chosen units own."""
    values = dict(values)
    for record in records:
        old = values[record.path]
        mask = jnp.broadcast_to(record.spread(chosen, old.shape), old.shape)
        values[record.path] = jnp.where(mask, make(old), old).astype(old.dtype)
    return values


def assert_independent(run, values, group, chosen):
    """Without outgoing weights, nothing that enters the units can be seen."""
    entering = (*group.incoming, *group.biases, *group.scales)
    silent = write(values, group.outgoing, chosen, jnp.zeros_like)
    changed = write(silent, entering, chosen, lambda old: 3 * old + 1)
    np.testing.assert_allclose(run(changed)[0], run(silent)[0], rtol=1e-4, atol=1e-4)


def assert_alive(run, values, group):
    """With outgoing weights, what enters the units can be seen."""
    entering = (*group.incoming, *group.biases, *group.scales)
    chosen = jnp.ones(group.size, bool)
    loud = write(values, entering, chosen, lambda old: 3 * old + 1)
    assert not np.allclose(run(loud)[0], run(values)[0], rtol=1e-6, atol=1e-6)


def assert_complete(run, values, group, unit):
    """With nothing recorded entering a unit, its activation is a constant."""
    chosen = jnp.arange(group.size) == unit
    features = []
    for seed in range(2):
        others = randomise(values, jax.random.key(seed + 7))
        for record in group.scales:
            others[record.path] = values[record.path]
        entering = (*group.incoming, *group.biases)
        muted = write(others, entering, chosen, jnp.zeros_like)
        features.append(run(muted, shift=float(seed))[1][group.name][..., unit])
    np.testing.assert_allclose(features[0], features[1], rtol=1e-4, atol=1e-4)


def assert_disjoint(values, group):
    """No weight belongs to two units, and ``total`` and ``count`` agree."""
    everything = (*group.incoming, *group.biases, *group.scales, *group.outgoing)
    for record in everything:
        shape = values[record.path].shape
        one_hot = jnp.eye(group.size)
        lay = [jnp.broadcast_to(record.spread(row, shape), shape) for row in one_hot]
        assert jnp.max(sum(lay)) <= 1
        expected = [float(jnp.sum(row)) for row in lay]
        np.testing.assert_allclose(record.total(jnp.ones(shape), group.size), expected)
        assert set(expected) == {record.count(shape, group.size)}


@pytest.fixture
def prove():
    """Proves all groups that are found in a model; returns them."""

    def prove(apply, params, *inputs, coupled=False, has_aux=False):
        found = units.find(apply, params, *inputs, has_aux=has_aux)
        units.check(found, params)
        known = paths.by_path(params)
        build = lambda new: known._replace(leaves=new).unflatten()
        values = randomise(known.leaves, jax.random.key(1))
        tapped = jax.jit(units.tap(apply, has_aux=has_aux))

        def run(values, shift=0.0):
            def move(x):
                real = jnp.issubdtype(x.dtype, jnp.floating)
                return x + shift if real and x.ndim > 1 else x

            moved = jax.tree.map(move, inputs)
            output, features = tapped(build(values), *moved)
            output = output[0] if has_aux else output
            leaves = jax.tree.leaves(output)
            flat = [jnp.ravel(leaf).astype(jnp.float32) for leaf in leaves]
            return jnp.concatenate(flat), features

        for group in found:
            assert_disjoint(values, group)
            assert_alive(run, values, group)
            assert_independent(run, values, group, jnp.ones(group.size, bool))
            # Norms over the units couple them, so these are only tested as a whole.
            for unit in () if coupled else (0, group.size // 2, group.size - 1):
                chosen = jnp.arange(group.size) == unit
                assert_independent(run, values, group, chosen)
                assert_complete(run, values, group, unit)
        return found

    return prove
