"""Collectives over an axis that ``vmap`` gave a name, as in Equinox's batch norm."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import units
from loplax.units import walk

IMAGES = jax.random.normal(jax.random.key(0), (4, 3, 6, 6))
MODES = ("batch", "ema")


class Net(eqx.Module):
    conv: eqx.nn.Conv2d
    first: eqx.nn.BatchNorm
    linear: eqx.nn.Linear
    second: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, mode):
        keys = jax.random.split(jax.random.key(1), 3)
        self.conv = eqx.nn.Conv2d(3, 4, 3, key=keys[0])
        self.first = eqx.nn.BatchNorm(4, "batch", mode=mode)
        self.linear = eqx.nn.Linear(64, 5, key=keys[1])
        self.second = eqx.nn.BatchNorm(5, "batch", mode=mode)
        self.head = eqx.nn.Linear(5, 2, key=keys[2])

    def __call__(self, x, state):
        x, state = self.first(self.conv(x), state)
        x, state = self.second(self.linear(jax.nn.relu(x).ravel()), state)
        return self.head(jax.nn.relu(x)), state


def call(model, x, state):
    batched = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    return batched(x, state)


@pytest.mark.parametrize("mode", MODES)
def test_batch_norm_of_equinox(mode, prove):
    """Its statistics belong to one unit each; running ones stay where they are."""
    model, state = eqx.nn.make_with_state(Net)(mode)
    found = prove(call, model, IMAGES, state, has_aux=True)
    assert found.names == ("conv", "linear") and not found.left_out
    for group, norm in zip(found, ("first", "second"), strict=True):
        assert [r.path for r in group.scales] == [f"{norm}/weight"]
        assert f"{norm}/bias" in [r.path for r in group.biases]
        assert not group.coupled_by
        assert group.tied_to == (("constants",) if mode == "ema" else ())
    tapped = units.tap(call, has_aux=True)
    output, features = tapped(model, IMAGES, state)
    plain = call(model, IMAGES, state)
    jax.tree.map(np.testing.assert_array_equal, output, plain)
    np.testing.assert_allclose(
        jax.vmap(model.head)(features["linear"]), output[0], rtol=1e-4, atol=1e-5
    )
    assert features["conv"].shape == (4, 16, 4)


@pytest.mark.parametrize("mode", MODES)
def test_inference_of_equinox(mode, prove):
    model, state = eqx.nn.make_with_state(Net)(mode)
    model = eqx.nn.inference_mode(model)
    found = prove(call, model, IMAGES, state, has_aux=True)
    assert found.names == ("conv", "linear")


@pytest.mark.parametrize("mode", MODES)
def test_state_that_is_returned_needs_has_aux(mode):
    model, state = eqx.nn.make_with_state(Net)(mode)
    reasons = units.find(call, model, IMAGES, state).left_out
    assert set(reasons) == {"conv", "linear"}
    assert all("say has_aux=True" in reason for reason in reasons.values())


REDUCTIONS = {"psum": jnp.sum, "pmean": jnp.mean, "pmax": jnp.max, "pmin": jnp.min}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("over", ["batch", "units"])
def test_a_collective_is_the_reduction(name, over):
    """Over the batch it leaves units apart; over units it couples them, by name."""
    x = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
    params = {"w": jnp.ones((3, 6)), "v": jnp.ones((6, 2))}
    axis = 0 if over == "batch" else 1
    collective = jax.vmap(
        lambda h: h - getattr(jax.lax, name)(h, "i"), axis, axis, axis_name="i"
    )
    reduction = lambda h: h - REDUCTIONS[name](h, axis, keepdims=True)

    def apply(norm):
        return lambda p, x: jnp.tanh(norm(x @ p["w"])) @ p["v"]

    found = units.verify(apply(collective), params, x)
    assert found.names == ("w",)
    assert found == units.find(apply(reduction), params, x)


def test_axes_with_names_are_not_followed():
    """What is summed over devices is not known from the program."""
    function = lambda x: jax.lax.psum((x, 2 * x), ("here", "there"))
    batched = jax.vmap(function, axis_name="here")
    closed = jax.make_jaxpr(batched, axis_env=[("there", 2)])(jnp.ones((3, 6)))
    program = walk.flatten(closed)
    assert "psum" in [step.name for step in program.steps]
    assert not any(map(walk.is_collective, program.steps))
    both = jax.vmap(batched, axis_name="there")
    steps = walk.flatten(jax.make_jaxpr(both)(jnp.ones((2, 3, 6)))).steps
    sums = [step for step in steps if step.name == "reduce_sum"]
    assert [set(step.params["axes"]) for step in sums] == [{0, 1}] * 2
    assert all(len(step.inputs) == len(step.outputs) == 1 for step in sums)
