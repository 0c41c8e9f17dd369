"""Utilities: every formula, on every kind of layer, against loops in NumPy."""

import itertools

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
        # The second reader meets another value, a normed one say.
        (W("part/out", 0, start=2), W("part/out2", 1, feature="part@out2")),
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


def readers(name, w, h, u):
    """By hand: all outgoing weights of unit ``u``, each beside what it multiplies.

    Pairs of weights (any shape) and the activations that all of these meet.
    """
    out, x = w[f"{name}/out"], h[name][..., u]
    if name == "dense":
        return [(out[u], x)]
    if name == "flat":
        return [(out[pixel * N + u], x[..., pixel]) for pixel in range(4)]
    if name == "inner":
        return [(out[2 * u + i], x[..., i]) for i in range(2)]
    if name == "part":
        return [(out[2 + u], x), (w["part/out2"][:, u], h["part@out2"][..., u])]
    group, place = divmod(u, 2)
    return [(out[:, :, place, 3 * group : 3 * group + 3], x)]


def outgoing(name, w, u):
    nothing = {key: np.zeros(shape) for key, shape in FEATURES.items()}
    return np.concatenate([x.ravel() for x, _ in readers(name, w, nothing, u)])


def incoming(name, w, u):
    kernel = w[f"{name}/in"]
    return kernel[u] if name == "inner" else kernel[..., u]


def formula(utility, w_in, read, means):
    """The table of the paper and the authors' code, for one unit.

    ``means`` holds the mean activation that belongs to each entry of ``read``.
    """
    mean_over_weights = lambda terms: np.concatenate(terms).mean()
    w_in, first = np.mean(np.abs(w_in)), means[0]
    w_out = mean_over_weights([np.abs(w).ravel() for w, _ in read])
    times = lambda size: mean_over_weights(
        [np.abs(w).ravel() * size(h, f) for (w, h), f in zip(read, means, strict=True)]
    )
    active = times(lambda h, f: np.mean(np.abs(h)))
    deviates = times(lambda h, f: np.mean(np.abs(h - f)))
    # Of all that the first reader reads.
    same = [h for (_, h), f in zip(read, means, strict=True) if f == first]
    deviation = np.mean(np.abs(np.stack(same) - first))
    return {
        "contribution": active,
        "zero_contribution": deviates,
        "adaptable_contribution": deviates / w_in,
        "weight": w_out,
        "adaptation": 1 / w_in,
        "feature_by_input": deviation / w_in,
    }[utility]


# The last axes are the units and, before them, the positions at which these are read.
FEATURES = {
    "dense": (7, N),
    "flat": (3, 4, N),
    "inner": (2, N),
    "part": (2, 5, N),
    "part@out2": (2, 5, N),
    "grouped": (3, 6, 6, N),
}


def data():
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    nested = {}
    for path, shape in SHAPES.items():
        layer, name = path.split("/")
        nested.setdefault(layer, {})[name] = normal(*shape)
    features = {name: normal(STEPS, *shape) for name, shape in FEATURES.items()}
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
            return (params, state), state.units

        return jax.lax.scan(step, (params, tx.init(params)), features)[1]

    params, features = data()
    return run(params, features)


@pytest.mark.parametrize("utility", [n for n in utilities.TERMS if n != "random"])
def test_formula(utility):
    """Running means of activation and utility, with the weights after the step."""
    known = watch(utility)
    params, features = data()
    flat = {
        f"{k}/{n}": x.astype(float)
        for k, layer in params.items()
        for n, x in layer.items()
    }
    for group, u in itertools.product(GROUPS, range(N)):
        name, f, smooth = group.name, 0.0, 0.0
        for t in range(STEPS):
            w = {path: x * (1 - LR) ** (t + 1) for path, x in flat.items()}
            h = {key: x[t].astype(float) for key, x in features.items()}
            read = readers(name, w, h, u)
            # Means over batch and positions, of each value that is read.
            keys = list(group.features)
            f = DECAY * f + (1 - DECAY) * np.array([h[k][..., u].mean() for k in keys])
            means = f / (1 - DECAY ** (t + 1))
            means = means if len(keys) == len(read) else [means[0]] * len(read)
            now = formula(utility, incoming(name, w, u), read, means)
            smooth = DECAY * smooth + (1 - DECAY) * now
            actual = known[name].utility[t][u]
            np.testing.assert_allclose(actual, smooth, rtol=1e-4, atol=1e-6)
            for key, mean in zip(keys, f, strict=True):
                seen = known[name].mean_activation[key][t][..., u].mean()
                np.testing.assert_allclose(seen, mean, rtol=1e-4, atol=1e-6)


def test_random():
    """Uniform noise on [0, 1): new for every unit, layer, step and key."""
    runs = [watch("random", seed=seed, decay=0.0) for seed in range(2)]
    drawn = np.concatenate(
        [np.ravel(known.utility) for run in runs for known in run.values()]
    )
    assert np.all((drawn >= 0) & (drawn < 1))
    assert len(np.unique(drawn)) == drawn.size == 2 * STEPS * len(GROUPS) * N
    assert abs(np.mean(drawn) - 0.5) < 4 * np.sqrt(1 / 12 / drawn.size)


def test_every_utility_is_tested():
    """The table of `formula` is complete."""
    for name in set(utilities.TERMS) - {"random"}:
        formula(name, np.ones(1), [(np.ones(1), np.ones(1))], [0.0])


@pytest.mark.parametrize("name", [group.name for group in GROUPS])
def test_replacement_touches_these_weights(name):
    """Outgoing weights of a replaced unit become 0, wherever the layout puts them.

    The traps: rows of a flattened convolution mis-addressed; outgoing weights re-drawn.
    Every weight of any other unit, and of no unit, stays.
    """
    params, features = data()
    features = {k: np.abs(h[0]) + 0.1 for k, h in features.items()}
    unit = 2
    for key in features:
        if key.partition("@")[0] == name:
            features[key][..., unit] = 0.0
    group = [group for group in GROUPS if group.name == name]
    tx = optim.continual_backprop(
        optax.set_to_zero(),
        group,
        replacement_rate=0.25,
        maturity_threshold=0,
        utility="contribution",
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
