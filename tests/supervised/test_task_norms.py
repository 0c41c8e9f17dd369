"""Norms of every task, against plain Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import nets, streams, supervised, units
from loplax.streams import splits
from loplax.supervised import losses, task_norms
from loplax.supervised.problem import Network, Problem, stateless

pytestmark = pytest.mark.usefixtures("quick_compile")

rng = np.random.default_rng(0)
LABELS = np.arange(36) % 6
INPUTS = np.float32(rng.normal(size=(36, 4)) + LABELS[:, None])
TASKS, OF_TASK = 3, LABELS // 2
NET = nets.BinaryMLP((8, 7), 6)


def stream(subsets="sessions"):
    split = splits.given(OF_TASK, OF_TASK)
    data = INPUTS, LABELS
    return streams.sessions(
        data, data, split, classes=6, steps=4, batch=6, test_batch=12, subsets=subsets
    )


def network(net=NET):
    def init(key):
        variables = net.init(key, jnp.ones((2, 4)))
        return variables["params"], variables.get("batch_stats", {})

    def apply(params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        y, new = net.apply(variables, x, train=True, mutable=["batch_stats"])
        return y, new.get("batch_stats", {})

    predict = lambda params, stats, x: net.apply(
        {"params": params, "batch_stats": stats}, x
    )
    return Network(init, apply, predict)


PLAIN = network()
FOUND = units.find(
    PLAIN.apply,
    *jax.eval_shape(PLAIN.init, jax.random.key(0)),
    jnp.ones((2, 4)),
    has_aux=True,
)
PLAIN = PLAIN._replace(restart=functools.partial(nets.restart_statistics, FOUND))
MADE = task_norms.per_task(PLAIN, stream(), FOUND)


def build(hparams, key, data):
    return Problem(
        stream=stream(),
        network=MADE.network,
        loss=losses.cross_entropy,
        tx=optax.with_extra_args_support(optax.adam(0.05)),
        groups=(),
        measures={"accuracy": losses.accuracy},
        keepers=(MADE.keeper,),
        by_subset=MADE.by_subset,
        test_starts=True,
        observe=(),
    )


def with_norms(params, stats, then):
    """Kernels of now, norms and statistics of then."""
    params = jax.tree.map(lambda x: x, params)
    for name, layer in params.items():
        layer["norm"] = then[0][name]["norm"]
    return params, then[1]


def test_every_task_is_tested_with_its_norms():
    """Earlier ones with those that they ended with, the present one with its own."""
    state = jax.jit(functools.partial(supervised.init, build))(jax.random.key(0), {})
    segment = jax.jit(functools.partial(supervised.segment, build, bins=1, fresh=False))
    ends = []
    for task in range(TASKS):
        state, found = segment(state)
        now = state.params, state.stats.now
        ends.append(now)
        for subset in range(TASKS):
            value = found["test_loss"][0, subset]
            if subset > task:
                assert np.isnan(value)
                continue
            params, stats = with_norms(*now, ends[subset])
            chosen = subset == OF_TASK
            outputs = PLAIN.predict(params, stats, INPUTS[chosen])
            expected = losses.cross_entropy(outputs, LABELS[chosen]).mean()
            np.testing.assert_allclose(value, expected, 1e-4)
    assert np.isfinite(found["test_loss_start"]).all()
    changed = PLAIN.predict(*ends[2], INPUTS[:12]) - PLAIN.predict(
        *with_norms(*ends[2], ends[0]), INPUTS[:12]
    )
    assert np.abs(changed).max() > 0.1


def test_a_replaced_unit_has_no_past():
    """It is tested with what it has now, the others with what they had."""
    state = jax.jit(functools.partial(supervised.init, build))(jax.random.key(0), {})
    segment = jax.jit(functools.partial(supervised.segment, build, bins=1, fresh=False))
    state, _ = segment(state)
    state, _ = segment(state)
    replaced = {"hidden_0": jnp.arange(8) == 3, "hidden_1": jnp.zeros(7, bool)}
    stats = jax.jit(MADE.network.restart)(state.stats, replaced)
    np.testing.assert_array_equal(stats.now["hidden_0"]["norm"]["mean"][3], 0)
    now = state._replace(stats=stats)
    params, tested = MADE.by_subset(now, jnp.int32(0))
    old_params, old = MADE.by_subset(state, jnp.int32(0))
    for name in ("hidden_0", "hidden_1", "output"):
        for pair in (
            (params, old_params, state.params, "scale"),
            (params, old_params, state.params, "bias"),
            (tested.now, old.now, stats.now, "mean"),
            (tested.now, old.now, stats.now, "var"),
        ):
            new, before, current = (tree[name]["norm"][pair[3]] for tree in pair[:3])
            own = np.arange(len(new)) == (3 if name == "hidden_0" else -1)
            np.testing.assert_array_equal(new, np.where(own, current, before))
            assert np.any(before != current)


def test_what_cannot_be():
    """Subsets that are no tasks, and networks without norms."""
    with pytest.raises(ValueError, match=r"whose subsets are its tasks.*'base'"):
        task_norms.per_task(PLAIN, stream("old_new"), FOUND)
    bare = stateless(lambda key: {"w": jnp.ones((4, 6))}, lambda p, x: x @ p["w"])
    with pytest.raises(ValueError, match="neither norms nor statistics"):
        task_norms.per_task(bare, stream(), ())
