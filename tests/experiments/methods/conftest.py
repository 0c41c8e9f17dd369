"""A network of eight units, and methods on it."""

import functools
import re
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from experiments.methods import building, settings
from loplax import nets, optim, streams, supervised, units
from loplax.supervised import losses

KEY = jax.random.key(1)
INITIALIZER = nets.kaiming_uniform("relu")
SHAPE = (3,)


def init(key=None):
    """The same weights for all keys, so that all methods start alike."""
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
    return {"w": draw(3, 8), "b": jnp.zeros(8), "v": draw(8, 2)}


def apply(params, x):
    return jax.nn.leaky_relu(x @ params["w"] + params["b"], 0.1) @ params["v"]


NETWORK = supervised.stateless(init, apply)
GROUPS = units.find(apply, jax.eval_shape(init), jnp.zeros(SHAPE))


def _signed(group):
    """The same units, of weights of which nothing but the sign is read."""
    through = lambda axes: tuple(axis._replace(through="sign") for axis in axes)
    axes = through(group.incoming), through(group.outgoing)
    return group._replace(incoming=axes[0], outgoing=axes[1])


SIGNED = units.Units(map(_signed, GROUPS))


def _injected():
    """The units of both halves of the injected network."""
    network = supervised.Network(*nets.plasticity_injection(*NETWORK[:3], step=3))
    params, stats = jax.eval_shape(network.init, KEY)
    example = jnp.zeros(SHAPE)
    return units.find(network.apply, params, stats, example, has_aux=True)


INJECTED = _injected()
# What transformations are told, beside gradients.
TOLD = {
    "progress": 0.4,
    "old_outputs": False,
    "beside_head": False,
    "beside_adapters": False,
    "examples": 4.0,
}


def sessions():
    """Two sessions of the same two classes."""
    x = np.random.default_rng(1).normal(size=(24, *SHAPE)).astype(np.float32)
    labels = np.arange(24) % 2
    split = streams.given(np.arange(24) // 12, np.arange(24) // 12)
    data = (x, labels), (x, labels)
    sizes = {"classes": 2, "steps": 4, "batch": 4, "test_batch": 8, "probe": 4}
    return streams.sessions(*data, split, **sizes)


PROBLEM = supervised.Problem(
    stream=sessions(),
    network=NETWORK._replace(
        embed=lambda params, stats, x: jax.nn.leaky_relu(
            x @ params["w"] + params["b"], 0.1
        )
    ),
    loss=losses.cross_entropy,
    tx=optax.with_extra_args_support(optax.sgd(0.1)),
    groups=GROUPS,
    measures={"accuracy": losses.accuracy},
    head="v",
    observe=(),
)


def filled(made, hparams):
    """The problem with the slots that the method fills."""
    stream = building.stream(made, PROBLEM.stream, hparams)
    return building.fill(made, PROBLEM._replace(stream=stream), hparams)


def configured(optimizer="sgd", **changes):
    """``(optimizer, plugin=values) -> config`` with the defaults of all plugins."""
    config = ml_collections.ConfigDict({"learning_rate": 0.02, "optimizer": optimizer})
    settings.add_methods(config)
    settings.add_sweep(config)
    config.update(changes)
    return config


def network(made, hparams):
    """That of a method, of dense layers where it needs some."""
    net = nets.MLP((8,), 2)
    dense = supervised.stateless(
        lambda key: net.init(key, jnp.zeros(SHAPE))["params"],
        lambda params, x: net.apply({"params": params}, x),
    )
    plain = dense if "lora" in made.plugins else NETWORK
    return building.network(made, plain, hparams, SHAPE)


def transformation(made, hparams, **options):
    groups = SIGNED if made.options.get("binary") else GROUPS
    groups = INJECTED if "plasticity_injection" in made.plugins else groups
    given = {"groups": groups, "initializer": INITIALIZER} | options
    return building.transformation(made, hparams, KEY, **given)


def program(tx, name):
    """The operations of a step and the arrays that they close over."""
    params = init()
    features = {GROUPS[0].name: jnp.zeros(8)}
    if "plasticity_injection" in name:
        params = {"base": params, "new": params}
        features = {group.name: jnp.zeros(8) for group in INJECTED}
    if "mesu" in name:
        params = optim.gaussian(params, 0.5)
    tx = optax.with_extra_args_support(tx)

    def step(params, grads, reference, features):
        extra = {"features": features, "reference": reference, **TOLD}
        return tx.update(grads, tx.init(params), params, **extra)

    closed = jax.make_jaxpr(step)(params, params, params, features)
    consts = [jax.random.key_data(c) if _is_key(c) else c for c in closed.consts]
    return re.sub("0x[0-9a-f]+", "", str(closed)), [np.asarray(c) for c in consts]


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def equal(one, other):
    """Whether two programs do the same with the same arrays."""
    same = [np.array_equal(a, b) for a, b in zip(one[1], other[1], strict=False)]
    return one[0] == other[0] and all(same)


class Step(NamedTuple):
    """All that changes as a network learns."""

    params: dict
    stats: object
    opt: object


def start(made, hparams):
    """The beginning of learning, and ``(step, x) -> step``."""
    net = network(made, hparams)
    tx = transformation(made, hparams)
    tapped = units.tap(net.apply, has_aux=True)

    def loss(params, stats, x):
        (outputs, stats), features = tapped(params, stats, x)
        return jnp.sum(jnp.square(outputs - x[:2])), (stats, features)

    def learn(step, x):
        grad = jax.grad(loss, has_aux=True)
        grads, (stats, features) = grad(step.params, step.stats, x)
        reference = jax.tree.map(jnp.flip, grads)
        extra = {"features": features, "reference": reference, **TOLD}
        updates, opt = tx.update(grads, step.opt, step.params, **extra)
        return Step(optax.apply_updates(step.params, updates), stats, opt)

    params, stats = net.init(jax.random.key(0))
    return Step(params, stats, tx.init(params)), learn


def learned(made, hparams, steps=10):
    """The weights after some steps."""
    first, learn = start(made, hparams)
    xs = np.random.default_rng(5).normal(size=(steps, *SHAPE)).astype(np.float32)
    return jax.lax.scan(lambda s, x: (learn(s, x), None), first, xs)[0].params


def close(found, expected):
    near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(near, found, expected)


@pytest.fixture(scope="session")
def toy():
    """All of the above."""
    return sys.modules[__name__]
