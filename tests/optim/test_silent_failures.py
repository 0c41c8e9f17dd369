"""Ways in which replacement could go wrong without an error."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim, units

KEY = jax.random.key(0)


def rows(params, x):
    """A network whose kernels are ``[outputs, inputs]``."""
    return jax.nn.relu(x @ params["w"].T) @ params["v"].T


def columns(params, x):
    return jax.nn.relu(x @ params["w"]) @ params["v"]


def start(apply, shapes, size=3):
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    x = jnp.ones((4, size))
    return params, units.find(apply, params, x), x


def test_fan_in_whatever_the_layout():
    """The default distribution has the bound of its fan-in, not of the units."""
    params, groups, _ = start(rows, {"w": (512, 8), "v": (1, 512)}, 8)
    tx = optim.continual_backprop(
        optax.sgd(0.0), groups, replacement_rate=1.0, maturity_threshold=0, key=KEY
    )
    features = {"w": jnp.ones((4, 512))}
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params, features=features)
    drawn = np.asarray(optax.apply_updates(params, updates)["w"])
    bound = np.sqrt(6 / 8)
    assert 0.99 * bound < np.abs(drawn).max() <= bound * (1 + 1e-6)


def test_one_bad_observation_does_not_stop_replacement():
    params, groups, x = start(columns, {"w": (3, 8), "v": (8, 1)})
    tx = optim.continual_backprop(
        optax.sgd(0.0), groups, replacement_rate=0.125, maturity_threshold=3, key=KEY
    )
    update = jax.jit(tx.update)
    state, replaced = tx.init(params), 0
    for i in range(20):
        value = jnp.nan if i == 2 else 1.0
        features = {"w": jnp.full((4, 8), value)}
        _, state = update(params, state, params, features=features)
        replaced += int(state.replaced["w"].sum())
    assert np.isfinite(state.units["w"].utility).all()
    assert replaced >= 10


def test_redo_forgives_a_unit_that_was_dead_once():
    """Means are bias-corrected: a unit that is as active as the others stays."""
    params, groups, _ = start(columns, {"w": (3, 4), "v": (4, 1)})
    tx = optim.redo(optax.sgd(0.0), groups, period=5, decay_rate=0.99, key=KEY)
    update, state, replaced = jax.jit(tx.update), tx.init(params), []
    for i in range(50):
        features = {"w": jnp.ones((4, 4)).at[:, 0].set(0.0 if i < 5 else 1.0)}
        _, state = update(params, state, params, features=features)
        replaced.append(int(state.replaced["w"].sum()))
    assert sum(replaced) == replaced[4] == 1


def test_what_is_drawn_does_not_depend_on_the_bound():
    """A sweep's other values cannot change a run through max_replacements."""
    params, groups, _ = start(columns, {"w": (3, 8), "v": (8, 1)})
    after = []
    for bound in (1, 4):
        tx = optim.continual_backprop(
            optax.sgd(0.0),
            groups,
            replacement_rate=0.125,
            maturity_threshold=0,
            max_replacements=bound,
            key=KEY,
        )
        features = {"w": jnp.arange(1.0, 9.0)[None]}
        updates, _ = tx.update(params, tx.init(params), params, features=features)
        after.append(updates["w"])
    np.testing.assert_array_equal(*after)


def test_outgoing_weights_are_zero_under_low_precision_gradients():
    params, groups, _ = start(columns, {"w": (3, 8), "v": (8, 1)})
    params["v"] = params["v"] * 1.2345678
    grads = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    tx = optim.continual_backprop(
        optax.sgd(0.1), groups, replacement_rate=1.0, maturity_threshold=0, key=KEY
    )
    features = {"w": jnp.ones((4, 8))}
    updates, _ = tx.update(grads, tx.init(params), params, features=features)
    np.testing.assert_array_equal(optax.apply_updates(params, updates)["v"], 0.0)


@pytest.mark.parametrize("name", ["continual_backprop", "redo", "shrink", "l2_init"])
def test_donating_the_state_leaves_the_callers_arrays(name):
    params, groups, _ = start(columns, {"w": (3, 8), "v": (8, 1)})
    key = jax.random.key(1)
    tx = {
        "continual_backprop": lambda: optim.continual_backprop(
            optax.sgd(0.1), groups, replacement_rate=0.1, key=key
        ),
        "redo": lambda: optim.redo(optax.sgd(0.1), groups, key=key),
        "shrink": lambda: optim.shrink_and_perturb(
            optax.sgd(0.1), perturb_scale=0.1, key=key
        ),
        "l2_init": lambda: optim.l2_init(0.1),
    }[name]()
    features = {"w": jnp.ones((4, 8))}
    step = jax.jit(
        lambda state, params: tx.update(params, state, params, features=features),
        donate_argnums=(0, 1),
    )
    step(tx.init(params), jax.tree.map(jnp.copy, params))
    jax.block_until_ready(tx.init(params))
    jax.random.key_data(key)


def test_wrappers_nest_and_take_injected_hyperparameters():
    params, groups, _ = start(columns, {"w": (3, 8), "v": (8, 1)})

    def cbp(replacement_rate):
        inner = optax.adam(0.1)
        return optim.continual_backprop(
            inner, groups, replacement_rate=replacement_rate, key=KEY
        )

    nested = optim.redo(cbp(0.1), groups, period=1, key=KEY)
    injected = optax.inject_hyperparams(cbp)(replacement_rate=0.1)
    features = {"w": jnp.ones((4, 8)).at[:, 0].set(0.0)}
    for tx in (nested, injected):
        _, state = tx.update(params, tx.init(params), params, features=features)
        assert int(optax.tree.get(state, "age")[1]) == 1


def test_missing_features_and_half_a_layer():
    params, groups, _ = start(columns, {"w": (3, 8), "v": (8, 1)})
    tx = optim.redo(optax.sgd(0.1), groups, key=KEY)
    with pytest.raises(ValueError, match=r"features=\.\.\., which units\.tap"):
        tx.update(params, tx.init(params), params)
    with pytest.raises(ValueError, match="'w' must be read and written to"):
        optim.redo(optax.sgd(0.1), [groups[0]._replace(outgoing=())], key=KEY)
    with pytest.raises(ValueError, match="period must be a whole number"):
        optim.redo(optax.sgd(0.1), groups, period=1.5, key=KEY)
