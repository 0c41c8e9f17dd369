"""Plugins of problems that are learned in sessions: each setting has its part."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.methods import building, composing
from experiments.methods.rehearsing import REHEARSING
from experiments.methods.table import PLUGINS
from loplax import streams, supervised
from loplax.streams import rehearsal

pytestmark = pytest.mark.usefixtures("quick_compile")

# Of every number another value; the first is the default.
OTHER = {"new_weight": 0.9, "step_size": 20.0, "alpha": 0.9, "beta": 0.9}
OTHER |= {"temperature": 4.0, "strength": 0.5}
NUMBERED = [n for n, p in REHEARSING.items() if p.numbers]
# Small enough for the twelve examples of a session of the toy problem.
SIZES = {"capacity": 6, "memory": 8, "replayed": 1, "weighting": "fixed"}


def method(toy, name, **choices):
    """A method whose plugins have the sizes above, and these choices."""
    config = toy.configured()
    for each in name.split("+"):
        for choice, value in (SIZES | choices).items():
            if choice in PLUGINS[each].choices:
                config[each][choice] = value
    return composing.method(config, name)


def build_of(toy, made):
    def build(hparams, key, data):
        tx = toy.transformation(made, hparams)
        stream = building.stream(made, toy.PROBLEM.stream, hparams)
        learned = toy.PROBLEM._replace(stream=stream, tx=tx)
        return building.fill(made, learned, hparams)

    return build


def learner(toy, made):
    """``(hparams, key) -> state`` after both sessions."""
    build = build_of(toy, made)

    def run(hparams, key):
        state = supervised.init(build, key, hparams)
        return supervised.segment(build, state, bins=2, fresh=False)[0]

    return run


def learned(toy, made, rows):
    """The weights that runs with these numbers, all traced, end with."""
    stacked = {at: jnp.float32([row[at] for row in rows]) for at in rows[0]}
    run = jax.jit(jax.vmap(learner(toy, made), (0, None)))
    params = jax.device_get(run(stacked, jax.random.key(5)).params)
    return [jax.tree.map(lambda x, i=i: x[i], params) for i in range(len(rows))]


@functools.cache
def changed(toy, name):
    """The weights with all defaults, and with another value of each number."""
    made = method(toy, name)
    own = [f"{name}.{number}" for number in PLUGINS[name].numbers]
    rows = [made.values | {at: OTHER[at.partition(".")[2]]} for at in own]
    return dict(zip(["", *own], learned(toy, made, [made.values, *rows]), strict=True))


def differ(one, other):
    return any(not np.allclose(one[path], other[path], rtol=1e-4) for path in one)


@pytest.mark.parametrize("name", NUMBERED)
def test_every_number_is_used_and_may_be_traced(toy, name):
    first, *others = changed(toy, name).items()
    for address, found in others:
        assert np.isfinite(found["w"]).all() and differ(first[1], found), address


@pytest.mark.parametrize("name", ["ewc", "random_consolidation", "si", "mas"])
def test_weights_are_held_by_what_they_are_worth(toy, name):
    """Not at all without a strength, and by each of their numbers."""
    made = method(toy, name, examples=8)
    own = [f"{name}.{number}" for number in PLUGINS[name].numbers]
    strong = {"si": 50.0}.get(name, 0.5)
    some = made.values | dict.fromkeys(own, 0.5) | {own[0]: strong}
    others = [some | {at: 2 * some[at]} for at in own]
    idle, held, *changed = learned(toy, made, [some | {own[0]: 0.0}, some, *others])
    bp = method(toy, "bp")
    (plain,) = learned(toy, bp, [bp.values])
    toy.close(idle, plain)
    for found in (held, *changed):
        assert np.isfinite(found["w"]).all() and differ(plain, found)
    assert all(differ(held, found) for found in changed)


@pytest.mark.parametrize(
    ("name", "choice", "other"),
    [
        ("er", "fill", "online"),
        ("mir", "replayed", 8),
        ("gdumb", "capacity", 2),
        ("a_gem", "capacity", 1),
    ],
)
def test_choices_are_used(toy, name, choice, other):
    made = method(toy, name, **{choice: other})
    (found,) = learned(toy, made, [made.values])
    assert differ(found, changed(toy, name)[""])


def test_more_than_there_are_candidates_is_refused(toy):
    made = method(toy, "mir", replayed=9)
    with pytest.raises(
        ValueError, match=r"replayed must be at most memory \(8\), got 9"
    ):
        toy.filled(made, made.values)


# What streams they learn from.

LABELS = np.repeat(np.arange(6), [9, 4, 7, 5, 8, 6])
SPLIT = streams.class_incremental(LABELS, LABELS, (2, 2, 2))
DATA = np.zeros((LABELS.size, 3), np.float32), LABELS


def walked(toy, name, **choices):
    """Items, weights and states of three sessions with two classes each."""
    plain = streams.sessions(DATA, DATA, SPLIT, classes=6, steps=2, batch=4)
    made = method(toy, name, **choices)
    stream = building.stream(made, plain, made.values)

    def draw(state, _):
        state, items = stream.draw(state)
        weights = jax.vmap(stream.weights, (None, 0))(state, items)
        return state, (items, weights, state)

    walk = lambda key: jax.lax.scan(draw, stream.init(key), None, 3)[1]
    items, weights, state = jax.jit(walk)(jax.random.key(0))
    return jax.device_get((items, weights, state._replace(key=(), key_session=())))


def test_gdumb_learns_from_a_balanced_buffer_only(toy):
    """Two, four and six classes share its twelve places."""
    items, weights, state = walked(toy, "gdumb", capacity=12)
    assert not items.is_new.any() and items.counts.all()
    np.testing.assert_allclose(weights, 1 / 8)
    for task in range(3):
        index = state.buffer.index[task]
        kept = index[index >= 0]
        labels = state.buffer.label[task][index >= 0]
        np.testing.assert_array_equal(LABELS[kept], labels)
        known = np.flatnonzero(state.since[task] <= task)
        counts = np.bincount(labels, minlength=6)
        enough = np.minimum(np.bincount(LABELS), 12 // known.size)
        assert (counts[known] >= enough[known]).all()
        assert counts.sum() == counts[known].sum() <= 12
        assert task == 0 or (counts[known] == 12 // known.size).all()


def greedy(capacity, kept, label, draws):
    """The sampler of GDumb for one example: ``kept`` are labels, and change."""
    counts = {c: kept.count(c) for c in kept}
    share = capacity // max(len(counts), 1)
    if label in counts and counts[label] >= share:
        return None
    if len(kept) < capacity:
        kept.append(label)
        return len(kept) - 1
    largest = max(sorted(counts), key=counts.get)
    places = [i for i, c in enumerate(kept) if c == largest]
    place = places[draws(counts[largest])]
    kept[place] = label
    return place


@pytest.mark.parametrize("seed", range(3))
def test_gdumbs_buffer_is_that_of_its_sampler(seed):
    """With the same draws, example for example."""
    buffer, kept, index = rehearsal.empty(7), [], {}
    offer = jax.jit(functools.partial(rehearsal.offer, "greedy", 6))
    order = np.random.default_rng(seed).permutation(39)
    for task, offered in enumerate(np.split(order[:36], 3)):
        key = jax.random.fold_in(jax.random.key(seed), task)
        valid = jnp.ones(12, bool)
        buffer, _ = offer(buffer, offered, LABELS[offered], valid, task, key)
        for example, key_drop in zip(offered, jax.random.split(key, 12), strict=True):
            draws = lambda n, key=key_drop: int(jax.random.randint(key, (), 0, n))
            place = greedy(7, kept, LABELS[example], draws)
            if place is not None:
                index[place] = example
        np.testing.assert_array_equal(buffer.label[: len(kept)], kept)
        found = {i: n for i, n in enumerate(np.asarray(buffer.index)) if n >= 0}
        assert found == index


def test_alone_a_gem_learns_from_new_examples_only(toy):
    """Beside another plugin, from what that one learns from."""
    items, weights, _ = walked(toy, "a_gem")
    kept = items.counts & ~items.is_new
    assert kept[1:].any() and not kept[0].any()
    np.testing.assert_allclose(weights, items.is_new / 4)
    both, alone = walked(toy, "er+a_gem"), walked(toy, "er")
    jax.tree.map(np.testing.assert_array_equal, both, alone)
    kept = alone[0].counts & ~alone[0].is_new
    np.testing.assert_allclose(alone[1][1:][kept[1:]], 0.5 / 8)


def test_items_know_their_sessions(toy):
    """What A-GEM takes for learned before."""
    items, _, state = walked(toy, "er", fill="online")
    sessions = state.since[0][LABELS[items.index]]
    np.testing.assert_array_equal(items.session[items.counts], sessions[items.counts])
    assert ((items.session == 1) & ~items.is_new & items.counts)[1].any()
