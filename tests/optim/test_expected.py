"""Slips that are usual: a function for an optimiser, a module for its arrays."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

from loplax import optim, units

KEY = jax.random.key(0)
MODEL = eqx.nn.MLP(3, 2, 4, 1, key=KEY)
FOUND = units.find(lambda model, x: jax.vmap(model)(x), MODEL, jnp.ones((2, 3)))
WRAPPERS = {
    "ccbp": lambda inner: optim.ccbp(inner, FOUND, key=KEY),
    "continual_backprop": lambda inner: optim.continual_backprop(
        inner, FOUND, replacement_rate=0.1, key=KEY
    ),
    "frozen": optim.frozen,
    "synaptic_intelligence": lambda inner: optim.synaptic_intelligence(
        inner, strength=1.0
    ),
    "hare_tortoise": lambda inner: optim.hare_tortoise(inner, period=2),
    "normalize_and_project": optim.normalize_and_project,
    "one_cycle": optim.one_cycle,
    "redo": lambda inner: optim.redo(inner, FOUND, key=KEY),
    "regrama": lambda inner: optim.regrama(inner, FOUND, key=KEY),
    "restartable": optim.restartable,
    "selective_weight_reinitialization": lambda inner: (
        optim.selective_weight_reinitialization(inner, factor=0.1, period=2, key=KEY)
    ),
    "self_normalized_resets": lambda inner: optim.self_normalized_resets(
        inner, FOUND, key=KEY
    ),
    "shrink_and_perturb": lambda inner: optim.shrink_and_perturb(inner, key=KEY),
    "weight_clipping": lambda inner: optim.weight_clipping(inner, kappa=2.0),
}
OTHERS = {
    "adam": lambda: optim.adam(0.1, FOUND),
    "l2_init": lambda: optim.l2_init(0.1),
    "spectral_regularization": lambda: optim.spectral_regularization(0.1),
    "upgd": lambda: optim.upgd(0.1, noise_scale=0.1, key=KEY),
    "wasserstein_regularization": lambda: optim.wasserstein_regularization(0.1),
}
NO_OPTIMIZERS = {
    "function": (optax.adam, "got the function 'adam'; call it"),
    "nothing": (None, "got NoneType"),
    "rate": (1e-3, "got float"),
}


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("what", NO_OPTIMIZERS)
def test_what_is_wrapped_is_an_optimizer(name, what):
    given, words = NO_OPTIMIZERS[what]
    with pytest.raises(ValueError, match=rf"such as optax\.adam\(1e-3\), {words}"):
        WRAPPERS[name](given)


def test_any_pair_of_functions_is_an_optimizer():
    """``optax.MultiSteps`` is no transformation, but has its two functions."""
    steps = optax.MultiSteps(optax.sgd(0.1), 2)
    assert WRAPPERS["frozen"](steps).init({"w": jnp.ones(2)})


@pytest.mark.parametrize("name", sorted({*WRAPPERS, *OTHERS}))
def test_a_module_is_no_tree_of_arrays(name):
    """Functions among the leaves are named, with what takes them away."""
    tx = OTHERS[name]() if name in OTHERS else WRAPPERS[name](optax.sgd(0.1))
    words = r"'activation' is no array.* pass eqx\.filter\(model, eqx\.is_inexact"
    with pytest.raises(ValueError, match=words):
        tx.init(MODEL)
    tx.init(eqx.filter(MODEL, eqx.is_inexact_array))
