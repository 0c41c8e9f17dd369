"""The optimisers are those of torch, and their schedules count all steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.methods import composing

pytestmark = pytest.mark.usefixtures("quick_compile")
NUMBERS = {"learning_rate": 0.02, "momentum": 0.8, "b1": 0.8, "b2": 0.9}


def made(toy, name, optimizer, weight_decay=0.3, **options):
    """The transformation of a method with these numbers."""
    found = composing.method(toy.configured(optimizer), name)
    known = NUMBERS | {"weight_decay": weight_decay, "injection_step": 3}
    hparams = {at: known.get(at.rpartition(".")[2], 0.0) for at in found.values}
    hparams |= {at: 1000 for at in hparams if at.endswith("period")}
    return toy.transformation(found, hparams, **options)


def test_momentum_is_that_of_torch(toy):
    """Weight decay enters the momentum, and the step size is outside of it."""
    tx = made(toy, "bp", "momentum")
    params = {"w": jnp.array([2.0, -1.0])}
    state, w, velocity = tx.init(params), np.array([2.0, -1.0]), 0.0
    for seed in range(3):
        grad = np.random.default_rng(seed).normal(size=2)
        updates, state = tx.update({"w": jnp.float32(grad)}, state, params)
        params = optax.apply_updates(params, updates)
        velocity = 0.8 * velocity + grad + 0.3 * w
        w = w - 0.02 * velocity
        np.testing.assert_allclose(params["w"], w, rtol=1e-5)


@pytest.mark.parametrize("name", ["bp", "l2", "tuned_adam"])
def test_adam_is_that_of_torch(toy, name):
    """Weight decay enters both moments."""
    tx = made(toy, name, "adam")
    params = {"w": jnp.array([2.0, -1.0])}
    state, w, mean, square = tx.init(params), np.array([2.0, -1.0]), 0.0, 0.0
    for count in range(1, 4):
        grad = np.random.default_rng(count).normal(size=2)
        updates, state = tx.update({"w": jnp.float32(grad)}, state, params)
        params = optax.apply_updates(params, updates)
        slope = grad + 0.3 * w
        mean = 0.8 * mean + 0.2 * slope
        square = 0.9 * square + 0.1 * slope**2
        root = np.sqrt(square / (1 - 0.9**count)) + 1e-8
        w = w - 0.02 * mean / (1 - 0.8**count) / root
        np.testing.assert_allclose(params["w"], w, rtol=1e-5)


@pytest.mark.parametrize("name", ["bp", "hare_tortoise", "plasticity_injection"])
def test_a_schedule_counts_all_steps(toy, name):
    """Also where a method starts the weights again, or half of them later."""
    schedule = lambda rate: lambda count: rate * count
    tx = made(toy, name, "sgd", weight_decay=0.0, schedule=schedule)
    params = {"base": jnp.zeros(2), "new": jnp.zeros(2)}
    state = tx.init(params)
    for count in range(8):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        learns = "new" if name == "plasticity_injection" and count >= 3 else "base"
        np.testing.assert_allclose(updates[learns], -0.02 * count, atol=1e-6)
        params = optax.apply_updates(params, updates)
