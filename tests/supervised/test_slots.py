"""What methods are made of, in any combination, against a loop in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import streams, supervised
from loplax.supervised.problem import Keeper, Problem, stateless

pytestmark = pytest.mark.usefixtures("quick_compile")

rng = np.random.default_rng(3)
INPUTS = rng.normal(size=(64, 6)).astype(np.float32)
TARGETS = rng.normal(size=64).astype(np.float32)
TESTED, REPLAYED = np.arange(40, 56), np.arange(56, 64)
RATE, STRENGTH, DECAY = 0.05, 0.3, 0.9


def rows(state, items):
    return jnp.asarray(INPUTS)[items], jnp.asarray(TARGETS)[items]


STREAM = streams.Stream(
    init=lambda key: jnp.int32(0),
    draw=lambda position: (position + 8, (position + jnp.arange(8)) % 40),
    example=rows,
    probe=lambda position: rows(position, jnp.arange(4)),
    chunk=8,
    task=lambda position: jnp.minimum(position // 8 - 1, 0),
    test=streams.HeldOut(lambda position, i: (*rows((), TESTED), jnp.ones(16)), 1),
)
PROBLEM = Problem(
    stream=STREAM,
    network=stateless(
        lambda key: {"w": jax.random.normal(key, (6,))}, lambda p, x: x @ p["w"]
    ),
    loss=lambda output, target: jnp.square(output - target),
    tx=optax.with_extra_args_support(optax.sgd(RATE)),
    groups=(),
    observe=(),
)


def teacher():
    """The outputs of a teacher in place of the targets."""

    def objective(state, seen):
        wanted = seen.inputs @ state.memory["teacher"]["w"]
        return jnp.mean(jnp.square(seen.outputs - wanted))

    started = lambda state: jax.tree.map(lambda w: w + 1, state.params)
    return {"objective": objective, "keepers": (Keeper("teacher", started),)}


def anchor():
    """A spring to where the weights were at the start."""

    def penalty(state, seen):
        distance = optax.tree.sub(state.params, state.memory["anchor"])
        return state.hparams["strength"] / 2 * optax.tree.norm(distance, squared=True)

    keeper = Keeper("anchor", lambda state: jax.tree.map(jnp.copy, state.params))
    return {"penalties": (penalty,), "keepers": (keeper,)}


def stored():
    """Outputs stay as they were when the slot of a buffer was last filled."""
    slot = lambda seen: seen.item % 4

    def penalty(state, seen):
        return jnp.square(seen.outputs - state.memory["stored"][slot(seen)])

    def on_step(state, seen):
        outputs = state.memory["stored"].at[slot(seen)].set(seen.outputs)
        return state._replace(memory=state.memory | {"stored": outputs})

    keeper = Keeper("stored", lambda state: jnp.zeros(4), on_step)
    return {"penalties": (penalty,), "keepers": (keeper,)}


def projected():
    """No step makes the loss of what is replayed larger."""

    def update(grads, state, params, *, reference, **_):
        product = optax.tree.vdot(grads, reference)
        share = jnp.minimum(product, 0) / optax.tree.norm(reference, squared=True)
        return optax.tree.add_scale(grads, -share, reference), state

    def reference(state, seen):
        x, y = rows(state.stream, REPLAYED)
        loss = lambda params: jnp.mean(jnp.square(x @ params["w"] - y))
        return jax.grad(loss)(state.params)

    project = optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
    tx = optax.chain(project, optax.sgd(RATE))
    return {"tx": tx, "extra_args": {"reference": reference}}


def mean():
    """A mean of the weights, tested beside these."""

    def on_step(state, seen):
        old = state.memory["mean"]
        new = jax.tree.map(lambda m, w: DECAY * m + (1 - DECAY) * w, old, state.params)
        return state._replace(memory=state.memory | {"mean": new})

    keeper = Keeper("mean", lambda s: jax.tree.map(jnp.copy, s.params), on_step)
    beside = {"test_mean": lambda state: (state.memory["mean"], state.stats)}
    return {"keepers": (keeper,), "evaluated": PROBLEM.evaluated | beside}


def composed(plugins):
    """A build with some of these; what several fill, they fill together."""
    fields = {}
    for plugin in plugins:
        for slot, value in plugin().items():
            both = slot in ("penalties", "keepers")
            fields[slot] = fields.get(slot, ()) + value if both else value
    return lambda hparams, key, data: PROBLEM._replace(**fields)


def by_hand(plugins, w, number):
    """Weights, losses and mean of the weights after some steps from weights ``w``."""
    first, spoken, kept, losses = w, np.zeros(4), w, []
    replayed, wanted = INPUTS[REPLAYED].astype(float), TARGETS[REPLAYED]
    for row in np.arange(number) % 40:
        x, y = INPUTS[row].astype(float), TARGETS[row]
        output = x @ w
        losses.append((output - y) ** 2)
        target = x @ (first + 1) if teacher in plugins else y
        grad = 2 * (output - target) * x
        if anchor in plugins:
            grad = grad + STRENGTH * (w - first)
        if stored in plugins:
            grad = grad + 2 * (output - spoken[row % 4]) * x
            spoken[row % 4] = output
        if projected in plugins:
            other = 2 * np.mean((replayed @ w - wanted)[:, None] * replayed, axis=0)
            grad = grad - min(grad @ other, 0) / (other @ other) * other
        w = w - RATE * grad
        kept = DECAY * kept + (1 - DECAY) * w
    return w, losses, kept


@pytest.mark.parametrize(
    "plugins",
    [
        (teacher,),
        (anchor, stored),
        (projected,),
        (mean, teacher, anchor, stored, projected),
    ],
    ids=lambda plugins: "+".join(plugin.__name__ for plugin in plugins),
)
def test_plugins_in_any_combination_do_what_a_loop_does(plugins):
    build = composed(plugins)

    @jax.jit
    def run(key, hparams):
        state = supervised.init(build, key, hparams)
        options = {"bins": 3, "chunks": 2, "fresh": False}
        return state, *supervised.segment(build, state, **options)

    hparams = {"strength": jnp.float32(STRENGTH)}
    start, end, found = run(jax.random.key(0), hparams)
    start = np.asarray(start.params["w"], float)
    w, losses, kept = by_hand(plugins, start, 48)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5)
    close(end.params["w"], w)
    close(found["loss"], np.reshape(losses, (3, 16)).mean(axis=1))
    tested = {"test_loss": w} | ({"test_mean_loss": kept} if mean in plugins else {})
    for name, weights in tested.items():
        error = INPUTS[TESTED] @ weights - TARGETS[TESTED]
        close(found[name][-1], np.mean(error**2))
    assert set(tested) == {name for name in found if name.startswith("test")}
    plain, _, _ = by_hand((), start, 48)
    assert np.abs(plain - w).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keepers": (Keeper("a", None), Keeper("a", None))}, r"own, got \['a', 'a'\]"),
        ({"extra_args": {"features": None}}, "must not have 'features'"),
        (
            {"test_starts": True, "stream": STREAM._replace(test=None)},
            "nothing to test on",
        ),
    ],
)
def test_contradictions_are_refused(changes, message):
    build = lambda hparams, key, data: PROBLEM._replace(**changes)
    with pytest.raises(ValueError, match=message):
        supervised.init(build, jax.random.key(0), {})
    state = supervised.init(lambda *_: PROBLEM, jax.random.key(0), {})
    with pytest.raises(ValueError, match=message):
        supervised.segment(build, state, bins=1)


def test_minibatches_are_weighed_as_the_stream_says():
    """What the fourth of four should be does not matter."""
    weights = np.array([0.5, 0.3, 0.2, 0.0], np.float32)
    stream = STREAM._replace(
        draw=lambda n: (n + 8, (n + jnp.arange(8)[:, None] + jnp.arange(4)) % 40),
        weights=lambda position, item: jnp.asarray(weights),
        example=lambda state, items: (
            rows(state, items)[0],
            rows(state, items)[1].at[3].set(1e4),
        ),
    )
    build = lambda hparams, key, data: PROBLEM._replace(stream=stream)
    state = jax.jit(functools.partial(supervised.init, build))(jax.random.key(0), {})
    w = np.asarray(state.params["w"], float)
    segment = functools.partial(supervised.segment, build, bins=8, bins_per_chunk=8)
    state, found = jax.jit(functools.partial(segment, fresh=False))(state)
    for step in range(8):
        x, y = INPUTS[step + np.arange(3)].astype(float), TARGETS[step + np.arange(3)]
        error = x @ w - y
        np.testing.assert_allclose(found["loss"][step], weights[:3] @ error**2, 1e-4)
        w = w - RATE * 2 * (weights[:3] * error) @ x
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-4)
