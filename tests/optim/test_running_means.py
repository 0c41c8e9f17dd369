"""Running means restart with their counts: one bad value leaves no trace."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

STEPS, DECAY = 9, 0.9


def cbp_utility(known):
    return known.utility / (1 - known.discount)


def cbp_activation(known):
    (mean,) = known.mean_activation.values()
    return mean / (1 - known.discount)


def magnitude(known):
    return known.magnitude / (1 - known.discount)


def cbp(groups, utility="contribution"):
    return optim.continual_backprop(
        optax.set_to_zero(),
        groups,
        replacement_rate=0.0,
        decay_rate=DECAY,
        utility=utility,
        initializer=jax.nn.initializers.zeros,
        key=jax.random.key(0),
    )


def dormant(make):
    def build(groups):
        return make(
            optax.set_to_zero(),
            groups,
            threshold=0.0,
            period=1,
            decay_rate=DECAY,
            initializer=jax.nn.initializers.zeros,
            key=jax.random.key(0),
        )

    return build


CASES = {
    "utility": (cbp, cbp_utility),
    "deviation": (lambda g: cbp(g, "adaptable_contribution"), cbp_utility),
    "weight utility": (lambda g: cbp(g, "weight"), cbp_utility),
    "mean activation": (cbp, cbp_activation),
    "redo": (dormant(optim.redo), magnitude),
    "regrama": (dormant(optim.regrama), magnitude),
}


@pytest.mark.parametrize("when", [0, 1, 5])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", CASES)
def test_a_constant_signal_with_one_bad_value_gives_the_constant(net, name, bad, when):
    """Unit 1 of the first layer is bad at one step; its means are as without it.

    The fault: a mean that starts again at full value, and a bias correction that does
    not, read 40, 19, 5 times the constant for hundreds of steps.
    """
    make, read = CASES[name]
    tx, params = make(net.groups[:1]), net.random(0)
    features = {"a": jnp.tile(net.features(1)["a"][:1], (5, 1))}
    is_bad = jnp.arange(STEPS) == when

    @jax.jit
    def run(spoil):
        def step(state, is_bad):
            value = jnp.where(is_bad & spoil, bad, 0.0)
            grads = params | {"w0": params["w0"].at[:, 1].add(value)}
            seen = {"a": features["a"].at[2, 1].add(value)}
            _, state = tx.update(grads, state, params, features=seen)
            return state, read(state.units["a"])

        return jax.lax.scan(step, tx.init(params), is_bad)[1]

    spoilt, clean = run(True), run(False)
    known = np.ones((STEPS, 4), bool)
    known[when:, 1] = when > 0  # with no value before there is nothing to keep
    known[when + 1 :, 1] = True
    np.testing.assert_allclose(spoilt[known], clean[known], rtol=1e-5, atol=1e-7)
