"""Every transformation on meshes, under settings of JAX, and differentiated.

Each run equals the plain one: exactly in its decisions, to rounding in its numbers.
Run as a program, this file makes the runs that need four devices.
"""

import functools
import os
import pathlib
import pickle
import subprocess
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from loplax import optim, units
from tests.optim.conftest import Net
from tests.optim.test_contract import (
    CASES,
    apply_step,
    assert_same,
    each_case,
    open_keys,
)

STEPS = 4


class ImageNet(Net):
    """A convolution with bias and scale, flattened for a dense layer."""

    shapes = {"k": (3, 3, 2, 4), "b": (4,), "s": (4,), "v": (16, 4), "c": (4,)}
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


def make_for_images(groups, key):
    """Continual backprop that moves biases, which reads activations by position."""
    numbers = {"replacement_rate": 0.4, "maturity_threshold": 0, "max_replacements": 2}
    make, inner = optim.continual_backprop, optax.sgd(0.1, momentum=0.9)
    return make(inner, groups, bias_transfer=True, key=key, **numbers)


RUNS = {name: (case.make, case.fixed(), Net()) for name, case in CASES.items()}
RUNS["images"] = make_for_images, {}, ImageNet()
each_run = pytest.mark.parametrize("name", RUNS)

# How arrays lie on the mesh: incoming weights, biases and outgoing weights along their
# units, and the features as a forward pass of such weights makes them, or of a batch
# that is split.
PARAMS_OVER = {
    "w0": (None, "x"),
    "b0": ("x",),
    "w1": ("x", "y"),
    "b1": ("y",),
    "w2": ("y", None),
    "b2": (None,),
    "k": (None, None, None, "x"),
    "b": ("x",),
    "s": ("x",),
    "v": ("x", "y"),
    "c": ("y",),
}
FEATURES_OVER = {2: {"a": (None, "x"), "b": ("x", "y")}, 3: {"a": ("y", None, "x")}}


def data(net):
    """Parameters; gradients and features of all steps."""
    grads, features = net.random(1, (STEPS,)), net.features(2, (STEPS,))
    return net.random(0), grads, {name: h[:, :4] for name, h in features.items()}


def simulate(name, params, grads, features, *, gather=lambda *inputs: inputs):
    """Parameters and states after each step."""
    make, numbers, net = RUNS[name]
    tx = make(net.groups, jax.random.key(0), **numbers)

    def step(carry, inputs):
        carry = apply_step(tx, *carry, *gather(*inputs))
        return carry, open_keys(carry)

    return jax.lax.scan(step, (params, tx.init(params)), (grads, features))[1]


@functools.cache
def plain(name):
    return jax.jit(functools.partial(simulate, name))(*data(RUNS[name][2]))


@each_case
def test_x64(name):
    """A float32 network does not notice that JAX has 64 bits."""
    with jax.enable_x64(True):
        found = jax.jit(functools.partial(simulate, name))(*data(RUNS[name][2]))
    assert_same(found, plain(name))


@pytest.mark.parametrize("net", [Net(), ImageNet()], ids=["dense", "convolution"])
@each_run
def test_rank_promotion_may_be_forbidden(net, name):
    """Also where arrays have more axes than a dense layer has."""
    make, numbers, own = RUNS[name]
    if name == "images" and net.shapes != own.shapes:
        pytest.skip("its outgoing weights need biases")
    params, grads, features = net.random(0), net.random(1), net.features(2)

    def step(numbers):
        tx = make(net.groups, jax.random.key(0), **numbers)
        return apply_step(tx, params, tx.init(params), grads, features)

    with jax.numpy_rank_promotion("raise"):
        jax.eval_shape(step, jax.tree.map(jnp.float32, numbers))


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


@pytest.mark.parametrize("name", ["continual_backprop", "redo", "ccbp"])
def test_updates_have_derivatives(name):
    """Reverse mode gives what forward mode gives, as learning to learn needs it."""
    params, grads, features = data(Net())

    def after(scale):
        steps = jax.tree.map(lambda g: scale * g, grads)
        new, _ = simulate(name, params, steps, features)
        return sum(jnp.sum(jnp.sin(leaf[-1])) for leaf in jax.tree.leaves(new))

    both = jax.jit(lambda scale: (jax.grad(after)(scale), jax.jacfwd(after)(scale)))
    reverse, forward = both(1.0)
    np.testing.assert_allclose(reverse, forward, rtol=1e-4, atol=1e-5)


# On four devices.


def on_explicit_mesh(name):
    """Parameters, gradients and features lie along their units."""
    mesh = jax.make_mesh((2, 2), ("x", "y"))
    lay = lambda x, *over: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*over)))
    params, grads, features = data(RUNS[name][2])
    params = {path: lay(x, *PARAMS_OVER[path]) for path, x in params.items()}
    grads = {path: lay(x, None, *PARAMS_OVER[path]) for path, x in grads.items()}
    features = {
        key: lay(h, None, *FEATURES_OVER[h.ndim - 1][key])
        for key, h in features.items()
    }
    with jax.set_mesh(mesh):
        return jax.jit(functools.partial(simulate, name))(params, grads, features)


def in_shard_map(name):
    """Data parallel: gradients averaged over the devices, features gathered."""
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    shift = jnp.array([-1.5, 1.5])  # what the devices' gradients differ by

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
    return jax.jit(parallel)(*data(RUNS[name][2]), shift)


WAYS = {way.__name__: way for way in (on_explicit_mesh, in_shard_map)}


@pytest.fixture(scope="module")
def on_four_devices(tmp_path_factory):
    """The runs of all ways and cases, made by this file as a program."""
    root, path = pathlib.Path(__file__).parents[2], tmp_path_factory.mktemp("runs")
    asked = {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, __file__, path / "runs"],
        env=os.environ | asked | {"PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return pickle.loads((path / "runs").read_bytes())


@pytest.mark.parametrize("way", WAYS)
@each_run
def test_four_devices(on_four_devices, name, way):
    found = on_four_devices[way, name]
    assert not isinstance(found, str), found
    assert_same(found, plain(name))


def attempt(way, name):
    """The run, or the traceback of what it raises."""
    try:
        return jax.device_get(WAYS[way](name))
    except Exception:
        return traceback.format_exc()


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    found = {(way, name): attempt(way, name) for way in WAYS for name in RUNS}
    pathlib.Path(sys.argv[1]).write_bytes(pickle.dumps(found))
