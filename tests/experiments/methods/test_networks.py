"""Plugins that change the network, or what becomes of it at a new task."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.methods import building, composing
from experiments.methods.table import PLUGINS
from loplax.nets import input_normalization

AROUND = [name for name, plugin in PLUGINS.items() if plugin.around]
ALONE = [name for name in AROUND if "around" in PLUGINS[name].claims]
EVERYWHERE = [n for n in AROUND if not PLUGINS[n].sessions and n not in ALONE]


class State(NamedTuple):
    """What a keeper sees of a run."""

    params: Any
    stats: Any
    memory: dict


def around(toy, name, network=None):
    made = composing.method(toy.configured(), name)
    hparams = made.values | {"input_normalization.decay_rate": 0.9}
    return building.network(made, network or toy.NETWORK, hparams, toy.SHAPE)


def test_inputs_are_normalised_before_the_network(toy):
    """Statistics grow while it learns and rest while it is evaluated."""
    network = around(toy, "input_normalization")
    params, stats = network.init(jax.random.key(0))
    seen = input_normalization.init(toy.SHAPE)
    for seed in range(3):
        x = 5 + 2 * jax.random.normal(jax.random.key(seed), (4, 3))
        seen = input_normalization.update(seen, x, 0.9)
        outputs, stats = network.apply(params, stats, x)
        normal = input_normalization.normalize(seen, x)
        np.testing.assert_allclose(outputs, toy.apply(params, normal), rtol=1e-5)
    toy.close(stats, (seen, ()))
    found = network.predict(params, stats, 7 * x)
    normal = input_normalization.normalize(seen, 7 * x)
    np.testing.assert_allclose(found, toy.apply(params, normal), rtol=1e-5)


def test_statistics_of_units_restart_behind_the_normalised_inputs(toy):
    restart = lambda stats, replaced: stats + replaced
    plain = toy.NETWORK._replace(init=lambda key: (toy.init(), 1.0), restart=restart)
    network = around(toy, "input_normalization", plain)
    _, (seen, stats) = network.init(jax.random.key(0))
    assert network.restart((seen, stats), 2.0) == (seen, 3.0)


@pytest.mark.parametrize("name", sorted(PLUGINS.keys() - AROUND))
def test_most_plugins_leave_the_network_alone(toy, name):
    assert around(toy, name) is toy.NETWORK


def test_what_stands_around_the_network_composes(toy):
    """The injected network has the normalised inputs, in both orders."""
    for name in ("+".join(EVERYWHERE), "+".join(EVERYWHERE[::-1])):
        network = around(toy, name)
        params, stats = network.init(jax.random.key(0))
        assert params.keys() == {"base", "new"}
        x = 5 + 2 * jax.random.normal(jax.random.key(1), (4, 3))
        seen = input_normalization.update(input_normalization.init(toy.SHAPE), x, 0.9)
        expected = toy.apply(params["base"], input_normalization.normalize(seen, x))
        np.testing.assert_allclose(
            network.apply(params, stats, x)[0], expected, rtol=1e-5
        )


def test_the_mean_of_weights_moves_with_every_step(toy):
    """It begins as the first weights, and is tested beside those that learn."""
    made = composing.method(toy.configured(), "ema")
    filled = toy.filled(made, {"ema.decay_rate": 0.75})
    (keeper,) = filled.keepers
    state = State(params={"w": jnp.array(1.0)}, stats=jnp.array(1.0), memory={})
    state = state._replace(memory={keeper.name: keeper.init(state)})
    for w in (5.0, 9.0):
        state = state._replace(params={"w": jnp.array(w)}, stats=jnp.array(w))
        state = keeper.on_step(state, None)
    params, stats = filled.evaluated["ema"](state)
    assert (params["w"], stats) == (0.75 * 2 + 0.25 * 9, 9)
    assert filled.evaluated.keys() == {"test", "ema"}


def test_most_plugins_do_nothing_at_a_new_task(toy):
    acting = {name for name, plugin in PLUGINS.items() if plugin.on_task}
    for name in PLUGINS:
        made = composing.method(toy.configured(), name)
        found = toy.filled(made, made.values).on_task
        assert bool(found) == (name in acting)
