"""Every transformation on meshes, and under settings of JAX that others use.

Each run equals the plain one: exactly in its decisions, to rounding in its numbers.
Run as a program, this file makes the runs that need four devices.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import Net
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_contract import CASES, apply_step, assert_same, each_case, open_keys

from loplax import optim, units

STEPS = 4
# Incoming weights, biases and outgoing weights lie along their units.
UNITS_OVER = {
    "w0": (None, "x"),
    "b0": ("x",),
    "w1": ("x", "y"),
    "b1": ("y",),
    "w2": ("y", None),
    "b2": (None,),
}
# As a forward pass of such weights makes them; those of "b" also along the batch.
FEATURES_OVER = {"a": (None, "x"), "b": ("x", "y")}


def data(net=None):
    """Parameters; gradients and features of all steps."""
    net = net or Net()
    grads, features = net.random(1, (STEPS,)), net.features(2, (STEPS,))
    return net.random(0), grads, {name: h[:, :4] for name, h in features.items()}


def simulate(name, params, grads, features, *, gather=lambda grads, features: None):
    """Parameters and states after each step."""
    tx = CASES[name].make(Net.groups, jax.random.key(0), **CASES[name].fixed())

    def step(carry, inputs):
        carry = apply_step(tx, *carry, *(gather(*inputs) or inputs))
        return carry, open_keys(carry)

    return jax.lax.scan(step, (params, tx.init(params)), (grads, features))[1]


@functools.cache
def plain(name):
    return jax.jit(functools.partial(simulate, name))(*data())


@each_case
def test_x64(name):
    """A float32 network does not notice that JAX has 64 bits."""
    with jax.enable_x64(True):
        found = jax.jit(functools.partial(simulate, name))(*data())
    assert_same(found, plain(name))


class ImageNet(Net):
    """A convolution with bias and scale, flattened for a dense layer."""

    shapes = {"k": (3, 3, 2, 4), "b": (4,), "s": (4,), "v": (16, 3), "c": (3,)}
    groups = (
        units.UnitGroup(
            "a",
            4,
            (units.WeightAxis("k", 3),),
            (units.WeightAxis("b", 0),),
            (units.WeightAxis("s", 0),),
            (units.WeightAxis("v", 0, (4, 1), bias="c"),),
        ),
    )

    def features(self, seed, lead=()):
        return {"a": super().features(seed, (*lead, 2))["a"][..., :4, :]}


@pytest.mark.parametrize("net", [Net(), ImageNet()], ids=["dense", "convolution"])
@each_case
def test_rank_promotion_may_be_forbidden(net, name):
    """Also where arrays have more axes than a dense layer has."""
    case, (params, grads, features) = CASES[name], data_of_one_step(net)

    def step(numbers):
        tx = case.make(net.groups, jax.random.key(0), **numbers)
        return apply_step(tx, params, tx.init(params), grads, features)

    with jax.numpy_rank_promotion("raise"):
        jax.eval_shape(step, case.traced())


def data_of_one_step(net):
    return net.random(0), net.random(1), net.features(2)


REPLACE_ALL = {
    "continual_backprop": {"replacement_rate": 1.0, "maturity_threshold": 0},
    "redo": {"period": 1, "threshold": 100.0},
    "regrama": {"period": 1, "threshold": 100.0},
    "self_normalized_resets": {"initial_threshold": 1},
    "ccbp": {"replacement_rate": 1.0, "sharpness": 0.0, "period": 1},
    "selective_weight_reinitialization": {
        "factor": 1e6,
        "period": 1,
        "pruning": "threshold",
    },
}


@pytest.mark.parametrize("name", REPLACE_ALL)
def test_redrawn_bfloat16_weights_are_the_initializers(name):
    """What stood there before leaves no trace: no rounding of the difference to it."""
    make, settings = getattr(optim, name), REPLACE_ALL[name]
    if name != "selective_weight_reinitialization":
        settings = settings | {"units": Net.groups}
    tx = make(optax.sgd(0.0), key=jax.random.key(0), **settings)
    params, features = Net().random(0, dtype=jnp.bfloat16), Net().features(1)
    features = jax.tree.map(jnp.zeros_like, features) if "self" in name else features

    @jax.jit
    def redrawn(scale):
        old = jax.tree.map(lambda p: scale.astype(p.dtype) * p, params)
        new, _ = apply_step(tx, old, tx.init(old), params, features)
        return new

    # A power of 2 between the scales: the same units are chosen in the same order.
    new, reference = (redrawn(jnp.float32(scale)) for scale in (64.0, 2.0**-10))
    for path, fan_in in (("w0", 3), ("w1", 4)):
        drawn, expected = (np.asarray(p[path], np.float32) for p in (new, reference))
        np.testing.assert_array_equal(drawn, expected)
        assert new[path].dtype == jnp.bfloat16
        assert len(np.unique(drawn)) > drawn.size / 2
        assert np.abs(drawn).max() <= np.sqrt(6 / fan_in) * (1 + 2**-8)


# On four devices.


def on_explicit_mesh(name):
    """Parameters, gradients and features lie along their units."""
    mesh = jax.make_mesh((2, 2), ("x", "y"))
    lay = lambda x, *over: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*over)))
    params, grads, features = data()
    params = {path: lay(x, *UNITS_OVER[path]) for path, x in params.items()}
    grads = {path: lay(x, None, *UNITS_OVER[path]) for path, x in grads.items()}
    features = {key: lay(h, None, *FEATURES_OVER[key]) for key, h in features.items()}
    with jax.set_mesh(mesh):
        return jax.jit(functools.partial(simulate, name))(params, grads, features)


def in_shard_map(name):
    """Data parallel: gradients averaged over the devices, features gathered."""
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    shift = jnp.arange(4.0) - 1.5  # what the devices' gradients differ by

    def gather(grads, features):
        whole = functools.partial(
            jax.lax.all_gather, axis_name="batch", tiled=True, to="invarying"
        )
        return jax.lax.pmean(grads, "batch"), jax.tree.map(whole, features)

    def run(params, grads, features, shift):
        grads = jax.tree.map(lambda g: g + shift, grads)
        return simulate(name, params, grads, features, gather=gather)

    split = PartitionSpec(None, "batch")
    parallel = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), split, PartitionSpec("batch")),
        out_specs=PartitionSpec(),
    )
    return jax.jit(parallel)(*data(), shift)


WAYS = {way.__name__: way for way in (on_explicit_mesh, in_shard_map)}


@pytest.fixture(scope="module")
def complaints():
    """What went wrong on four devices, by way and case."""
    root = str(pathlib.Path(__file__).parents[2])
    asked = {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("way", WAYS)
@each_case
def test_four_devices(complaints, name, way):
    assert not complaints[way][name], complaints[way][name]


def complain(way, name):
    """The traceback of what a run raises or computes wrong; empty if nothing."""
    try:
        assert_same(jax.device_get(WAYS[way](name)), jax.device_get(plain(name)))
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    asked = sys.argv[1:] or CASES
    found = {way: {name: complain(way, name) for name in asked} for way in WAYS}
    print(json.dumps(found))
