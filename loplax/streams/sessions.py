"""Learning in sessions: classes, domains or parts of the data, one after the other."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loplax import branch, checks
from loplax.streams import base, minibatches, rehearsal, session_tests
from loplax.streams.rehearsal import Buffer, Rehearsal
from loplax.streams.splits import Split


class SessionsState(NamedTuple):
    """State of the stream.

    Attributes:
      key: typed key of the draws to come.
      key_session: typed key of the orders in which this session's examples are shown.
      step: minibatches drawn so far, int32 scalar.
      task: number of the session, int32 scalar; -1 before the first.
      order: training examples by session, int32 ``[examples]``.
      starts: where each session begins in it, int32 ``[sessions + 1]``.
      since: the first session that has each class, int32 ``[classes]``.
      tested: examples to test on by session, int32 ``[tests]``.
      tested_in: the session of each of these, int32 ``[tests]``.
      buffer: what is rehearsed.
    """

    key: jax.Array
    key_session: jax.Array
    step: jax.Array
    task: jax.Array
    order: jax.Array
    starts: jax.Array
    since: jax.Array
    tested: jax.Array
    tested_in: jax.Array
    buffer: Buffer


def sessions(
    train: tuple[jax.Array, jax.Array],
    test: tuple[jax.Array, jax.Array],
    split: Split,
    *,
    classes: int,
    steps: int | Sequence[int],
    batch: int = 128,
    subsets: str = "sessions",
    test_batch: int = 500,
    probe: int = 500,
    rehearse: Rehearsal | None = None,
) -> base.Stream:
    """Minibatches of one session after the other, and of what is rehearsed.

    Within a session every example is shown once, in random order, before any is shown
    again. All outputs are there from the start.

    Args:
      train: inputs ``[examples, ...]``, of which uint8 become float32 in [0, 1] in the
        step, and labels, integers from 0 ``[examples]``.
      test: the same for testing.
      split: which examples belong to which session.
      classes: number of classes.
      steps: minibatches per session, the same for all or one number each. The first
        ones may be 0: they are what the network knows before it learns.
      batch: examples of a minibatch, all of the session, where nothing is rehearsed.
      subsets: what is tested apart: ``"sessions"``, each one from its beginning on;
        ``"old_new"``: the first session (``base``), all before this one (``old``), this
        one (``new``) and ``all`` so far; ``"recent"``: the same
        but for the base, with the session before as the only old one; ``"last_five"``:
        with the four before as the old ones, and the one ``before`` alone.
      test_batch: examples tested at a time.
      probe: examples of the diagnostics: of the session's tests.
      rehearse: what is kept of the sessions, and shown again.

    Returns:
      The stream; inputs ``[batch, ...]``, targets int32 ``[batch]``. With its field
      ``rehearse`` the same stream is made with another `Rehearsal`.

    Raises:
      ValueError: for sizes out of range, or names that are not known.

    Example:
      >>> from loplax.streams import splits
      >>> x, y = jnp.arange(8.0)[:, None], jnp.arange(8) // 2
      >>> split = splits.class_incremental(y, y, (2, 2))
      >>> sizes = {"classes": 4, "steps": 3, "batch": 2}
      >>> stream = sessions((x, y), (x, y), split, **sizes)
      >>> state, items = stream.draw(stream.init(jax.random.key(0)))
      >>> inputs, labels = stream.example(state, jax.tree.map(lambda x: x[0], items))
      >>> inputs.shape, stream.chunk, stream.test.subsets
      ((2, 1), 3, ('0', '1'))

    References:
      van de Ven et al. 2022 on class- and domain-incremental learning; De Lange et al.
      2023 on what happens at each update.
    """
    steps = (steps,) * split.sessions if isinstance(steps, int) else tuple(steps)
    _check(train, test, split, steps, subsets, batch, test_batch, probe)
    for labels in (train[1], test[1]):
        known = not isinstance(labels, jax.core.Tracer)
        if known and not 0 <= np.min(labels) <= np.max(labels) < classes:
            raise ValueError(
                f"labels must be 0 to {classes - 1}, got {np.min(labels)} to "
                f"{np.max(labels)}."
            )
    examples = train[1].size
    rules = rehearse or Rehearsal(capacity=1, memory=0)
    rules = rules._replace(new=batch if rules.new is None else rules.new)
    rehearsal.check(rules)
    capacity = min(rules.capacity or examples, examples)
    if rules.policy == "ring" and rules.memory and capacity < classes:
        raise ValueError(
            f"policy 'ring' needs a place for each of {classes} classes, got capacity "
            f"{capacity}."
        )
    composed = minibatches.composition(rules, split.sessions)
    ends = np.cumsum(steps)
    before = int(np.argmax(np.array(steps) > 0))  # sessions without steps
    chunk = math.gcd(*steps)
    number = jnp.arange(int(composed.sum(axis=1).max()))
    label_of = lambda index: jnp.asarray(train[1])[index].astype(jnp.int32)

    def init(key) -> SessionsState:
        key, key_split, key_session, key_offer = jax.random.split(key, 4)
        own, tested_in = split.of(key_split)
        order, tested = jnp.argsort(own), jnp.argsort(tested_in)
        starts = jnp.searchsorted(own[order], jnp.arange(split.sessions + 1))
        never = jnp.full(classes, split.sessions, jnp.int32)
        state = SessionsState(
            key,
            key_session,
            jnp.int32(0),
            jnp.int32(before - 1),
            order.astype(jnp.int32),
            starts.astype(jnp.int32),
            never.at[label_of(jnp.arange(examples))].min(own),
            tested.astype(jnp.int32),
            tested_in[tested].astype(jnp.int32),
            rehearsal.empty(capacity),
        )
        known = before - (rules.fill == "after")  # the last one is offered after it
        for task, key in enumerate(jax.random.split(key_offer, max(known, 0))):
            state = state._replace(buffer=offer_all(state, task, key))
        return state

    def members(state, task) -> tuple[jax.Array, jax.Array]:
        """A session's examples, and which of so many there are."""
        number = jnp.arange(split.largest)
        first, end = state.starts[task], state.starts[task + 1]
        places = jnp.minimum(first + number, end - 1)
        return state.order[places], number < end - first

    def offer_all(state, task, key) -> Buffer:
        key_order, key_offer = jax.random.split(key)
        index, valid = members(state, task)
        mixed = jax.random.permutation(key_order, split.largest)
        offered = index[mixed], label_of(index[mixed]), valid[mixed]
        return offer(state.buffer, *offered, task, key_offer)[0]

    offer = functools.partial(rehearsal.offer, rules.policy, classes)

    def begin_session(state, task, key) -> SessionsState:
        key_session, key_offer = jax.random.split(key)
        state = state._replace(key_session=key_session)
        if rules.fill == "before":
            return state._replace(buffer=offer_all(state, task, key_offer))
        if rules.fill == "after" and rules.memory + sum(rules.later):
            buffer = functools.partial(offer_all, state)
            leave = lambda task, key: state.buffer
            there = state.task >= 0
            buffer = branch.cond(there, buffer, leave, state.task, key_offer)
            return state._replace(buffer=buffer)
        return state

    def draw(state):
        key, key_begin, key_items = jax.random.split(state.key, 3)
        task = jnp.searchsorted(jnp.asarray(ends), state.step, side="right")
        task = jnp.minimum(task, split.sessions - 1).astype(jnp.int32)
        leave = lambda state, task, key: state
        begins = task != state.task
        state = branch.cond(begins, begin_session, leave, state, task, key_begin)
        within = state.step - jnp.asarray(ends - np.array(steps))[task]
        new = _shown(state, task, within, composed, split, chunk)
        state = state._replace(key=key, task=task, step=state.step + chunk)
        keys = jax.random.split(key_items, chunk)
        compose = functools.partial(minibatches.compose, composed, number, rules, task)

        def one(buffer, each):
            (index, is_first), key, within = each
            key_pick, key_offer = jax.random.split(key)
            item = compose(buffer, index, within, key_pick)
            if rules.fill != "online":
                return buffer, item
            valid = item.counts & item.is_new & is_first
            offered = item.index, label_of(item.index), valid
            buffer, slots = offer(buffer, *offered, task, key_offer)
            return buffer, item._replace(slot=jnp.where(item.is_new, slots, item.slot))

        following = new, keys, within + jnp.arange(chunk)
        buffer, items = jax.lax.scan(one, state.buffer, following)
        return state._replace(buffer=buffer), items

    def example(state, item):
        return base.scaled(train[0], item.index), label_of(item.index)

    def weights(state, item) -> jax.Array:
        return minibatches.weights(rules, state.task, item)

    def session_some(state, i):
        index, valid = members(state, state.task)
        places = i * test_batch + jnp.arange(test_batch)
        there = places < split.largest
        places = jnp.minimum(places, split.largest - 1)
        counted = (there & valid[places]).astype(jnp.float32)
        return base.scaled(train[0], index[places]), label_of(index[places]), counted

    again = functools.partial(
        sessions,
        train,
        test,
        split,
        classes=classes,
        steps=steps,
        batch=batch,
        subsets=subsets,
        test_batch=test_batch,
        probe=probe,
    )
    return base.Stream(
        init,
        draw,
        example,
        session_tests.probe(test, probe),
        chunk,
        task=lambda state: state.task,
        test=session_tests.held_out(test, split.sessions, subsets, test_batch),
        task_ends=lambda state: state.step == jnp.asarray(ends)[state.task],
        weights=weights,
        progress=lambda state, item: item.number / jnp.asarray(steps)[state.task],
        session=base.HeldOut(session_some, -(-split.largest // test_batch)),
        old_classes=lambda state: state.since < state.task,
        rehearse=lambda rehearsal: again(rehearse=rehearsal),
    )


def _shown(
    state: SessionsState,
    task: jax.Array,
    within: jax.Array,
    composed: np.ndarray,
    split: Split,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """New examples, and whether it is their first time; both ``[chunk, batch]``.

    Example number ``k`` of a session is one of pass ``k // size``, in which they are
    sorted by random numbers.
    """
    batch, most = int(composed.sum(axis=1).max()), max(int(composed[:, 0].max()), 1)
    new, first = jnp.asarray(composed[:, 0])[task], state.starts[task]
    size = state.starts[task + 1] - first
    begin = within * new // jnp.maximum(size, 1) * size
    numbers = begin + jnp.arange(chunk * most + 2 * split.largest)
    draw = lambda number: jax.random.uniform(
        jax.random.fold_in(state.key_session, number)
    )
    mixed = jnp.lexsort((jax.vmap(draw)(numbers), numbers // size))
    place = numbers[mixed] % size
    number = jnp.minimum(jnp.arange(batch), most - 1)
    wanted = (within + jnp.arange(chunk))[:, None] * new + number
    return state.order[first + place[wanted - begin]], wanted < size


def _check(train, test, split, steps, subsets, batch, test_batch, probe) -> None:
    for name, (inputs, labels) in (("train", train), ("test", test)):
        if labels.ndim != 1 or inputs.shape[:1] != labels.shape or not labels.size:
            raise ValueError(
                f"{name} must be inputs [examples, ...] and labels [examples], got "
                f"{inputs.shape} and {labels.shape}."
            )
    parts = jax.eval_shape(split.of, jax.random.key(0))
    for name, part, (_, labels) in zip(
        ("train", "test"), parts, (train, test), strict=True
    ):
        if part.shape != labels.shape:
            raise ValueError(
                f"the split must have a session for each of the {labels.size} examples "
                f"of {name}, got {part.shape}."
            )
    if len(steps) != split.sessions:
        raise ValueError(f"{split.sessions} sessions need as many steps, got {steps}.")
    positive = [n > 0 for n in steps]
    if min(steps) < 0 or sorted(positive) != positive or not any(positive):
        raise ValueError(f"steps must be positive, but for the first ones: {steps}.")
    checks.one_of("subsets", subsets, ("sessions", *session_tests.SUBSETS))
    for name, n in (("batch", batch), ("test_batch", test_batch), ("probe", probe)):
        if n < 1:
            raise ValueError(f"{name} must be at least 1, got {n}.")
