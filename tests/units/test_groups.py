"""Records of units, their table, and the check against the parameters."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from loplax import units

PARAMS = {
    "hidden": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)},
    "grouped": {"kernel": jnp.ones((3, 3, 2, 6))},
    "head": {"kernel": jnp.ones((8, 2)), "bias": jnp.ones(2)},
}
INCOMING = units.WeightAxis("hidden/kernel", 1)
BIAS = units.WeightAxis("hidden/bias", 0)
OUTGOING = units.WeightAxis("head/kernel", 0, repeat=(2, 1), bias="head/bias")
BLOCKS = units.WeightAxis("grouped/kernel", 2, groups=2, block_axis=3)

PLACED_HEAD = units.WeightAxis("head/kernel", 0)


def group(name="hidden", size=4, incoming=INCOMING, bias=BIAS, outgoing=OUTGOING):
    return units.UnitGroup(name, size, (incoming,), (bias,), (), (outgoing,))


def test_spread_lays_units_where_the_record_says():
    """Unit ``u`` owns entries ``start + (o * size + u) * inner + i``."""
    record = units.WeightAxis("w", 0, repeat=(2, 3), start=1)
    laid = np.asarray(record.spread(jnp.array([1.0, 2.0]), (14, 5)))[:, 0]
    assert laid.tolist() == [0, 1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2, 0]
    weights = jnp.arange(14.0)[:, None] * jnp.ones((1, 5))
    sums = [5 * (1 + 2 + 3 + 7 + 8 + 9), 5 * (4 + 5 + 6 + 10 + 11 + 12)]
    assert record.total(weights, 2).tolist() == sums
    assert record.count((14, 5), 2) == 30


PLACED = {
    "front": (units.WeightAxis("w", 2, places=((0, 2), (1, 3))), (2, 3, 4, 5)),
    "turned": (units.WeightAxis("w", -3, places=((3, 3), (-4, 2))), (2, 4, 5, 3)),
    "repeated": (units.WeightAxis("w", 0, (2, 3), 1, places=((1, 2),)), (26, 2)),
}


@pytest.mark.parametrize(("record", "shape"), PLACED.values(), ids=PLACED)
def test_places(record, shape):
    """Each place and unit has weights of its own; sums and counts agree."""
    size = 4
    values = jnp.arange(1.0, 1 + 4 * math.prod(record.positions))
    values = values.reshape(*record.positions, size)
    laid = jnp.broadcast_to(record.spread(values, shape), shape)
    weights = jax.random.normal(jax.random.key(0), shape)
    both = jnp.vdot(laid, weights), jnp.vdot(values, record.totals(weights, size))
    np.testing.assert_allclose(*both, rtol=1e-4)
    each = record.count(shape, size) // math.prod(record.positions)
    np.testing.assert_array_equal(record.totals(laid, size), each * values)
    np.testing.assert_array_equal(
        record.total(laid, size), each * values.reshape(-1, size).sum(0)
    )
    first = values[(0,) * (values.ndim - 1)]
    same = jnp.broadcast_to(record.spread(first, shape), shape)
    assert jnp.unique(same[laid > 0]).tolist() == [1, 2, 3, 4]
    assert jnp.sum(same == 1) == record.count(shape, size)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_spread_over_the_blocks_of_a_grouped_convolution(order):
    """Unit ``g * 2 + j`` owns entry ``j`` of the outputs in block ``g``."""
    record = units.WeightAxis("w", order[0], groups=3, block_axis=order[1])
    shape = (2, 6) if order == (0, 1) else (6, 2)
    laid = np.asarray(record.spread(jnp.arange(6.0), shape))
    laid = laid if order == (0, 1) else laid.T
    assert laid.tolist() == [[0, 0, 2, 2, 4, 4], [1, 1, 3, 3, 5, 5]]
    assert record.total(jnp.ones(shape), 6).tolist() == [2.0] * 6


RECORDS = {
    "plain": (units.WeightAxis("w", 1), 6, (4, 6)),
    "repeated": (units.WeightAxis("w", 0, repeat=(2, 3), start=1), 2, (14, 5)),
    "large": (units.WeightAxis("w", -1), 80, (70, 80)),
    "kernel": (units.WeightAxis("w", 2), 3, (2, 2, 3, 4)),
    "placed": (units.WeightAxis("w", 2, places=((1, 2), (0, 2))), 3, (2, 2, 3, 4)),
    "grouped": (units.WeightAxis("w", 0, groups=3, block_axis=1), 6, (2, 6)),
}


@pytest.mark.parametrize(("record", "size", "shape"), RECORDS.values(), ids=RECORDS)
def test_sharded_weights(record, size, shape):
    """What is spread lies as the weight does; sums are whole. Types tell it."""
    mesh = jax.make_mesh((1, 1), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    replicated = NamedSharding(mesh, PartitionSpec())
    over = PartitionSpec(*("x", "y", None, None)[: len(shape)])
    values = jnp.arange(1.0, size + 1)
    weight = jnp.arange(math.prod(shape), dtype=jnp.float32).reshape(shape)
    expected = record.spread(values, shape), record.total(weight, size)
    weight = jax.device_put(weight, NamedSharding(mesh, over))

    def both(values, weight):
        lies = jax.typeof(weight).sharding
        spread = record.spread(values, shape, lies)
        return jnp.where(spread != 0, spread, 0 * weight), record.total(weight, size)

    for given in (values, jax.device_put(values, replicated)):
        laid, total = jax.jit(both)(given, weight)
        np.testing.assert_array_equal(laid, jnp.broadcast_to(expected[0], shape))
        np.testing.assert_allclose(total, expected[1], rtol=1e-6)
        assert jax.typeof(laid).sharding == jax.typeof(weight).sharding
        assert not any(jax.typeof(total).sharding.spec)


def test_table():
    """Printing the units gives one aligned line per layer, then what is left out."""
    found = units.Units(
        [group(), group("grouped", outgoing=BLOCKS)], {"value": "slice cuts it"}
    )
    assert str(found).splitlines() == [
        "layer    size  biases  scales  incoming          outgoing",
        "hidden      4       1       0  hidden/kernel[1]  head/kernel[0] x2",
        "grouped     4       1       0  hidden/kernel[1]  "
        "grouped/kernel[2] in 2 groups",
        "left out:",
        "  value: slice cuts it",
    ]
    assert found.names == ("hidden", "grouped") and found[0] == group()
    assert found.select("grouped").left_out == {"value": "slice cuts it"}
    assert str(units.Units()) == "layer  size  biases  scales  incoming  outgoing"


def test_check_accepts_what_fits():
    """Right records pass, negative axes included."""
    incoming = units.WeightAxis("hidden/kernel", -1)
    start = units.WeightAxis("head/kernel", 0, start=4)
    units.check([group(incoming=incoming, outgoing=start)], PARAMS)
    units.check([group(outgoing=BLOCKS)], PARAMS)
    place = units.WeightAxis("head/kernel", 0, places=((-1, 2),))
    units.check([group(outgoing=place)], PARAMS)


WRONG = {
    "path": (
        group(outgoing=OUTGOING._replace(path="head/kernal")),
        "no parameter 'head/kernal'; nearest known: 'head/kernel'",
    ),
    "bias path": (
        group(outgoing=OUTGOING._replace(bias="head/bais")),
        "no parameter 'head/bais'; nearest known: 'head/bias'",
    ),
    "axis": (
        group(outgoing=OUTGOING._replace(axis=2)),
        "axis 2 of 'head/kernel' must have -2 <= axis < 2",
    ),
    "incoming length": (
        group(incoming=INCOMING._replace(axis=0)),
        "incoming axis 0 of 'hidden/kernel' has length 3; it must be the 4 units",
    ),
    "incoming part": (group(incoming=INCOMING._replace(start=1)), "from entry 0"),
    "bias length": (
        group(bias=BIAS._replace(path="head/bias")),
        "axis 0 of 'head/bias' has length 2, but 4 units",
    ),
    "repeat": (
        group(outgoing=OUTGOING._replace(repeat=(3, 1))),
        r"has length 8, but 4 units with repeat \(3, 1\) from entry 0 need 12",
    ),
    "start": (group(outgoing=OUTGOING._replace(start=1)), "from entry 1 need 9"),
    "negative start": (
        group(outgoing=OUTGOING._replace(start=-1)),
        "weights.start=-1 of 'head/kernel' must be at least 1, 1 and 0",
    ),
    "groups": (
        group(outgoing=BLOCKS._replace(groups=3)),
        "3 groups of 'grouped/kernel' need 4 / 3 units along axis 2",
    ),
    "block axis": (
        group(outgoing=BLOCKS._replace(block_axis=4)),
        "axis 4 of 'grouped/kernel' must have -4 <= axis < 4",
    ),
    "same block axis": (
        group(outgoing=BLOCKS._replace(block_axis=2)),
        "block_axis of 'grouped/kernel' must differ",
    ),
    "repeated blocks": (
        group(outgoing=BLOCKS._replace(start=1)),
        "'grouped/kernel' has 2 groups, so repeat must be",
    ),
    "place axis": (
        group(outgoing=PLACED_HEAD._replace(places=((2, 2),))),
        "axis 2 of 'head/kernel' must have -2 <= axis < 2",
    ),
    "place on the units": (
        group(outgoing=PLACED_HEAD._replace(places=((-2, 8),))),
        r"places \(\(-2, 8\),\) of 'head/kernel' must be on axes of their own, not 0",
    ),
    "place twice": (
        group(outgoing=PLACED_HEAD._replace(places=((1, 2), (-1, 2)))),
        "must be on axes of their own",
    ),
    "place length": (
        group(outgoing=PLACED_HEAD._replace(places=((1, 3),))),
        "place of length 3 on axis 1 of 'head/kernel', which has length 2",
    ),
    "places in groups": (
        group(outgoing=BLOCKS._replace(places=((0, 3),))),
        "'grouped/kernel' has 2 groups, so places must be empty",
    ),
    "incoming place": (
        group(incoming=INCOMING._replace(places=((0, 3),))),
        "'hidden/kernel' has places",
    ),
    "positions": (
        group(outgoing=OUTGOING)._replace(outgoing=(OUTGOING, PLACED_HEAD)),
        r"hidden: the readers of feature 'hidden' have positions \(2,\) and \(\)",
    ),
    "size": (group(size=0), "size 0 must be at least 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_check_names_what_does_not_fit(case):
    """Each message names the layer, the value and what is allowed."""
    wrong, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        units.check([wrong], PARAMS)


def test_check_refuses_duplicates():
    """Names, and parameters among the incoming weights, occur once."""
    with pytest.raises(ValueError, match="Two groups are named 'hidden'"):
        units.check([group(), group()], PARAMS)
    with pytest.raises(ValueError, match="incoming in 'hidden' and in 'other'"):
        units.check([group(), group("other")], PARAMS)
