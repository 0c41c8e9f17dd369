"""One cycle per session is optax's schedule, begun again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

pytestmark = pytest.mark.usefixtures("quick_compile")

STEPS = 20
GRADS = np.random.default_rng(0).normal(size=(2 * STEPS, 3)).astype(np.float32)
CYCLE = {"pct_start": 0.25, "div_factor": 10.0, "final_div_factor": 100.0}


def learned(make, progress=None):
    def run(numbers):
        tx = optax.with_extra_args_support(make(**numbers))

        def step(carry, each):
            params, state = carry
            extra = {} if progress is None else {"progress": each[1]}
            updates, state = tx.update(each[0], state, params, **extra)
            return (optax.apply_updates(params, updates), state), None

        params = jnp.ones(3)
        parts = jnp.zeros(2 * STEPS) if progress is None else progress
        carry = params, tx.init(params)
        return jax.lax.scan(step, carry, (GRADS, parts))[0][0]

    return jax.jit(run)


@pytest.mark.parametrize(
    "inner",
    [
        optax.sgd,
        lambda rate: optax.sgd(rate, momentum=0.9),
        lambda rate: optax.adamw(rate, weight_decay=0.1),
    ],
    ids=["sgd", "momentum", "adamw"],
)
def test_two_sessions_are_two_of_optaxs_schedules(inner):
    one = optax.cosine_onecycle_schedule(STEPS, 0.3, 0.25, 10.0, 100.0)
    twice = optax.join_schedules([one, one], [STEPS])
    expected = learned(lambda: inner(twice))({})
    progress = jnp.tile(jnp.arange(STEPS) / STEPS, 2)
    make = lambda **numbers: optim.one_cycle(inner(0.3), **numbers)
    found = learned(make, progress)({n: jnp.float32(v) for n, v in CYCLE.items()})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found - learned(lambda: inner(0.3))({})).max() > 0.01


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_it_may_only_rise_or_only_fall(start):
    tx = optim.one_cycle(optax.sgd(1.0), pct_start=start)
    rate = lambda p: -tx.update(jnp.array(1.0), tx.init(1.0), 1.0, progress=p)[0]
    rates = np.asarray(jax.vmap(rate)(jnp.linspace(0, 0.999, 50)))
    assert np.isfinite(rates).all()
    assert (np.diff(rates) > 0).all() if start else (np.diff(rates) < 0).all()
    ends = (0.04, 1.0) if start else (1.0, 0.0)
    np.testing.assert_allclose(rates[[0, -1]], ends, atol=1e-3)


@pytest.mark.parametrize(
    ("number", "value"),
    [("pct_start", 1.5), ("pct_start", -0.1), ("div_factor", 0.5)]
    + [("final_div_factor", 0.0), ("div_factor", float("nan"))],
)
def test_numbers_out_of_range_are_refused(number, value):
    with pytest.raises(ValueError, match=f"{number} must be in"):
        optim.one_cycle(optax.sgd(1.0), **{number: value})


def test_without_progress_it_says_so():
    tx = optim.one_cycle(optax.sgd(1.0))
    with pytest.raises(ValueError, match="update needs progress="):
        tx.update(jnp.array(1.0), tx.init(1.0), 1.0)


@pytest.mark.parametrize("progress", [1.0, 1.3, 1.7, 50.0])
def test_after_the_session_the_rate_stays_low(progress):
    """As that of optax's schedule does; and before it, as at its begin."""
    tx, one = optim.one_cycle(optax.sgd(1.0)), jnp.array(1.0)
    rate = lambda part: -float(tx.update(one, tx.init(one), one, progress=part)[0])
    schedule = optax.cosine_onecycle_schedule(1000, 1.0)
    np.testing.assert_allclose(rate(progress), schedule(1000), rtol=1e-2)
    np.testing.assert_allclose(rate(1 - progress), rate(0.0))
