"""The contract table: every idiom of the host frameworks with every transformation.

Each cell makes the state and learns for 30 updates; where the idiom changes nothing of
what is computed, the parameters are those of a loop written by hand.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state

from loplax import flax as loplax_flax
from loplax import optim, units
from loplax.units import paths
from tests.optim import pairs

# Few random bits, from a generator that compiles quickly.
KEY = jax.random.key(3, impl="unsafe_rbg")
CONSTANT = jax.nn.initializers.constant(0.5)


class Method(NamedTuple):
    """One column.

    Attributes:
      make: ``(groups, inner, number) -> transformation``.
      number: a number of it that ``inject_hyperparams`` may schedule.
      inner: whether it holds an optimiser.
      replaces: whether it replaces units.
    """

    make: Callable
    number: float
    inner: bool = True
    replaces: bool = False


def resets(make, name, value, **numbers):
    """A method that wraps an optimiser and replaces units."""

    def build(groups, inner, number):
        key = KEY
        return make(inner, groups, key=key, **{name: number}, **numbers)

    return Method(build, value, replaces=True)


def wraps(make, name, value, **numbers):
    """A method that wraps an optimiser and knows no units."""

    def build(groups, inner, number):
        return make(inner, **{name: number}, **numbers)

    return Method(build, value)


def penalty(make, name, value):
    """A method that goes before an optimiser."""

    def build(groups, inner, number):
        return optax.chain(make(**{name: number}), inner)

    return Method(build, value)


def draws(make, name, value, **numbers):
    """A method that wraps an optimiser and draws weights without knowing units."""

    def build(groups, inner, number):
        return make(inner, key=KEY, **{name: number}, **numbers)

    return Method(build, value)


def adam(groups, inner, number):
    return optim.adam(number, groups)


def upgd(groups, inner, number):
    return optim.upgd(number, noise_scale=0.01, key=KEY)


def project(groups, inner, number):
    return optax.chain(optim.a_gem(), inner, optax.scale(number))


def freeze(groups, inner, number):
    return optim.frozen(optax.chain(inner, optax.scale(number)))


def normalize(groups, inner, number):
    return optim.normalize_and_project(optax.chain(inner, optax.scale(number)))


def metaplastic(groups, inner, number):
    return optax.chain(inner, optim.metaplastic(number))


def mesu(groups, inner, number):
    return pairs.of_means(optim.mesu(number))


def synaptic_intelligence(groups, inner, number):
    tx = optim.synaptic_intelligence(inner, strength=number)
    return consolidated(tx, lambda params: ())


def fisher(make):
    """A method whose first parameters are those of an earlier task."""

    def build(groups, inner, number):
        ones = lambda params: (jax.tree.map(jnp.ones_like, params),)
        return optax.chain(consolidated(make(number), ones), inner)

    return Method(build, 0.1)


def consolidated(tx, given):
    init = lambda params: tx.consolidate(tx.init(params), params, *given(params))
    return optax.GradientTransformationExtraArgs(init, tx.update)


METHODS = {
    "a_gem": Method(project, 1.0),
    "adam": Method(adam, 0.01, inner=False),
    "ccbp": resets(
        optim.ccbp, "replacement_rate", 0.5, decay_rate=0.5, period=2, sharpness=4.0
    )._replace(replaces=False),
    "continual_backprop": resets(
        optim.continual_backprop,
        "replacement_rate",
        0.1,
        maturity_threshold=2,
        decay_rate=0.9,
        utility="contribution",
    ),
    "elastic_weight_consolidation": fisher(optim.elastic_weight_consolidation),
    "frozen": Method(freeze, 1.0),
    "hare_tortoise": wraps(optim.hare_tortoise, "momentum", 0.9, period=4),
    "l2_init": penalty(optim.l2_init, "weight_decay", 0.1),
    "memory_aware_synapses": fisher(optim.memory_aware_synapses),
    "mesu": Method(mesu, 100.0, inner=False),
    "metaplastic": Method(metaplastic, 1.35),
    "normalize_and_project": Method(normalize, 1.0),
    "one_cycle": wraps(optim.one_cycle, "pct_start", 0.3),
    "parseval_regularization": penalty(optim.parseval_regularization, "strength", 0.01),
    "redo": resets(optim.redo, "threshold", 0.9, period=4),
    "regrama": resets(optim.regrama, "threshold", 0.9, period=4),
    "selective_weight_reinitialization": draws(
        optim.selective_weight_reinitialization,
        "factor",
        0.1,
        period=4,
        initializer=CONSTANT,
    ),
    "self_normalized_resets": resets(
        optim.self_normalized_resets,
        "rejection_threshold",
        0.5,
        initial_threshold=2,
        period=3,
    ),
    "shrink_and_perturb": draws(
        optim.shrink_and_perturb, "shrink", 0.9, perturb_scale=0.1, period=5
    ),
    "spectral_regularization": penalty(optim.spectral_regularization, "strength", 0.01),
    "synaptic_intelligence": Method(synaptic_intelligence, 0.1),
    "upgd": Method(upgd, 0.05, inner=False),
    "wasserstein_regularization": penalty(
        optim.wasserstein_regularization, "strength", 0.01
    ),
    "weight_clipping": wraps(optim.weight_clipping, "kappa", 0.7),
}


STEPS = 30
WIDTHS = {"a": (3, 4), "b": (4, 2)}
KEYS = jax.random.split(jax.random.key(0), 3)
XS = jax.random.normal(KEYS[0], (STEPS, 6, 3))
YS = jnp.stack([XS[..., 0] * XS[..., 1], jnp.sin(XS[..., 2])], -1)
PARAMS = {
    name: {
        "bias": 0.1 * jnp.arange(1.0, 1 + shape[1]),
        "kernel": jax.random.normal(key, shape) / shape[0] ** 0.5,
    }
    for (name, shape), key in zip(WIDTHS.items(), KEYS[1:], strict=True)
}


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="b")(nn.relu(nn.Dense(4, name="a")(x)))


class NNX(nnx.Module):
    def __init__(self):
        for name, shape in WIDTHS.items():
            layer = nnx.Linear(*shape, rngs=nnx.Rngs(0))
            layer.kernel[...] = PARAMS[name]["kernel"]
            layer.bias[...] = PARAMS[name]["bias"]
            setattr(self, name, layer)

    def __call__(self, x):
        return self.b(nnx.relu(self.a(x)))


class Layer(eqx.Module):
    bias: jax.Array
    kernel: jax.Array

    def __call__(self, x):
        return x @ self.kernel + self.bias


class Equinox(eqx.Module):
    a: Layer
    b: Layer
    activation: callable

    def __init__(self):
        for name, params in PARAMS.items():
            setattr(self, name, Layer(**params))
        self.activation = jax.nn.relu

    def __call__(self, x):
        return self.b(self.activation(self.a(x)))


def apply(params, x):
    return Linen().apply({"params": params}, x)


def call(model, x):
    return model(x)


def slopes(grad, run):
    """Gradients of a model, and what else a transformation may need."""
    tapped = units.tap(run)

    def loss(params, x, y):
        output, features = tapped(params, x)
        return jnp.mean((output - y) ** 2), features

    def told(params, x, y):
        grads, features = grad(loss, has_aux=True)(params, x, y)
        reference = jax.tree.map(lambda g: -jnp.roll(g, 1, axis=0), grads)
        first = jax.tree.map(lambda g: jnp.arange(g.shape[-1]) == 0, grads)
        extra = {"reference": reference, "frozen": first, "progress": 0.4}
        return grads, {"features": features, **extra}

    return told


# Compiled once for the table; each cell compiles its update only.
PLAIN_SLOPES = jax.jit(slopes(jax.grad, apply))
NNX_SLOPES = nnx.jit(slopes(nnx.grad, call))
EQUINOX_SLOPES = eqx.filter_jit(slopes(eqx.filter_grad, call))
GROUPS = units.find(apply, PARAMS, XS[0])
SGD = optax.sgd(0.05, momentum=0.9)
IS_KERNEL = {name: {"bias": False, "kernel": True} for name in WIDTHS}
IS_BIAS = jax.tree.map(lambda kernel: not kernel, IS_KERNEL)
LABELS = jax.tree.map(lambda kernel: "kernel" if kernel else "bias", IS_KERNEL)


def learn(tx):
    """A loop by hand: the parameters, and how many units were replaced."""
    params, state, replaced = PARAMS, tx.init(PARAMS), 0
    for x, y in zip(XS, YS, strict=True):
        grads, extra = PLAIN_SLOPES(params, x, y)
        updates, state = tx.update(grads, state, params, **extra)
        params = optax.apply_updates(params, updates)
        flags = optax.tree.get_all_with_path(state, "replaced")
        replaced += sum(map(np.sum, jax.tree.leaves([flag for _, flag in flags])))
    return params, replaced


def compiled(tx):
    return optax.GradientTransformationExtraArgs(tx.init, jax.jit(tx.update))


@functools.cache
def made(name):
    """A transformation around SGD, compiled once for the rows that change nothing."""
    method = METHODS[name]
    return compiled(method.make(GROUPS, SGD, method.number))


@functools.cache
def by_hand(name):
    """The own loop of a method, run once for the table."""
    return learn(made(name))


def assert_same(params, name):
    expected = by_hand(name)[0]
    found = paths.by_path(params).leaves
    for path, leaf in paths.by_path(expected).leaves.items():
        np.testing.assert_allclose(found[path], leaf, rtol=1e-4, atol=1e-5)


def in_chain(method):
    """Between other links, and behind inject_hyperparams."""
    make = lambda number: method.make(GROUPS, SGD, number)
    injected = optax.inject_hyperparams(make)(number=method.number)
    return optax.chain(optax.clip_by_global_norm(1e6), injected)


def around_masked_and_partition(method):
    """Biases by a masked optimiser; kernels by a part whose numbers are injected."""
    sgd = optax.inject_hyperparams(optax.sgd)(learning_rate=0.05, momentum=0.9)
    parts = optax.partition({"kernel": sgd, "bias": optax.identity()}, LABELS)
    inner = optax.chain(optax.masked(SGD, IS_BIAS), parts)
    return method.make(GROUPS, inner, method.number)


EVERY = pytest.mark.parametrize("name", METHODS)
HOLDING = pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].inner])


def test_the_table_has_every_transformation():
    factories = {name for name in vars(optim) if callable(getattr(optim, name))}
    factories = {name for name in factories if name.islower()}
    # Some read states or give importances, one only marks states, two are of weights.
    others = {"newly_replaced", "restartable", "fisher", "sensitivity", "permuted"}
    others |= {"gaussian", "sample"}
    assert factories - others == set(METHODS)


@EVERY
def test_own_loop(name):
    params, replaced = by_hand(name)
    for old, new in zip(*map(jax.tree.leaves, (PARAMS, params)), strict=True):
        assert np.all(np.isfinite(new)) and np.any(new != old)
    assert replaced > 0 or not METHODS[name].replaces


@EVERY
def test_chain_and_inject_hyperparams(name):
    assert_same(learn(compiled(in_chain(METHODS[name])))[0], name)


@HOLDING
def test_masked_and_partition_inside(name):
    tx = compiled(around_masked_and_partition(METHODS[name]))
    assert_same(learn(tx)[0], name)


@HOLDING
def test_multi_steps_inside(name):
    """One micro-batch per step is the own loop; several are another, finite one."""
    method = METHODS[name]

    def every(k):
        inner = optax.MultiSteps(SGD, lambda step: k).gradient_transformation()
        return method.make(GROUPS, inner, method.number)

    @jax.jit
    def update(k, *arguments, **extra):
        return every(k).update(*arguments, **extra)

    run = lambda k: optax.GradientTransformationExtraArgs(
        every(k).init, functools.partial(update, jnp.int32(k))
    )
    assert_same(learn(run(1))[0], name)
    params, _ = learn(run(3))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
    assert np.any(params["a"]["kernel"] != by_hand(name)[0]["a"]["kernel"])


@EVERY
def test_train_state(name):
    """loplax.flax.TrainState hands the features on, and all else."""
    state = loplax_flax.TrainState.create(apply_fn=apply, params=PARAMS, tx=made(name))
    for x, y in zip(XS, YS, strict=True):
        grads, extra = PLAIN_SLOPES(state.params, x, y)
        state = state.apply_gradients(grads=grads, **extra)
    assert state.step == STEPS
    assert_same(state.params, name)


@EVERY
def test_nnx_optimizer(name):
    """Units found on the module, the transformation made for it and run by nnx."""
    method, model = METHODS[name], NNX()
    groups = units.find(call, model, XS[0])
    assert groups == GROUPS
    tx = method.make(groups, SGD, method.number)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    update = nnx.jit(lambda optimizer, *args, **extra: optimizer.update(*args, **extra))
    for x, y in zip(XS, YS, strict=True):
        grads, extra = NNX_SLOPES(model, x, y)
        update(optimizer, model, grads, **extra)
    assert optimizer.step[...] == STEPS
    assert_same(nnx.state(model, nnx.Param), name)


@EVERY
def test_equinox(name):
    """Units found on the unsplit module, its arrays trained."""
    method, model = METHODS[name], Equinox()
    groups = units.find(call, model, XS[0])
    assert groups == GROUPS
    tx = compiled(method.make(groups, SGD, method.number))
    weights = lambda model: eqx.filter(model, eqx.is_inexact_array)
    state = tx.init(weights(model))
    for x, y in zip(XS, YS, strict=True):
        grads, extra = EQUINOX_SLOPES(model, x, y)
        updates, state = tx.update(grads, state, weights(model), **extra)
        model = eqx.apply_updates(model, updates)
    assert_same(weights(model), name)


def test_a_plain_train_state_is_told_what_to_use():
    """flax's own state cannot pass features on; ours takes them, or none."""
    arguments = dict(apply_fn=apply, params=PARAMS)
    grads, extra = PLAIN_SLOPES(PARAMS, XS[0], YS[0])
    tx = made("continual_backprop")
    plain = train_state.TrainState.create(tx=tx, **arguments)
    with pytest.raises(ValueError, match="needs features="):
        plain.apply_gradients(grads=grads, **extra)
    sgd = loplax_flax.TrainState.create(tx=SGD, **arguments)
    assert sgd.apply_gradients(grads=grads, **extra).step == 1


def test_train_state_with_fields_of_its_own():
    """New values of fields are stored, as in flax; the rest goes to the optimiser."""

    class WithStatistics(loplax_flax.TrainState):
        batch_stats: dict

    grads, extra = PLAIN_SLOPES(PARAMS, XS[0], YS[0])
    tx = made("continual_backprop")
    state = WithStatistics.create(
        apply_fn=apply, params=PARAMS, tx=tx, batch_stats={"mean": 0.0}
    )
    new = state.apply_gradients(grads=grads, **extra, batch_stats={"mean": 1.0})
    assert new.batch_stats == {"mean": 1.0} and new.tx is tx
    assert jax.tree.structure(new) == jax.tree.structure(state)
