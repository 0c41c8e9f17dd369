"""The methods by name are the transformations that they are said to be."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import methods
from loplax import nets, units

pytestmark = pytest.mark.usefixtures("quick_compile")

NUMBERS = {
    "learning_rate": 0.1,
    "b1": 0.8,
    "b2": 0.9,
    "weight_decay": 0.3,
    "perturb_scale": 0.0,
    "threshold": 0.0,
    "period": 5,
    "decay_rate": 0.9,
    "replacement_rate": 0.0,
    "maturity_threshold": 2,
}
OWN = {"l2": 0.3, "l2_init": 0.3, "shrink_and_perturb": 0.3}


def apply(params, x):
    return jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]


@pytest.fixture(scope="module")
def net():
    keys = jax.random.split(jax.random.key(0), 2)
    params = {
        "w": jax.random.normal(keys[0], (3, 4)),
        "b": jnp.ones(4),
        "v": jax.random.normal(keys[1], (4,)),
    }
    return params, units.find(apply, params, jnp.ones(3))


def made(net, name, optimizer="sgd", **changes):
    used = methods.OPTIMIZERS[optimizer] + methods.SETTINGS[name]
    numbers = {setting: NUMBERS[setting] for setting in used} | changes
    return methods.make(
        numbers,
        jax.random.key(1),
        name=name,
        optimizer=optimizer,
        groups=net[1],
        initializer=nets.kaiming_uniform("tanh"),
        static={"max_replacements": 1} if name == "cbp" else {},
    )


def trained(net, tx, steps=3):
    """The weights after some steps."""
    params, _ = net
    state = tx.init(params)
    tapped = units.tap(apply)

    def loss(params, x):
        output, features = tapped(params, x)
        return jnp.square(output - 1), features

    @jax.jit
    def step(params, state, x):
        grads, features = jax.grad(loss, has_aux=True)(params, x)
        updates, state = tx.update(grads, state, params, features=features)
        return optax.apply_updates(params, updates), state

    for seed in range(steps):
        params, state = step(params, state, jax.random.normal(jax.random.key(seed), 3))
    return params


def assert_close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected
    )


def by_hand(net, optimizer):
    plain = {
        "sgd": optax.sgd(0.1),
        "adam": optax.adam(0.1, b1=0.8, b2=0.9),
    }
    return optax.with_extra_args_support(plain[optimizer])


@pytest.mark.parametrize("optimizer", methods.OPTIMIZERS)
@pytest.mark.parametrize("name", ["bp", "linear", "cbp", "redo"])
def test_without_replacements_all_are_the_optimiser(net, name, optimizer):
    """At rate 0, or threshold 0 with units alive; Adam's counts per unit then agree."""
    found = trained(net, made(net, name, optimizer))
    assert_close(found, trained(net, by_hand(net, optimizer)))


@pytest.mark.parametrize("optimizer", methods.OPTIMIZERS)
def test_l2_is_added_to_the_gradient(net, optimizer):
    expected = optax.chain(optax.add_decayed_weights(0.3), by_hand(net, optimizer))
    assert_close(trained(net, made(net, "l2", optimizer)), trained(net, expected))


def test_shrinking_is_weight_decay(net):
    """Without noise, the shrinking of the published method is that of L2 with SGD."""
    expected = trained(net, made(net, "l2"))
    assert_close(trained(net, made(net, "shrink_and_perturb")), expected)


def test_l2_init_pulls_to_the_start(net):
    params, _ = net
    found = trained(net, made(net, "l2_init", weight_decay=9.0, learning_rate=0.01), 40)
    free = trained(net, made(net, "bp", learning_rate=0.01), 40)
    for name in params:
        near, far = (np.linalg.norm(x[name] - params[name]) for x in (found, free))
        assert near < 0.5 * far


@pytest.mark.parametrize("name", ["shrink_and_perturb", "cbp", "redo"])
def test_methods_with_a_number_of_their_own_use_it(net, name):
    change = {
        "shrink_and_perturb": {"perturb_scale": 0.1},
        "cbp": {"replacement_rate": 0.9},
        "redo": {"threshold": 5.0, "period": 2},
    }[name]
    found, plain = (
        trained(net, made(net, name, **change), 6),
        trained(net, made(net, name), 6),
    )
    assert not np.allclose(found["w"], plain["w"], rtol=1e-3)


@pytest.mark.parametrize("optimizer", methods.OPTIMIZERS)
@pytest.mark.parametrize("name", methods.SETTINGS)
def test_bad_numbers_are_refused(net, name, optimizer):
    used = methods.OPTIMIZERS[optimizer] + methods.SETTINGS[name]
    for setting in used:
        for value in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"{setting}|shrink"):
                made(net, name, optimizer, **{setting: value})


def test_unknown_names_are_refused(net):
    for given in ({"name": "cpb"}, {"optimizer": "sdg"}):
        arguments = {"name": "bp", "optimizer": "sgd"} | given
        with pytest.raises(ValueError, match=next(iter(given.values()))):
            methods.make(
                {},
                jax.random.key(0),
                groups=net[1],
                initializer=None,
                static={},
                **arguments,
            )
