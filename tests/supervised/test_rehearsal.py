"""Objectives, teachers and stored outputs of sessions, against a loop in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim, streams, supervised
from loplax.supervised import distillation, losses, replay
from loplax.supervised.problem import Problem, Seen, stateless

pytestmark = pytest.mark.usefixtures("quick_compile")

rng = np.random.default_rng(7)
CLASSES, RATE, STEPS = 6, 0.2, 4
LABELS = np.repeat(np.arange(CLASSES), 6)
CENTRES = rng.normal(size=(CLASSES, 5))
INPUTS = (CENTRES[LABELS] + 0.3 * rng.normal(size=(36, 5))).astype(np.float32)
DATA = INPUTS, LABELS
SPLIT = streams.class_incremental(LABELS, LABELS, (2, 2, 2))
ALPHA, BETA, TEMPERATURE, STRENGTH, AHEAD, REPLAYED = 0.7, 0.4, 2.0, 1.5, 0.9, 2
NETWORK = stateless(
    lambda key: {"w": 0.1 * jax.random.normal(key, (5, CLASSES))},
    lambda params, x: x @ params["w"],
)


def problem(part, **rules):
    """A linear classifier of three sessions, with some of the slots filled."""
    sizes = {"classes": CLASSES, "steps": STEPS, "batch": 3}
    settings = {"capacity": 8, "memory": 4, "fill": "online"} | rules
    stream = streams.sessions(
        DATA, DATA, SPLIT, rehearse=streams.Rehearsal(**settings), **sizes
    )
    plain = Problem(
        stream=stream,
        network=NETWORK,
        loss=losses.cross_entropy,
        tx=optax.with_extra_args_support(optax.sgd(RATE)),
        groups=(),
        observe=(),
    )
    return plain._replace(**part(plain))


# What fills the slots, as a method would.


def er(plain):
    return {}


def er_ace(plain):
    objective = replay.asymmetric_cross_entropy(plain, "seen")
    return {"objective": objective, "keepers": (replay.classes_seen(plain, "seen"),)}


def mir(plain):
    sizes = {"step_size": AHEAD, "replayed": REPLAYED}
    return {"objective": replay.most_interfered(plain, **sizes)}


def der(plain, **numbers):
    numbers = {"alpha": ALPHA} | numbers
    objective = distillation.dark_experience(plain, "stored", **numbers)
    keeper = distillation.stored_outputs(plain, "stored")
    return {"objective": objective, "keepers": (keeper,)}


def derpp(plain):
    return der(plain, beta=BETA)


def lwf(plain):
    numbers = {"temperature": TEMPERATURE, "strength": STRENGTH}
    penalty = distillation.learning_without_forgetting(plain, "teacher", **numbers)
    keeper = distillation.teacher(plain, "teacher")
    return {"penalties": (penalty,), "keepers": (keeper,)}


def a_gem(plain):
    reference = replay.gradient_of_before(plain)
    tx = optax.chain(optim.a_gem(), optax.sgd(RATE))
    return {"tx": tx, "extra_args": {"reference": reference}}


RULES = {  # each counts new examples and those of the buffer in its own way
    er: {"weighting": "sessions"},
    er_ace: {"weighting": "fixed", "new_weight": 0.6},
    mir: {"weighting": "fixed", "new_weight": 0.6},
    der: {"policy": "balanced"},
    derpp: {},
    lwf: {"fill": "after", "memory": 2},
    a_gem: {"weighting": "fixed", "new_weight": 0.9, "fill": "after"},
}


def sessions_of(made):
    """``key -> (start, (items, stream, state))`` of the three sessions: what is learned
    from, with the stream as it is then, and where the run stands in the end.
    """
    build = lambda hparams, key, data: made

    def whole(key):
        def one(state, _):
            stream, items = made.stream.draw(state.stream)
            state, _ = supervised.segment(build, state, bins=1, fresh=False)
            return state, (items, stream, state)

        start = supervised.init(build, key, {})
        found = start, jax.lax.scan(one, start, None, 3)[1]
        return jax.tree.map(opened, found)

    return whole


def opened(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if is_key else x


def pick(tree, *at):
    return jax.tree.map(lambda x: x[at], tree)


@functools.cache
def runs(part):
    """Two runs with other orders."""
    whole = jax.jit(sessions_of(problem(part, **RULES[part])))
    return [jax.device_get(whole(jax.random.key(seed))) for seed in (3, 4)]


def began(part, task):
    """A learner in a session, with the state and the first item that it had there."""
    (_, (items, stream, after)), _ = runs(part)
    state = pick(after, task - 1)._replace(stream=pick(stream, task))
    state, item = jax.tree.map(jnp.asarray, (state, pick(items, task, 0)))
    return problem(part, **RULES[part]), state, item


# The same by hand: gradients by the outputs.


def softmax(z, where=True):
    z = np.where(where, z, -np.inf)
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def cross_entropy(z, y):
    return -np.log(softmax(z)[np.arange(len(y)), y])


def share(rules, task, new, kept):
    """How much each example counts."""
    if rules.get("weighting", "examples") == "examples":
        return (new | kept) / (new | kept).sum()
    of_new = rules.get("new_weight", 0.5)
    of_new = 1 / (task + 1) if rules["weighting"] == "sessions" else of_new
    of_new = of_new if kept.any() else 1.0
    return of_new * new / new.sum() + (1 - of_new) * kept / max(kept.sum(), 1)


class ByHand:
    """A run, minibatch by minibatch; what is kept is known by the examples' numbers."""

    def __init__(self, part, w):
        self.part, self.rules = part, RULES[part]
        self.w = self.teacher = w.astype(float)
        self.stored, self.seen, self.opposed = {}, set(), 0

    def step(self, item, task, since):
        x, y = INPUTS[item.index].astype(float), LABELS[item.index]
        new, kept = item.counts & item.is_new, item.counts & ~item.is_new
        z = x @ self.w
        weights = share(self.rules, task, new, kept)
        slope = (softmax(z) - np.eye(CLASSES)[y]) * weights[:, None]
        if self.part in (er_ace, mir, der, derpp, lwf):
            own = getattr(self, self.part.__name__)
            slope = own(item, x, y, z, new, kept, slope, weights, task, since)
        grad = x.T @ slope
        if self.part is a_gem:
            grad = self.projected(x, y, z, kept, grad)
        for i in np.flatnonzero(new & (item.slot < self.rules.get("capacity", 8))):
            self.stored[item.index[i]] = z[i]
        self.w = self.w - RATE * grad

    def er_ace(self, item, x, y, z, new, kept, slope, weights, task, since):
        present = set(y[new])
        self.seen |= present
        lacking = self.seen - present if task else set()
        among = np.array([c not in lacking for c in range(CLASSES)])
        p = softmax(z, among | ~new[:, None])
        return (p - np.eye(CLASSES)[y]) * weights[:, None]

    def mir(self, item, x, y, z, new, kept, slope, weights, task, since):
        step = (softmax(z) - np.eye(CLASSES)[y]) * (new / new.sum())[:, None]
        ahead = x @ (self.w - AHEAD * x.T @ step)
        rise = np.where(kept, cross_entropy(ahead, y) - cross_entropy(z, y), -np.inf)
        chosen = np.argsort(-rise, kind="stable")[: min(REPLAYED, kept.sum())]
        factor = np.where(kept, 0.0, 1.0)
        factor[chosen] = kept.sum() / max(len(chosen), 1)
        return slope * factor[:, None]

    def der(self, item, x, y, z, new, kept, slope, weights, task, since, beta=0.0):
        own = softmax(z) - np.eye(CLASSES)[y]
        slope = own * (new / new.sum())[:, None]
        places = np.flatnonzero(kept)
        logits, labels = (places[::2], places[1::2]) if beta else (places, ())
        for i in logits:
            far = z[i] - self.stored[item.index[i]]
            slope[i] += ALPHA * 2 * far / CLASSES / len(logits)
        for i in labels:
            slope[i] += beta * own[i] / len(labels)
        return slope

    def derpp(self, *args):
        return self.der(*args, beta=BETA)

    def lwf(self, item, x, y, z, new, kept, slope, weights, task, since):
        old = since < task
        if not old.any():
            return slope
        p, q = (softmax(v / TEMPERATURE, old) for v in (x @ self.teacher, z))
        return slope + STRENGTH * TEMPERATURE * (q - p) * weights[:, None]

    def projected(self, x, y, z, kept, grad):
        if not kept.any():
            return grad
        slope = (softmax(z) - np.eye(CLASSES)[y]) * (kept / kept.sum())[:, None]
        other = x.T @ slope
        self.opposed += np.sum(grad * other) < 0
        return grad - min(np.sum(grad * other), 0) / np.sum(other**2) * other


def replay_by_hand(part, start, items, rules=None):
    """The run after each session."""
    hand = ByHand(part, start.params["w"])
    hand.rules = rules or hand.rules
    for task in range(3):
        for i in range(STEPS):
            hand.step(pick(items, task, i), task, start.stream.since)
        hand.teacher = hand.w
        yield task, hand


@pytest.mark.parametrize("part", RULES, ids=lambda part: part.__name__)
def test_runs_are_those_of_a_loop(part):
    """And not those of plain rehearsal."""
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    for start, (items, _, after) in runs(part):
        for task, hand in replay_by_hand(part, start, items):
            close(after.params["w"][task], hand.w)
        assert part is not a_gem or hand.opposed
        *_, (_, plain) = replay_by_hand(er, start, items, RULES[part])
        assert part is er or np.abs(plain.w - hand.w).max() > 1e-3


@pytest.mark.parametrize("part", [der, derpp])
def test_stored_logits_are_those_when_the_example_came(part):
    for start, (items, _, after) in runs(part):
        for task, hand in replay_by_hand(part, start, items):
            index = after.stream.buffer.index[task]
            found = after.memory["stored"][task]
            assert found.shape == (8, CLASSES) and (index >= 0).sum() >= 6
            for slot in np.flatnonzero(index >= 0):
                wanted = hand.stored[index[slot]]
                np.testing.assert_allclose(found[slot], wanted, rtol=1e-3, atol=1e-4)


def test_all_together_side_by_side():
    """Each of two runs is the run alone, with memories of the same shapes."""

    def all_of_them(plain):
        parts = derpp(plain), lwf(plain), a_gem(plain)
        keepers = [keeper for part in parts for keeper in part.get("keepers", ())]
        merged = {slot: own for part in parts for slot, own in part.items()}
        return merged | {"keepers": tuple(keepers)}

    whole = sessions_of(problem(all_of_them))
    keys = jax.random.split(jax.random.key(0), 2)
    both, alone = jax.jit(jax.vmap(whole))(keys), jax.jit(whole)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    for i in range(2):
        jax.tree.map(close, pick(both, i), alone(keys[i]))


def test_a_session_begins_without_a_pull_of_the_teacher():
    """After one step there is one."""
    made, state, item = began(lwf, 2)
    (penalty,) = made.penalties

    @jax.jit
    def pull(state):
        x, y = made.stream.example(state.stream, item)

        def value(params):
            outputs = made.network.predict(params, (), x)
            return penalty(state, Seen(item, x, y, outputs, {}))

        return jnp.abs(jax.grad(value)(state.params)["w"]).max()

    assert pull(state) < 1e-6
    after, _ = jax.jit(functools.partial(supervised.step, made))(state, item)
    assert pull(after) > 1e-3
    first = state.stream._replace(task=jnp.int32(0))
    assert pull(after._replace(stream=first)) == 0


def test_new_examples_leave_the_logits_of_absent_classes_alone():
    """Of those seen; the buffer's examples push all of them."""
    made, state, item = began(er_ace, 1)
    x, y = made.stream.example(state.stream, item)
    value = lambda z: made.objective(state, Seen(item, x, y, z, {}))
    slope = jax.grad(value)(x @ state.params["w"])
    new, kept = map(np.asarray, replay.parts(item))
    seen = np.asarray(state.memory["seen"])
    present = np.isin(np.arange(CLASSES), y[new])
    absent = seen & ~present
    assert seen.sum() == 2 and absent.sum() == 2 and kept.sum() == 4
    assert (slope[new][:, absent] == 0).all()
    assert (slope[new][:, ~absent] != 0).all() and (slope[kept] != 0).all()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (functools.partial(der, alpha=-1.0), "alpha must be in"),
        (functools.partial(der, beta=float("nan")), "beta must be in"),
        (
            lambda plain: replay.most_interfered(plain, step_size=0.1, replayed=0),
            "replayed must be in",
        ),
        (
            lambda plain: distillation.learning_without_forgetting(
                plain, "a", temperature=0.5, strength=1.0
            ),
            "temperature must be in",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make(problem(er))
