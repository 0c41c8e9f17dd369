"""A branch under vmap: the values of a select, but only the work that is needed."""

import contextlib
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from loplax import branch

pytestmark = pytest.mark.usefixtures("quick_compile")

FLAGS = jnp.array([False, True, False])
ROWS = jnp.arange(12.0).reshape(3, 4)


def double_if(flag, x, log=lambda: None):
    """Twice ``x`` where the flag is set, else ``-x``."""

    def body(x):
        jax.debug.callback(log)
        return 2 * x

    return branch.cond(flag, body, lambda x: -x, x)


@pytest.mark.parametrize("jit", [lambda function: function, jax.jit])
def test_a_single_flag_is_an_if(jit):
    x = {"a": np.ones(2, np.float32), "b": np.array([3, 4], np.int32)}
    times = lambda factor: lambda x: jax.tree.map(lambda leaf: factor * leaf, x)
    double = jit(lambda flag, x: branch.cond(flag, times(2), None, x))
    either = jit(lambda flag, x: branch.cond(flag, times(2), times(-1), x))
    for found, factor in (
        (double(True, x), 2),
        (double(False, x), 0),
        (either(True, x), 2),
        (either(False, x), -1),
    ):
        for name, leaf in x.items():
            np.testing.assert_array_equal(found[name], factor * leaf)
            assert found[name].dtype == leaf.dtype


def test_every_element_of_a_batch_gets_its_own_value():
    many = jax.jit(jax.vmap(double_if))
    for flags in itertools.product([False, True], repeat=3):
        factors = np.where(flags, 2.0, -1.0)[:, None]
        np.testing.assert_array_equal(many(jnp.array(flags), ROWS), factors * ROWS)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, -1)])
def test_what_is_not_batched_is_shared(axes):
    x = {None: ROWS[0], 0: ROWS, -1: ROWS.T}[axes[1]]
    flag = FLAGS if axes[0] == 0 else jnp.array(True)
    found = jax.vmap(double_if, axes)(flag, x)
    each = {None: [x] * 3, 0: list(ROWS), -1: list(ROWS)}[axes[1]]
    flags = FLAGS if axes[0] == 0 else [True] * 3
    expected = [
        (2 if f else -1) * np.asarray(row) for f, row in zip(flags, each, strict=True)
    ]
    np.testing.assert_array_equal(found, expected)


def test_batches_of_batches():
    flags = jnp.array([[False, True, False], [False, False, False]])
    found = jax.vmap(jax.vmap(double_if), (0, None))(flags, ROWS)
    expected = np.where(flags[..., None], 2 * ROWS, -ROWS)
    np.testing.assert_array_equal(found, expected)


def test_typed_keys_go_in_and_come_out():
    """Keys that advance where the flag is set, inside a scan, side by side."""

    def advance(flag, key):
        after = lambda key: jax.random.split(key)[0]
        step = lambda key, flag: (branch.cond(flag, after, lambda key: key, key), None)
        return jax.lax.scan(step, key, flag)[0]

    flags = jnp.array([[True, False, True], [False, False, False]])
    keys = jax.random.split(jax.random.key(0), 2)
    found = jax.random.key_data(jax.vmap(advance)(flags, keys))
    twice = jax.random.split(jax.random.split(keys[0])[0])[0]
    expected = jax.random.key_data(jnp.stack([twice, keys[1]]))
    np.testing.assert_array_equal(found, expected)


def test_both_sides_may_close_over_batched_values():
    """Batched by either of two vmaps, or by none."""

    def inner(flag, x, offset, scale):
        body = lambda x: scale * x + offset + ROWS[0]
        return branch.cond(flag, body, lambda x: scale + offset + 0 * x, x)

    rows = jax.vmap(inner, (0, 0, 0, None))
    offsets, scales = jnp.array([1.0, 2.0, 3.0]), jnp.array([10.0, 100.0])
    found = jax.jit(jax.vmap(rows, (None, None, None, 0)))(FLAGS, ROWS, offsets, scales)
    expected = np.broadcast_to((scales[:, None] + offsets)[..., None], (2, 3, 4)).copy()
    for i, scale in enumerate(scales):
        expected[i, 1] = scale * ROWS[1] + offsets[1] + ROWS[0]
    np.testing.assert_array_equal(found, expected)


def primitives(jaxpr, inside=False):
    """``(name, whether inside a cond)`` of all operations of a jaxpr."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, inside
        below = inside or equation.primitive.name == "cond"
        for value in jax.tree.leaves(equation.params):
            value = getattr(value, "jaxpr", value)
            if hasattr(value, "eqns"):
                yield from primitives(value, below)


def test_it_stays_a_branch_under_vmap():
    """What is costly is inside a ``cond``; ``lax.cond`` does not keep it there."""
    leave = lambda x: x
    ours = lambda flag, x: branch.cond(flag, jnp.sort, leave, x)
    theirs = lambda flag, x: jax.lax.cond(flag, jnp.sort, leave, x)
    for times, function, stays in (
        (1, ours, True),
        (2, ours, True),
        (1, theirs, False),
    ):
        flags, rows = FLAGS, ROWS
        for _ in range(times):
            function, flags, rows = jax.vmap(function), flags[None], rows[None]
        found = list(primitives(jax.make_jaxpr(function)(flags[0], rows[0]).jaxpr))
        assert ("sort", stays) in found
        assert ("sort", not stays) not in found


def test_nothing_runs_where_no_flag_is_set():
    runs = []
    many = jax.jit(jax.vmap(lambda *args: double_if(*args, lambda: runs.append(1))))
    many(jnp.zeros(3, bool), ROWS)
    jax.effects_barrier()
    assert not runs
    many(FLAGS, ROWS)
    jax.effects_barrier()
    assert runs


# On a mesh. Its one device will do, since types tell where arrays lie.


def mesh_of(kind):
    return jax.make_mesh((1,), ("x",), axis_types=(kind,))


@pytest.mark.parametrize("known", [True, False], ids=["mesh set", "mesh of arguments"])
@pytest.mark.parametrize("otherwise", [None, lambda x: x, lambda x: jnp.ones(4)])
@pytest.mark.parametrize("body", [lambda x: 2 * x, lambda x: jnp.full(4, 3.0)])
def test_results_that_lie_differently(body, otherwise, known):
    """The result lies as ``otherwise`` has it, the zeros as ``body``."""
    mesh = mesh_of(AxisType.Explicit)
    lay = lambda x, *over: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*over)))
    one = lambda flag, x: branch.cond(flag, body, otherwise, x)
    with jax.set_mesh(mesh) if known else contextlib.nullcontext():
        for flag in (True, False):
            x = lay(ROWS[0], "x")
            found = jax.jit(one)(flag, x)
            like = (otherwise or body)(x) if flag or otherwise else 0 * body(x)
            np.testing.assert_array_equal(found, body(x) if flag else like)
            if jax.typeof(like).sharding.mesh == jax.typeof(x).sharding.mesh:
                assert jax.typeof(found).sharding == jax.typeof(like).sharding
        for flags, rows in (
            (FLAGS, lay(ROWS, None, "x")),
            (lay(FLAGS, "x"), lay(ROWS, "x", None)),
        ):
            found = jax.jit(jax.vmap(one))(flags, rows)
            each = [one(flag, row) for flag, row in zip(FLAGS, ROWS, strict=True)]
            np.testing.assert_array_equal(found, each)


@pytest.mark.parametrize("vmapped", [False, True])
@pytest.mark.parametrize("varies", [*itertools.product([False, True], repeat=2)])
def test_results_that_vary_over_devices(varies, vmapped):
    """In a ``shard_map`` with its check on, either function's result may vary."""
    mesh, axis = mesh_of(AxisType.Auto), PartitionSpec("x")
    other = {True: lambda x: x, False: None}[varies[1]]

    def run(flag, x, same):
        body = lambda x: 2.0 * (x if varies[0] else same)
        cond = lambda flag, x: branch.cond(flag, body, other, x)
        out = (jax.vmap(cond, (0, None)) if vmapped else cond)(flag, x)
        return out if any(varies) else jax.lax.pcast(out, "x", to="varying")

    flag = jnp.array([True, False]) if vmapped else jnp.array(True)
    none, out = PartitionSpec(), PartitionSpec(None, "x") if vmapped else axis
    parallel = jax.shard_map(run, mesh=mesh, in_specs=(none, axis, none), out_specs=out)
    found = jax.jit(parallel)(flag, ROWS[0], ROWS[0])
    rest = ROWS[0] if varies[1] else jnp.zeros(4)
    expected = jnp.stack([2 * ROWS[0], rest]) if vmapped else 2 * ROWS[0]
    np.testing.assert_array_equal(found, expected)


# Derivatives.


def test_derivatives_are_those_of_lax_cond():
    """Forward, reverse and twice, alone and in a batch."""
    x = jnp.array([0.5, 1.5, -1.0])

    def loss(cond):
        body = lambda x: jnp.sin(x) * scale
        return lambda flag, x: jnp.sum(cond(flag, body, lambda x: x**3, x) ** 2)

    scale = jnp.array([1.0, 2.0, 3.0])
    ours, theirs = loss(branch.cond), loss(jax.lax.cond)

    @jax.jit
    def derivatives(flag):
        many = lambda one: (one(flag, x), jax.vmap(one, (0, None))(FLAGS, x))
        of = lambda loss: [d(loss, 1) for d in (jax.grad, jax.jacfwd, jax.hessian)]
        return [list(map(many, of(loss))) for loss in (ours, theirs)]

    for flag in (True, False):
        close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
        jax.tree.map(close, *derivatives(flag))


def test_the_branch_stays_in_the_derivative_of_a_batch():
    loss = lambda flag, x: jnp.sum(branch.cond(flag, jnp.sort, lambda x: x, x) ** 2)
    grads = jax.vmap(jax.grad(loss, argnums=1))
    found = list(primitives(jax.make_jaxpr(grads)(FLAGS, ROWS).jaxpr))
    assert ("sort", True) in found and ("sort", False) not in found
    assert ("scatter-add", False) not in found
