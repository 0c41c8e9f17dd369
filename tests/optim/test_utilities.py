"""Utilities: every formula, on every kind of layer, against loops in NumPy."""

import jax
import numpy as np
import optax
import pytest

from loplax import optim, units
from loplax.optim import utilities

W = units.WeightAxis
N, STEPS, DECAY, LR = 4, 3, 0.8, 0.1

# One layer of four units per kind; all in one dict of parameters.
SHAPES = {
    "dense/in": (3, N),
    "dense/out": (N, 2),
    "flat/in": (2, 2, 3, N),  # kernel of a convolution in front of a flattened 2x2 map
    "flat/out": (4 * N, 5),
    "inner/in": (N, 3),  # channels first: unit u owns two adjacent rows behind
    "inner/out": (2 * N, 2),
    "part/in": (3, N),  # concatenated with others, read twice
    "part/out": (2 + N + 1, 3),
    "part/out2": (2, N),
    "grouped/in": (3, 3, 2, N),
    "grouped/out": (3, 3, N // 2, 6),  # a convolution with feature_group_count=2
}
GROUPS = (
    units.UnitGroup("dense", N, (W("dense/in", 1),), (), (), (W("dense/out", 0),)),
    units.UnitGroup(
        "flat", N, (W("flat/in", -1),), (), (), (W("flat/out", 0, repeat=(4, 1)),)
    ),
    units.UnitGroup(
        "inner", N, (W("inner/in", 0),), (), (), (W("inner/out", 0, repeat=(1, 2)),)
    ),
    units.UnitGroup(
        "part",
        N,
        (W("part/in", 1),),
        (),
        (),
        (W("part/out", 0, start=2), W("part/out2", 1)),
    ),
    units.UnitGroup(
        "grouped",
        N,
        (W("grouped/in", 3),),
        (),
        (),
        (W("grouped/out", 2, groups=2, block_axis=3),),
    ),
)


def outgoing(name, w, u):
    """All outgoing weights of unit ``u``, by hand."""
    out = w[f"{name}/out"]
    if name == "dense":
        return out[u]
    if name == "flat":
        return np.stack([out[pixel * N + u] for pixel in range(4)])
    if name == "inner":
        return out[2 * u : 2 * u + 2]
    if name == "part":
        return np.concatenate([out[2 + u], w["part/out2"][:, u]])
    group, place = divmod(u, 2)
    return out[:, :, place, 3 * group : 3 * group + 3]


def incoming(name, w, u):
    kernel = w[f"{name}/in"]
    return kernel[u] if name == "inner" else kernel[..., u]


def formula(utility, w_in, w_out, h, mean):
    """The table of the paper and the authors' code, for one unit."""
    w_in, w_out = np.mean(np.abs(w_in)), np.mean(np.abs(w_out))
    deviation = np.mean(np.abs(h - mean))
    return {
        "contribution": w_out * np.mean(np.abs(h)),
        "zero_contribution": w_out * deviation,
        "adaptable_contribution": w_out * deviation / w_in,
        "weight": w_out,
        "adaptation": 1 / w_in,
        "feature_by_input": deviation / w_in,
    }[utility]


def data():
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    nested = {}
    for path, shape in SHAPES.items():
        layer, name = path.split("/")
        nested.setdefault(layer, {})[name] = normal(*shape)
    features = {"dense": (7, N), "flat": (3, 2, 2, N), "inner": (N,), "part": (2, 5, N)}
    features["grouped"] = (3, 6, 6, N)
    features = {name: normal(STEPS, *shape) for name, shape in features.items()}
    return nested, {name: h + 0.5 for name, h in features.items()}


def watch(utility, seed=0, decay=DECAY):
    """Parameters and states of all steps; nothing is replaced."""
    tx = optim.continual_backprop(
        optax.sgd(LR),
        GROUPS,
        replacement_rate=0.0,
        decay_rate=decay,
        utility=utility,
        initializer=jax.nn.initializers.zeros,  # nothing is drawn, and it compiles fast
        key=jax.random.key(seed),
    )

    @jax.jit
    def run(params, features):
        def step(carry, features):
            params, state = carry
            updates, state = tx.update(params, state, params, features=features)
            params = optax.apply_updates(params, updates)
            return (params, state), (state.utility, state.mean_activation)

        return jax.lax.scan(step, (params, tx.init(params)), features)[1]

    params, features = data()
    return run(params, features)


@pytest.mark.parametrize("utility", [n for n in utilities.FACTORS if n != "random"])
def test_formula(utility):
    """Running means of activation and utility, with the weights after the step."""
    result, means = watch(utility)
    params, features = data()
    flat = {
        f"{k}/{n}": x.astype(float)
        for k, layer in params.items()
        for n, x in layer.items()
    }
    for group in GROUPS:
        name = group.name
        for u in range(N):
            f = smooth = 0.0
            for t in range(STEPS):
                w = {path: x * (1 - LR) ** (t + 1) for path, x in flat.items()}
                h = features[name][t][..., u].astype(float)
                f = DECAY * f + (1 - DECAY) * np.mean(h)
                corrected = f / (1 - DECAY ** (t + 1))
                w_in, w_out = incoming(name, w, u), outgoing(name, w, u)
                now = formula(utility, w_in, w_out, h, corrected)
                smooth = DECAY * smooth + (1 - DECAY) * now
                actual, expected = (means[name][t][u], result[name][t][u]), (f, smooth)
                np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_random():
    """Uniform noise on [0, 1): new for every unit, layer, step and key."""
    first, _ = watch("random", seed=0, decay=0.0)
    second, _ = watch("random", seed=1, decay=0.0)
    drawn = np.concatenate(
        [np.ravel(x) for run in (first, second) for x in run.values()]
    )
    assert np.all((drawn >= 0) & (drawn < 1))
    assert len(np.unique(drawn)) == drawn.size == 2 * STEPS * len(GROUPS) * N
    assert abs(np.mean(drawn) - 0.5) < 4 * np.sqrt(1 / 12 / drawn.size)


def test_every_utility_is_tested():
    """The table of `formula` is complete."""
    for name in set(utilities.FACTORS) - {"random"}:
        formula(name, np.ones(1), np.ones(1), np.ones(1), 0.0)


@pytest.mark.parametrize("name", [group.name for group in GROUPS])
def test_replacement_touches_these_weights(name):
    """Outgoing weights of a replaced unit become 0, wherever the layout puts them.

    The traps: rows of a flattened convolution mis-addressed; outgoing weights re-drawn.
    Every weight of any other unit, and of no unit, stays.
    """
    params, features = data()
    features = {k: np.abs(h[0]) + 0.1 for k, h in features.items()}
    unit = 2
    features[name][..., unit] = 0.0
    group = [group for group in GROUPS if group.name == name]
    tx = optim.continual_backprop(
        optax.set_to_zero(),
        group,
        replacement_rate=0.25,
        maturity_threshold=0,
        key=jax.random.key(0),
    )
    step = jax.jit(lambda p, h: tx.update(p, tx.init(p), p, features=h))
    updates, state = step(params, features)
    assert np.flatnonzero(state.replaced[name]).tolist() == [unit]
    after = optax.apply_updates(params, updates)
    old = {f"{k}/{n}": x for k, layer in params.items() for n, x in layer.items()}
    new = {
        f"{k}/{n}": np.array(x) for k, layer in after.items() for n, x in layer.items()
    }
    assert np.all(outgoing(name, new, unit) == 0)
    drawn = incoming(name, new, unit)
    assert np.all(drawn != incoming(name, old, unit)) and len(np.unique(drawn)) > 2
    for other in set(range(N)) - {unit}:
        for part in (incoming, outgoing):
            np.testing.assert_array_equal(
                part(name, new, other), part(name, old, other)
            )
    changed = {path: int(np.sum(new[path] != old[path])) for path in new}
    expected = np.size(outgoing(name, old, unit)) + np.size(incoming(name, old, unit))
    assert sum(changed.values()) == expected
