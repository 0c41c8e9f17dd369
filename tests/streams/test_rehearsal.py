"""What stays in a buffer, against loops in plain Python that get the same draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loplax.streams import rehearsal

pytestmark = pytest.mark.usefixtures("quick_compile")

CLASSES, CAPACITY, OFFERED = 4, 7, 30


@functools.cache
def offering(policy, capacity=CAPACITY):
    return jax.jit(functools.partial(rehearsal.offer, policy, CLASSES))


def draws(key, number, high):
    """The random number of each example, as the one-by-one policies draw it."""
    return int(jax.random.randint(jax.random.split(key, OFFERED)[number], (), 0, high))


class Expected:
    """A buffer as lists; `rehearsal.Buffer` in Python."""

    def __init__(self, capacity=CAPACITY):
        self.places, self.offered = [None] * capacity, 0

    def of(self, label):
        """Places of a class."""
        return [i for i, x in enumerate(self.places) if x and x[1] == label]

    def offer(self, choose, index, labels, valid, session):
        for i, (number, label) in enumerate(zip(index, labels, strict=True)):
            if not valid[i]:
                continue
            place = choose(self, i, int(label))
            if place is not None:
                arrived = self.offered
                self.places[place] = (int(number), int(label), session, arrived)
            self.offered += 1


def reservoir(key):
    def choose(buffer, i, label):
        if buffer.offered < len(buffer.places):
            return buffer.offered
        return drawn[i] if drawn[i] < len(buffer.places) else None

    def start(buffer, valid):
        nonlocal drawn
        high = buffer.offered + np.cumsum(valid)
        drawn = np.asarray(jax.random.randint(key, (OFFERED,), 0, high))

    drawn = None
    return choose, start


def balanced(key):
    def choose(buffer, i, label):
        if None in buffer.places:
            return buffer.places.index(None)
        counts = [len(buffer.of(c)) + (c == label) for c in range(CLASSES)]
        largest = int(np.argmax(counts))
        number = draws(key, i, counts[largest])
        own = buffer.of(largest)
        return own[number] if number < len(own) else None

    return choose, None


def greedy(key):
    def choose(buffer, i, label):
        counts = [len(buffer.of(c)) for c in range(CLASSES)]
        there = sum(count > 0 for count in counts)
        if counts[label] and counts[label] >= len(buffer.places) // there:
            return None
        if None in buffer.places:
            return buffer.places.index(None)
        largest = int(np.argmax(counts))
        return buffer.of(largest)[draws(key, i, counts[largest])]

    return choose, None


def ring(key):
    def choose(buffer, i, label):
        each = len(buffer.places) // CLASSES
        own = range(label * each, (label + 1) * each)
        empty = [place for place in own if buffer.places[place] is None]
        return min(empty or own, key=lambda i: (buffer.places[i] or (0, 0, 0, 0))[3])

    return choose, None


BY_HAND = {f.__name__: f for f in (reservoir, balanced, greedy, ring)}


def test_every_policy_is_tested():
    assert BY_HAND.keys() == rehearsal.POLICIES.keys()


@pytest.mark.parametrize("policy", sorted(BY_HAND))
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.3, 0.8, 1.0]))
@settings(max_examples=25, deadline=None)
def test_buffers_are_those_of_the_published_algorithms(policy, seed, share):
    """Over several offers, of which not all examples count."""
    random = np.random.default_rng(seed)
    buffer, expected = rehearsal.empty(CAPACITY), Expected()
    for session in range(3):
        index = np.arange(OFFERED, dtype=np.int32) + OFFERED * session
        labels = random.choice(CLASSES, OFFERED, p=[0.5, 0.3, 0.15, 0.05])
        valid = random.random(OFFERED) < share
        key = jax.random.key(int(random.integers(2**31)))
        buffer, slots = offering(policy)(buffer, index, labels, valid, session, key)
        choose, start = BY_HAND[policy](key)
        if start:
            start(expected, valid)
        expected.offer(choose, index, labels, valid, session)
        held = [place or (-1, -1, -1, -1) for place in expected.places]
        found = np.stack([buffer.index, buffer.label, buffer.session, buffer.arrival])
        np.testing.assert_array_equal(found.T, held)
        assert int(buffer.offered) == expected.offered
        for number, slot in zip(index, np.asarray(slots), strict=True):
            inside = slot < CAPACITY
            assert inside == (number in buffer.index)
            assert not inside or buffer.index[slot] == number


def test_a_reservoir_keeps_every_example_with_one_probability():
    """Of 40 examples in two offers, 7: the mean of 4,000 buffers is 7 / 40 each."""

    def kept(key):
        keys, buffer = jax.random.split(key), rehearsal.empty(CAPACITY)
        for i in range(2):
            index = jnp.arange(20) + 20 * i
            every, zero = jnp.ones(20, bool), jnp.zeros(20, jnp.int32)
            buffer, _ = rehearsal.offer(
                "reservoir", CLASSES, buffer, index, zero, every, 0, keys[i]
            )
        return jnp.zeros(40).at[buffer.index].add(1)

    keys = jax.random.split(jax.random.key(0), 4000)
    share = np.asarray(jax.jit(jax.vmap(kept))(keys)).mean(0)
    error = np.sqrt(7 / 40 * 33 / 40 / 4000)
    assert np.abs(share - 7 / 40).max() < 4.5 * error
    np.testing.assert_allclose(share.sum(), 7, rtol=1e-6)


def test_places_are_picked_among_those_with_a_flag():
    flags = jnp.array([0, 1, 0, 1, 1, 0], bool)
    picked = np.asarray(rehearsal.pick(jax.random.key(0), flags, 3000))
    counts = np.bincount(picked, minlength=6)
    assert counts[[0, 2, 5]].sum() == 0 and counts[[1, 3, 4]].min() > 900
    none = rehearsal.pick(jax.random.key(0), jnp.zeros(6, bool), 3)
    assert none.tolist() == [6, 6, 6]


def test_a_ring_that_is_too_small_for_the_classes_keeps_nothing():
    offer = functools.partial(rehearsal.offer, "ring", CLASSES, rehearsal.empty(3))
    labels = jnp.arange(4)
    buffer, slots = offer(labels, labels, labels >= 0, 0, jax.random.key(0))
    assert (buffer.index == -1).all() and (slots == 3).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "reservoire"}, "did you mean 'reservoir'|reservoir"),
        ({"fill": "During"}, "fill"),
        ({"weighting": ""}, "weighting"),
        ({"new_weight": 1.5}, "new_weight"),
        ({"capacity": -1}, "capacity"),
        ({"memory": 1.5}, "memory"),
        ({"new": 0, "memory": 0}, "must not both be 0"),
        ({"new": 0}, "must be 'before'"),
        ({"later": (1, 2)}, "later"),
        ({"later": (1, 2, -1)}, "later"),
        ({"later": (0, 0, 0), "fill": "before"}, "not all 0"),
        ({"later": (0, 4, 0)}, "must be 'before'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        rehearsal.check(rehearsal.Rehearsal(**{"new": 8} | settings))
