"""What is frozen does not move by a bit, whatever the optimiser would do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

pytestmark = pytest.mark.usefixtures("quick_compile")

OPTIMIZERS = {
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.5),
    "momentum and decay": lambda: optax.chain(
        optax.add_decayed_weights(0.3), optax.sgd(0.1, momentum=0.9)
    ),
    "noise": lambda: optax.chain(
        optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.sgd(0.1)
    ),
    "perturbed": lambda: optim.shrink_and_perturb(
        optax.sgd(0.1), shrink=0.9, perturb_scale=0.1, period=1, key=jax.random.key(1)
    ),
}
rng = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
PARAMS = {"in": {"w": draw(4, 5)}, "out": {"b": draw(3), "w": draw(5, 3)}}
GRADS = jax.tree.map(lambda p: draw(8, *p.shape), PARAMS)


def learned(tx, flags):
    """The weights at each of 8 steps, with the flags of each step."""

    def step(carry, each):
        params, state = carry
        grads, flags = each
        updates, state = tx.update(grads, state, params, frozen=flags)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    carry = PARAMS, tx.init(PARAMS)
    return jax.jit(lambda: jax.lax.scan(step, carry, (GRADS, flags))[1])()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_columns_stay_bit_by_bit_while_they_are_frozen(name):
    """From the fourth step on; what has gathered till then does not move them."""
    tx = optim.frozen(OPTIMIZERS[name]())
    now = jnp.arange(8)[:, None] >= 3
    out = now & jnp.array([True, False, True])
    found = learned(tx, {"in": {"w": now[:, 0]}, "out": out})
    for column in (found["out"]["b"], found["out"]["w"]):
        column = np.asarray(column)
        np.testing.assert_array_equal(
            column[3:, ..., [0, 2]], column[2:-1, ..., [0, 2]]
        )
        assert (column[1:, ..., 1] != column[:-1, ..., 1]).all()
        assert (column[1:3] != column[:2]).all()
    w = np.asarray(found["in"]["w"])
    np.testing.assert_array_equal(w[3:], w[2:-1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_flags_set_it_is_the_optimiser(name):
    none = jnp.zeros(8, bool)
    plain = optax.with_extra_args_support(OPTIMIZERS[name]())
    expected = learned(plain, none)
    found = learned(optim.frozen(OPTIMIZERS[name]()), none)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_not_exactly_frozen_weights_decay():
    """As AdamW's: with gradients of 0 from the start, by the decay alone."""
    tx = optim.frozen(OPTIMIZERS["adamw"](), exact=False)
    found = learned(tx, jnp.ones(8, bool))
    for leaf, first in zip(*map(jax.tree.leaves, (found, PARAMS)), strict=True):
        shrunk = first * 0.95 ** np.arange(1, 9).reshape(-1, *[1] * first.ndim)
        np.testing.assert_allclose(leaf, shrunk, rtol=1e-5)


def test_two_of_them_freeze_what_either_says():
    one = {"in": jnp.array(True), "out": jnp.array(False)}
    other = jnp.array([False, True, False])
    tx = optim.frozen(optim.frozen(optax.sgd(1.0), argument="one"), argument="other")
    updates, _ = tx.update(
        PARAMS, tx.init(PARAMS), PARAMS, one=one, other={"in": False, "out": other}
    )
    assert not np.asarray(updates["in"]["w"]).any()
    for leaf in (updates["out"]["w"], updates["out"]["b"]):
        assert (np.any(np.atleast_2d(leaf), axis=0) == ~other).all()


def test_gradients_of_what_is_frozen_do_not_reach_the_optimiser():
    """Not even in a norm, or as NaN."""
    tx = optim.frozen(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)))
    grads = {"a": jnp.array([0.5, jnp.nan]), "b": jnp.array(1e9)}
    flags = {"a": jnp.array([False, True]), "b": True}
    updates, _ = tx.update(grads, tx.init(grads), grads, frozen=flags)
    assert updates["a"].tolist() == [-0.5, 0] and updates["b"] == 0


def test_flags_may_differ_side_by_side():
    tx = optim.frozen(optax.sgd(1.0))
    step = lambda flags: tx.update(PARAMS, tx.init(PARAMS), PARAMS, frozen=flags)[0]
    found = jax.jit(jax.vmap(step))(jnp.array([True, False]))
    zero = jax.tree.map(lambda u: np.abs(u).max(axis=tuple(range(1, u.ndim))), found)
    assert all(leaf[0] == 0 and leaf[1] > 0 for leaf in jax.tree.leaves(zero))


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ({}, "update needs frozen="),
        ({"frozen": 1.0}, r"must be bool.*float32\[\] for"),
        ({"frozen": jnp.array([True, False])}, r"broadcast.*\[2\] for \[4, 5\]"),
    ],
)
def test_bad_flags_are_refused(extra, match):
    tx = optim.frozen(optax.sgd(1.0))
    with pytest.raises(ValueError, match=match):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, **extra)


def test_it_is_the_last_of_a_chain():
    tx = optax.chain(optim.frozen(optax.sgd(1.0)), optax.add_decayed_weights(0.1))
    with pytest.raises(ValueError, match="last link"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, frozen=True)


def test_replaced_units_start_again_where_the_rest_is_frozen():
    """What replaces units stands around it."""
    from loplax import units

    apply = lambda params, x: jax.nn.relu(x @ params["w"]) @ params["v"]
    params = {"w": draw(3, 4), "v": draw(4, 2)}
    found = units.find(apply, params, jnp.ones((2, 3)))
    inner = optim.frozen(optax.adamw(0.1))
    tx = optim.regrama(inner, found, period=1, threshold=0.5, key=jax.random.key(0))
    grads = {"w": jnp.eye(3, 4), "v": jnp.ones((4, 2))}
    step = functools.partial(tx.update, grads, tx.init(params), params)
    updates, state = step(frozen=True)
    moved = np.abs(np.asarray(updates["w"])).max(axis=0) > 0
    np.testing.assert_array_equal(moved, state.replaced["w"])
    assert moved.tolist() == [False, False, False, True]


def test_a_reference_is_stopped_where_the_gradient_is():
    """Else A-GEM would project by weights that do not learn, and too little."""
    tx = optim.frozen(optax.chain(optim.a_gem(), optax.sgd(1.0)))
    params, grads = jnp.zeros(2), jnp.array([1.0, 5.0])
    reference, flags = jnp.array([-1.0, 3.0]), jnp.array([False, True])
    told = {"reference": reference, "frozen": flags}
    updates, _ = tx.update(grads, tx.init(params), params, **told)
    np.testing.assert_allclose(updates, [0.0, 0.0], atol=1e-7)
