"""Sessions: what is shown, rehearsed and tested, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import streams
from loplax.streams import Rehearsal, rehearsal

pytestmark = pytest.mark.usefixtures("quick_compile")

LABELS = np.repeat(np.arange(6), [9, 7, 8, 6, 10, 5]).astype(np.int32)
INPUTS = np.arange(LABELS.size, dtype=np.float32)[:, None] * 10
TESTED = np.tile(np.arange(6, dtype=np.int32), 3)
TESTS = np.arange(18, dtype=np.float32)[:, None]
SPLIT = streams.class_incremental(LABELS, TESTED, (2, 2, 2))
SIZES = {"classes": 6, "steps": 9, "batch": 4, "test_batch": 5, "probe": 4}


def make(split=SPLIT, **changes):
    return streams.sessions((INPUTS, LABELS), (TESTS, TESTED), split, **SIZES | changes)


def drawn(stream, draws, seed=0):
    """The states before and after each draw, and the items."""
    draw, found = jax.jit(stream.draw), []
    state = stream.init(jax.random.key(seed))
    for _ in range(draws):
        before, (state, items) = state, draw(state)
        found.append((before, state, jax.tree.map(np.asarray, items)))
    return found


def session_of(state):
    """The session of every training example, and of every test."""
    train = np.empty(LABELS.size, int)
    train[np.asarray(state.order)] = np.repeat(np.arange(3), np.diff(state.starts))
    test = np.empty(TESTED.size, int)
    test[np.asarray(state.tested)] = np.asarray(state.tested_in)
    return train, test


@pytest.mark.parametrize("steps", [9, (9, 9, 9), (3, 9, 6), (2, 3, 4)])
def test_every_example_of_a_session_is_shown_before_any_is_again(steps):
    """Across the draws of a session, and the ends of passes within minibatches."""
    stream = make(steps=steps)
    each = (steps,) * 3 if isinstance(steps, int) else steps
    found = drawn(stream, sum(each) // stream.chunk)
    shown = [[], [], []]
    for _, state, items in found:
        assert items.counts.all() and items.is_new.all()
        shown[int(state.task)] += items.index.ravel().tolist()
    train, _ = session_of(found[0][1])
    for session, index in enumerate(shown):
        members = np.flatnonzero(train == session).tolist()
        assert len(index) == 4 * each[session]
        passes = [
            index[i : i + len(members)] for i in range(0, len(index), len(members))
        ]
        for one in passes[:-1]:
            assert sorted(one) == members
        assert len(set(passes[-1])) == len(passes[-1]) and {*passes[-1]} <= {*members}
        assert len(passes) < 3 or passes[0] != passes[1]


def test_tasks_begin_and_end_where_the_steps_say():
    stream = make(steps=(3, 9, 6))
    assert stream.chunk == 3
    found = drawn(stream, 7)
    assert [int(stream.task(before)) for before, *_ in found] == [-1, 0, 1, 1, 1, 2, 2]
    ends = [bool(stream.task_ends(after)) for _, after, _ in found]
    assert ends == [True, False, False, True, False, True, False]


def test_first_sessions_without_steps_are_known_before():
    """The first task that is learned is then a new one, as any but the first."""
    stream = make(steps=(0, 4, 4), rehearse=Rehearsal(capacity=0, memory=4))
    found = drawn(stream, 2)
    before, after, items = found[0]
    assert int(stream.task(before)) == 0 and int(stream.task(after)) == 1
    train, _ = session_of(after)
    assert (train[items.index[items.is_new]] == 1).all()
    assert (train[items.index[~items.is_new]] == 0).all() and items.counts.all()
    old = np.asarray(stream.old_classes(after))
    assert set(np.flatnonzero(old)) == set(LABELS[train == 0])


@pytest.mark.parametrize("policy", ["balanced", "reservoir"])
def test_after_a_session_its_examples_may_be_rehearsed(policy):
    rule = Rehearsal(capacity=8, policy=policy, memory=3, weighting="sessions")
    stream = make(rehearse=rule)
    for _, state, items in drawn(stream, 3):
        train, task = session_of(state)[0], int(state.task)
        assert items.index.shape == (9, 7)
        assert (items.counts == (items.is_new | (task > 0))).all()
        kept = np.asarray(state.buffer.index)
        held = kept[kept >= 0]
        assert len(set(held)) == held.size == (8 if task else 0)
        assert (train[held] < task).all()
        assert (np.asarray(state.buffer.session)[kept >= 0] == train[held]).all()
        assert (np.asarray(state.buffer.label)[kept >= 0] == LABELS[held]).all()
        assert (items.slot[items.is_new] == 8).all()
        if task:
            memory = ~items.is_new
            np.testing.assert_array_equal(items.index[memory], kept[items.slot[memory]])
        first = jax.tree.map(lambda x: x[0], items)
        weights = np.asarray(stream.weights(state, first))
        share = 1 / (task + 1)
        expected = [share / 4] * 4 + [(1 - share) / 3] * 3
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        Rehearsal(capacity=8, memory=8),
        Rehearsal(capacity=8, memory=3, fill="online"),
        Rehearsal(capacity=8, memory=4, per_session=True),
        Rehearsal(capacity=8, memory=2, later=(4, 6, 2)),
    ],
)
def test_rows_that_do_not_count_repeat_those_that_do(rule):
    """So that statistics of a minibatch know no example of another session."""
    for _, state, items in drawn(make(rehearse=rule), 3):
        train, task = session_of(state)[0], int(state.task)
        for index, counts, session in zip(
            items.index, items.counts, items.session, strict=True
        ):
            assert set(index) == set(index[counts])
            assert (session == train[index]).all() and session.max() <= task
            if not counts.all():  # equally often, in their order
                places = np.arange((~counts).sum()) % counts.sum()
                np.testing.assert_array_equal(index[~counts], index[counts][places])


def test_the_buffer_may_be_filled_while_its_examples_are_learned():
    """Each is offered once, however often it is shown; slots say where it went."""
    stream = make(rehearse=Rehearsal(capacity=6, memory=3, fill="online"))
    held = np.full(6, -1)
    seen = set()
    for _, state, items in drawn(stream, 3):
        for step in range(9):
            index, slot = items.index[step], items.slot[step]
            new = items.is_new[step]
            memory = items.counts[step] & ~new
            np.testing.assert_array_equal(index[memory], held[slot[memory]])
            for i, place in zip(index[new], slot[new], strict=True):
                if place < 6:
                    assert i not in seen
                    held[place] = i
            seen |= set(index[new].tolist())
        np.testing.assert_array_equal(state.buffer.index, held)
        assert int(state.buffer.offered) == len(seen)


def test_joint_training_draws_from_all_sessions_so_far():
    rule = Rehearsal(capacity=0, fill="before", new=0, memory=40, per_session=True)
    for _, state, items in drawn(make(rehearse=rule), 3):
        train, task = session_of(state)[0], int(state.task)
        used = items.index[items.counts]
        assert used.size == 9 * 40 * (task + 1) and not items.is_new.any()
        counts = np.bincount(used, minlength=LABELS.size)
        there = train <= task
        assert (counts[there] > 0).all() and (counts[~there] == 0).all()
        uniform = np.full(there.sum(), used.size / there.sum())
        assert ((counts[there] - uniform) ** 2 / uniform).mean() < 2  # chi-square


def test_later_minibatches_may_be_composed_otherwise():
    """As 96 + 32 + 128 in Harun & Kanan 2024, here 3 + 1 + 4."""
    stream = make(rehearse=Rehearsal(capacity=0, memory=4, later=(3, 1, 4)))
    numbers = []
    for _, state, items in drawn(stream, 3):
        train = session_of(state)[0]
        sources = np.where(items.counts, train[items.index], 3)
        numbers.append([np.bincount(row, minlength=4).tolist() for row in sources])
    assert numbers == [[[4, 0, 0, 4]] * 9, [[4, 4, 0, 0]] * 9, [[4, 1, 3, 0]] * 9]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rehearsal(memory=4), [1 / 8] * 8),
        (
            Rehearsal(memory=4, weighting="fixed", new_weight=0.2),
            [0.05] * 4 + [0.2] * 4,
        ),
        (Rehearsal(memory=4, weighting="sessions"), [1 / 8] * 8),
        (Rehearsal(memory=12, new_weight=0.2), [1 / 52] * 4 + [1 / 13] * 12),
        (
            Rehearsal(memory=4, weighting="sessions", new_weight=0.0),
            [0] * 4 + [0.25] * 4,
        ),
    ],
)
def test_examples_count_as_the_rule_says(rule, expected):
    stream = make(rehearse=rule)
    for _, state, items in drawn(stream, 2):
        weights = stream.weights(state, jax.tree.map(lambda x: x[0], items))
        if int(state.task) == 0:
            np.testing.assert_allclose(weights, [1 / 4] * 4 + [0] * (weights.size - 4))
        else:
            np.testing.assert_allclose(weights, expected, rtol=1e-6)


RULES = {
    "sessions": [lambda own, now, s=s: (own == s) & (s <= now) for s in range(3)],
    "old_new": [
        lambda own, now: own == 0,
        lambda own, now: own < now,
        lambda own, now: own == now,
        lambda own, now: own <= now,
    ],
    "recent": [
        lambda own, now: own == now - 1,
        lambda own, now: own == now,
        lambda own, now: (own == now - 1) | (own == now),
    ],
    "last_five": [
        lambda own, now: own == now - 1,
        lambda own, now: own < now,
        lambda own, now: own == now,
        lambda own, now: own <= now,
    ],
}


@pytest.mark.parametrize("subsets", sorted(RULES))
def test_subsets_hold_what_their_names_say(subsets):
    stream = make(subsets=subsets)
    assert len(stream.test.subsets) == len(RULES[subsets])
    for _, state, _ in drawn(stream, 3):
        batches = [stream.test.batch(state, i) for i in range(stream.test.batches)]
        x, y, weights = (np.concatenate(part) for part in zip(*batches, strict=True))
        own = session_of(state)[1]
        used = weights.any(1)
        index = x[:, 0].astype(int)
        assert len(set(index[used])) == used.sum()
        np.testing.assert_array_equal(y, TESTED[index])
        for column, rule in zip(weights.T, RULES[subsets], strict=True):
            expected = np.flatnonzero(rule(own, int(state.task)))
            assert sorted(index[column == 1]) == expected.tolist()
            assert set(column) <= {0.0, 1.0}


def test_the_last_five_are_no_more_than_five():
    """Of six sessions of three tests each."""
    split = streams.class_incremental(LABELS, TESTED, (1,) * 6)
    stream = make(split, subsets="last_five")
    for now, (_, state, _) in enumerate(drawn(stream, 6)):
        batches = [stream.test.batch(state, i) for i in range(stream.test.batches)]
        found = sum(np.asarray(weights).sum(0) for *_, weights in batches)
        expected = [min(now, 1), min(now, 4), 1, min(now + 1, 5)]
        np.testing.assert_array_equal(found, 3 * np.array(expected))


def test_of_random_parts_all_that_is_not_base_is_new():
    split = streams.data_incremental(LABELS, TESTED, 2, base=2)
    stream = make(split, subsets="old_new")
    for _, state, _ in drawn(stream, 3):
        batches = [stream.test.batch(state, i) for i in range(stream.test.batches)]
        sizes = sum(np.asarray(weights).sum(0) for *_, weights in batches)
        new = int(state.task) > 0
        assert sizes.tolist() == ([6, 6, 12, 18] if new else [6, 0, 6, 6])


def test_a_session_can_be_gone_through_as_a_whole():
    stream = make()
    for _, state, _ in drawn(stream, 3):
        batches = [
            stream.session.batch(state, i) for i in range(stream.session.batches)
        ]
        x, y, weights = (np.concatenate(part) for part in zip(*batches, strict=True))
        index = (x[:, 0] / 10).astype(int)
        train, _ = session_of(state)
        members = np.flatnonzero(train == int(state.task))
        assert sorted(index[weights == 1]) == members.tolist()
        np.testing.assert_array_equal(y, LABELS[index])
        probe, labels = stream.probe(state)
        assert set(session_of(state)[1][probe[:, 0].astype(int)]) == {int(state.task)}
        np.testing.assert_array_equal(labels, TESTED[probe[:, 0].astype(int)])


def test_bytes_become_fractions_and_numbers_stay():
    images = (INPUTS / 10).astype(np.uint8)
    data = (images, LABELS), (images, LABELS)
    split = streams.class_incremental(LABELS, LABELS, (2, 2, 2))
    for train, scale in ((images, 1 / 255), (INPUTS, 10)):
        stream = streams.sessions((train, LABELS), data[1], split, **SIZES)
        state, items = stream.draw(stream.init(jax.random.key(0)))
        x, y = stream.example(state, jax.tree.map(lambda x: x[0], items))
        np.testing.assert_allclose(x[:, 0], items.index[0] * scale, rtol=1e-6)
        np.testing.assert_array_equal(y, LABELS[np.asarray(items.index[0])])


def test_runs_side_by_side_are_those_alone():
    """Their classes come in different orders, so their sessions have other sizes."""
    rule = Rehearsal(capacity=6, policy="greedy", memory=3, fill="online")
    stream = make(rehearse=rule)

    @functools.partial(jax.jit, static_argnums=1)
    def run(keys, mapped):
        def one(key):
            state, items = stream.init(key), []
            for _ in range(3):
                state, item = stream.draw(state)
                items.append(item)
            return state._replace(key=0, key_session=0), items

        return jax.vmap(one)(keys) if mapped else one(keys)

    keys = jax.random.split(jax.random.key(3), 3)
    together = run(keys, True)
    for i in range(3):
        alone = run(keys[i], False)
        jax.tree.map(
            lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), together, alone
        )


def test_draws_do_not_depend_on_how_many_are_drawn_at_a_time():
    """The order within a session is the run's, not the chunk's."""
    together, apart = make(steps=(4, 4, 4)), make(steps=(4, 4, 6))
    first = drawn(together, 1)[0][2].index
    second = np.concatenate([items.index for *_, items in drawn(apart, 2)])
    assert (together.chunk, apart.chunk) == (4, 2)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": (1, 2)}, "3 sessions need as many"),
        ({"steps": (1, 0, 2)}, "must be positive"),
        ({"steps": 0}, "must be positive"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"test_batch": 0}, "test_batch must be at least 1"),
        ({"probe": 0}, "probe must be at least 1"),
        ({"subsets": "olds"}, "subsets must be one of"),
        ({"rehearse": Rehearsal(policy="fifo")}, "policy"),
        ({"classes": 5}, "labels must be 0 to 4, got 0 to 5"),
        (
            {"rehearse": Rehearsal(capacity=5, policy="ring", memory=2)},
            "a place for each of 6 classes, got capacity 5",
        ),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_bad_data_are_refused():
    for train in ((INPUTS[1:], LABELS), (INPUTS, INPUTS), (INPUTS[:0], LABELS[:0])):
        with pytest.raises(ValueError, match="train must be inputs"):
            streams.sessions(train, (TESTS, TESTED), SPLIT, **SIZES)
    for train, test in ((LABELS[1:], TESTED), (LABELS, TESTED[:6])):
        split = streams.class_incremental(train, test, (2, 2, 2))
        with pytest.raises(ValueError, match="a session for each of the .* examples"):
            make(split)


def test_an_empty_buffer_has_no_examples():
    buffer = rehearsal.empty(3)
    assert buffer.index.tolist() == [rehearsal.EMPTY] * 3
    assert int(buffer.offered) == 0 and jnp.all(buffer.label == rehearsal.EMPTY)
