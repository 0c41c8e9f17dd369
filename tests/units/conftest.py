"""The laws of units: a proof that a group owns exactly what it claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import units


def by_path(params):
    """Parameters by path, and how to put them back."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    paths = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves]
    values = dict(zip(paths, [leaf for _, leaf in leaves], strict=True))
    return values, lambda new: jax.tree.unflatten(treedef, [new[p] for p in paths])


def randomise(values, key):
    """Random parameters, scales and biases too, that keep activations alive."""
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


def moved(old, record, order):
    """A parameter in which unit ``u`` has the entries of unit ``order[u]``."""
    axis = record.axis % old.ndim
    if record.groups > 1:
        blocks = np.split(old, record.groups, record.block_axis % old.ndim)
        orders = np.split(order, record.groups)
        taken = [
            np.take(block, part - min(part), axis)
            for block, part in zip(blocks, orders, strict=True)
        ]
        return np.concatenate(taken, record.block_axis % old.ndim)
    outer, inner = record.repeat
    index = np.arange(old.shape[axis])
    entries = record.start + np.arange(outer * len(order) * inner)
    laid = entries.reshape(outer, len(order), inner)
    index[entries] = laid[:, order].ravel()
    return np.take(old, index, axis)


def entering(group):
    return (*group.incoming, *group.biases, *group.scales)


def assert_independent(run, values, group, chosen):
    """Law (a): without outgoing weights, nothing that enters can be seen."""
    silent = write(values, group.outgoing, chosen, jnp.zeros_like)
    changed = write(silent, entering(group), chosen, lambda old: 3 * old + 1)
    np.testing.assert_allclose(run(changed)[0], run(silent)[0], rtol=1e-4, atol=1e-4)


def assert_read(jacobian, values, group, features):
    """Law (b): gradients of outgoing weights lie in the span of the activations."""
    for record in group.outgoing:
        if record.groups > 1 or record.repeat != (1, 1):
            continue
        read = features[record.feature or group.name]
        read = np.asarray(read, float).reshape(-1, group.size).T
        axis = record.axis % values[record.path].ndim
        rows = np.moveaxis(np.asarray(jacobian[record.path], float), axis + 1, 0)
        rows = rows[record.start : record.start + group.size].reshape(group.size, -1)
        rest = rows - read @ np.linalg.lstsq(read, rows, rcond=None)[0]
        assert np.abs(rest).max() <= 1e-3 * np.abs(rows).max(), (group.name, record)


def assert_exchangeable(run, values, group):
    """Law (c): units change places, within their blocks, and nothing changes."""
    blocks = np.arange(group.size).reshape(group.blocks, -1)
    order = np.random.default_rng(0).permuted(blocks, axis=1).ravel()
    swapped = {path: np.asarray(value) for path, value in values.items()}
    for record in (*entering(group), *group.outgoing):
        swapped[record.path] = moved(swapped[record.path], record, order)
    expected, scale = run(values)[0], np.abs(run(values)[0]).max() + 1e-6
    np.testing.assert_allclose(run(swapped)[0] / scale, expected / scale, atol=3e-4)


def assert_alive(run, values, group):
    """With outgoing weights, what enters the units can be seen."""
    chosen = jnp.ones(group.size, bool)
    loud = write(values, entering(group), chosen, lambda old: 3 * old + 1)
    assert not np.allclose(run(loud)[0], run(values)[0], rtol=1e-6, atol=1e-6)


def assert_complete(run, values, group, unit):
    """With nothing recorded entering a unit, its activation is a constant."""
    chosen = jnp.arange(group.size) == unit
    features = []
    for seed in range(2):
        others = randomise(values, jax.random.key(seed + 7))
        for record in group.scales:
            others[record.path] = values[record.path]
        muted = write(others, (*group.incoming, *group.biases), chosen, jnp.zeros_like)
        features.append(run(muted, shift=float(seed))[1][group.name][..., unit])
    np.testing.assert_allclose(features[0], features[1], rtol=1e-4, atol=1e-4)


def assert_disjoint(values, group):
    """No weight belongs to two units, and ``total`` and ``count`` agree."""
    for record in (*entering(group), *group.outgoing):
        shape = values[record.path].shape
        one_hot = jnp.eye(group.size)
        lay = [jnp.broadcast_to(record.spread(row, shape), shape) for row in one_hot]
        assert jnp.max(sum(lay)) <= 1
        expected = [float(jnp.sum(row)) for row in lay]
        np.testing.assert_allclose(record.total(jnp.ones(shape), group.size), expected)
        assert set(expected) == {record.count(shape, group.size)}


def assert_laws(run, values, group):
    """All of the above."""
    assert_disjoint(values, group)
    assert_alive(run, values, group)
    assert_independent(run, values, group, jnp.ones(group.size, bool))
    assert_exchangeable(run, values, group)
    # Statistics couple the units, so that the others are seen only as a whole.
    for unit in () if group.coupled_by else (0, group.size // 2, group.size - 1):
        assert_independent(run, values, group, jnp.arange(group.size) == unit)
        assert_complete(run, values, group, unit)


@pytest.fixture
def prove():
    """Proves all groups that are found in a model; returns them."""

    def prove(apply, params, *inputs, has_aux=False):
        found = units.find(apply, params, *inputs, has_aux=has_aux)
        units.check(found, params)
        values, build = by_path(params)
        values = randomise(values, jax.random.key(1))

        def tapped(values, inputs):
            apply_tapped = units.tap(apply, has_aux=has_aux)
            output, features = apply_tapped(build(values), *inputs)
            leaves = jax.tree.leaves(output[0] if has_aux else output)
            flat = [jnp.ravel(leaf).astype(jnp.float32) for leaf in leaves]
            return jnp.concatenate(flat), features

        tapped = jax.jit(tapped)

        def run(values, shift=0.0):
            def move(x):
                real = jnp.issubdtype(x.dtype, jnp.floating)
                return x + shift if real and x.ndim > 1 else x

            return tapped(values, jax.tree.map(move, inputs))

        @jax.jit
        def pull(real, rest):
            output, back, _ = jax.vjp(
                lambda real: tapped(real | rest, inputs), real, has_aux=True
            )
            keys = jax.random.split(jax.random.key(2), 4)
            random = jax.vmap(lambda key: jax.random.normal(key, output.shape))(keys)
            return jax.vmap(lambda cotangent: back(cotangent)[0])(random)

        differs = lambda value: jnp.issubdtype(value.dtype, jnp.inexact)
        real = {path: value for path, value in values.items() if differs(value)}
        rest = {path: value for path, value in values.items() if path not in real}
        jacobian = pull(real, rest) if found else {}
        for group in found:
            assert_laws(run, values, group)
            assert_read(jacobian, values, group, run(values)[1])
        return found

    return prove
