"""Dynamic soft targets against an independent loop, and their laws."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

from loplax import streams, supervised
from loplax.supervised import losses, soft_targets
from loplax.supervised.problem import Problem, stateless

pytestmark = pytest.mark.usefixtures("quick_compile")

CLASSES, RATE = 4, 0.5
rng = np.random.default_rng(7)
LABELS = np.repeat(np.arange(CLASSES), 6)
INPUTS = (rng.normal(size=(24, 3)) + np.eye(4, 3)[LABELS]).astype(np.float32)
REPLAY = streams.Rehearsal(capacity=6, new=3, memory=2)


def stream(rehearse=REPLAY):
    data = (INPUTS, LABELS), (INPUTS, LABELS)
    split = streams.given(LABELS // 2, LABELS // 2)
    sizes = {"classes": CLASSES, "steps": (4, 6), "batch": 3, "test_batch": 8}
    return streams.sessions(*data, split, **sizes, probe=2, rehearse=rehearse)


def problem(weighting="examples", **changes):
    made = Problem(
        stream=stream(),
        network=stateless(
            lambda key: {"w": jax.random.normal(key, (3, CLASSES))},
            lambda p, x: x @ p["w"],
        ),
        loss=losses.cross_entropy,
        tx=optax.with_extra_args_support(optax.sgd(RATE)),
        groups=(),
        observe=(),
    )._replace(**changes)
    return made._replace(
        objective=soft_targets.objective(made, weighting=weighting),
        keepers=(soft_targets.keeper(made),),
    )


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def targets_by_hand(p, label, means, old):
    v = np.array(means[label] if old[label] else p)
    v[np.argmax(p)] = 1 / len(p)
    v[label] = 1
    return v / v.sum()


def by_hand(batches, w):
    """The weights, and the table of means at the end of each step."""
    tables = []
    for task, steps in batches:
        right = [[] for _ in range(CLASSES)]
        means = np.full((CLASSES, CLASSES), 1 / CLASSES)
        old = np.arange(CLASSES) < 2 * task
        for x, y, weights in steps:
            p, grad = softmax(x @ w), np.zeros_like(w)
            for x_i, y_i, p_i, weight in zip(x, y, p, weights, strict=True):
                if weight == 0:
                    continue
                target = targets_by_hand(p_i, y_i, means, old)
                grad += weight * np.outer(x_i, p_i - target)
                if np.argmax(p_i) == y_i:
                    right[y_i].append(p_i)
            w = w - RATE * grad
            uniform = np.full(CLASSES, 1 / CLASSES)
            means = [np.mean(seen, axis=0) if seen else uniform for seen in right]
            tables.append(means)
    return w, tables


def drawn(made, state, chunks):
    """What the steps learn from: per chunk its task, and inputs, labels, weights."""
    found = []
    for _ in range(chunks):
        state, items = made.stream.draw(state)
        steps = []
        for i in range(made.stream.chunk):
            item = jax.tree.map(lambda x, i=i: x[i], items)
            x, y = made.stream.example(state, item)
            weights = made.stream.weights(state, item)
            steps.append([np.asarray(v, float) for v in (x, y, weights)])
        found.append((int(state.task), steps))
    return found


@pytest.mark.parametrize("weighting", ["examples", "stream"])
def test_a_run_is_what_a_loop_does(weighting):
    made = problem(weighting)
    build = lambda hparams, key, data: made
    state = supervised.init(build, jax.random.key(0), {})
    one = jax.jit(functools.partial(supervised.segment, build, bins=1, fresh=False))
    chunks = drawn(made, state.stream, 5)
    sessions = [(0, sum((s for t, s in chunks if t == 0), []))]
    sessions += [(1, sum((s for t, s in chunks if t == 1), []))]
    for _, steps in sessions:
        for step in steps:
            step[1] = step[1].astype(int)
            if weighting == "examples":
                step[2] = (step[2] > 0) / (step[2] > 0).sum()
    assert [len(steps) for _, steps in sessions] == [4, 6]
    w, tables = by_hand(sessions, np.asarray(state.params["w"], float))
    for chunk in range(5):
        state, _ = one(state)
        known = state.memory["soft_targets"]
        # The sessions end with the second and the last chunk.
        expected = np.full((4, 4), 0.25) if chunk in (1, 4) else tables[2 * chunk + 1]
        np.testing.assert_allclose(known.means, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-4, atol=1e-5)
    assert known.sums.shape == (4, 4) and known.counts.shape == (4,)


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5),
    label=st.integers(0, 4),
    old=st.lists(st.booleans(), min_size=5, max_size=5),
    seed=st.integers(0, 99),
)
def test_targets_sum_to_one_and_the_label_is_the_largest(logits, label, old, seed):
    p = np.asarray(jax.nn.softmax(jnp.array(logits)))
    means = np.random.default_rng(seed).dirichlet(np.ones(5), 5).astype(np.float32)
    found = np.asarray(
        soft_targets.soft_targets(p, jnp.array(label), means, jnp.array(old))
    )
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
    assert found[label] == found.max() and found[label] > 0.45
    by_hand = targets_by_hand(p.astype(float), label, means, old)
    np.testing.assert_allclose(found, by_hand, rtol=1e-4, atol=1e-7)


def test_wrong_predictions_and_what_does_not_count_leave_the_means():
    known = soft_targets.Predicted(jnp.zeros((3, 3)), jnp.zeros(3))
    p = jnp.array([[0.75, 0.25, 0], [0.5, 0.25, 0.25], [0, 0.25, 0.75]])
    labels, counts = jnp.array([0, 1, 2]), jnp.array([True, True, False])
    known = soft_targets.add(known, p, labels, counts)
    assert known.counts.tolist() == [1, 0, 0]
    means = np.asarray(known.means)
    np.testing.assert_allclose(means, [[0.75, 0.25, 0], [1 / 3] * 3, [1 / 3] * 3])


def test_no_gradient_passes_the_targets():
    """That of the loss is p - t, whatever t depends on."""
    made = problem()
    logits = jnp.array([[2.0, 0.0, 1.0, -1.0]])
    state = supervised.init(lambda *_: made, jax.random.key(0), {})
    state = state._replace(stream=state.stream._replace(task=jnp.int32(1)))
    made = made._replace(stream=made.stream._replace(weights=None))
    objective = soft_targets.objective(made)

    def loss(logits, label):
        seen = supervised.Seen((), (), jnp.array([label]), logits, ())
        return objective(state, seen)

    for label in range(4):
        p, grad = jax.nn.softmax(logits), jax.grad(loss)(logits, label)
        old, uniform = np.arange(4) < 2, np.full((4, 4), 0.25)
        target = targets_by_hand(np.asarray(p[0]), label, uniform, old)
        np.testing.assert_allclose(grad[0], p[0] - target, atol=1e-6)


def test_seeds_side_by_side_are_those_one_by_one():
    build = lambda hparams, key, data: problem()

    def run(key):
        state = supervised.init(build, key, {})
        return supervised.segment(build, state, bins=5, fresh=False)[0].params["w"]

    keys = jax.random.split(jax.random.key(3), 2)
    together = jax.jit(jax.vmap(run))(keys)
    for i in range(2):
        np.testing.assert_allclose(jax.jit(run)(keys[i]), together[i], rtol=1e-5)


@pytest.mark.parametrize("name", ["old_classes", "task_ends"])
def test_a_stream_without_sessions_is_refused(name):
    without = stream()._replace(**{name: None})
    with pytest.raises(ValueError, match=name):
        problem(stream=without)


def test_an_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="weighting.*did you mean 'examples'"):
        problem("example")
