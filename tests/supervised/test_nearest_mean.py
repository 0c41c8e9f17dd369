"""The nearest class mean as a read-out, against a loop in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import streams, supervised
from loplax.supervised import losses, nearest_mean
from loplax.supervised.problem import Problem, stateless

pytestmark = pytest.mark.usefixtures("quick_compile")

CLASSES, DECAY = 4, 0.75
rng = np.random.default_rng(4)
LABELS = np.repeat(np.arange(CLASSES), 5)
INPUTS = (rng.normal(size=(20, 3)) + 2 * np.eye(4, 3)[LABELS]).astype(np.float32)


def embed(params, x):
    return jax.nn.relu(x @ params["w"])


def init(key):
    w, kernel = (jax.random.normal(k, (3 + i, 4)) for i, k in enumerate([key, KEY]))
    return {"w": w, "output": {"kernel": kernel, "bias": jnp.zeros(4)}}


def apply(params, x):
    return embed(params, x) @ params["output"]["kernel"] + params["output"]["bias"]


def stream():
    data = (INPUTS, LABELS), (INPUTS, LABELS)
    split = streams.given(LABELS // 2, LABELS // 2)
    sizes = {"classes": CLASSES, "steps": 3, "batch": 3, "test_batch": 8, "probe": 2}
    return streams.sessions(*data, split, **sizes)


KEY = jax.random.key(8)
PROBLEM = Problem(
    stream=stream().rehearse(streams.Rehearsal(capacity=4, new=3, memory=1)),
    network=stateless(init, apply, embed),
    loss=losses.cross_entropy,
    tx=optax.with_extra_args_support(optax.sgd(0.0)),
    groups=(),
    measures={"accuracy": losses.accuracy},
    observe=(),
)


def built(**changes):
    made = PROBLEM._replace(**changes)
    return made._replace(
        keepers=(nearest_mean.keeper(made, decay_rate=DECAY),),
        evaluated=made.evaluated | nearest_mean.evaluated(made),
    )


def test_means_and_accuracies_are_those_of_numpy():
    build = lambda hparams, key, data: built()
    state = supervised.init(build, jax.random.key(0), {})
    one = jax.jit(functools.partial(supervised.segment, build, bins=1, fresh=False))
    kernel = np.asarray(state.params["w"], float)
    unit = lambda v: v / np.where(np.linalg.norm(v) > 0, np.linalg.norm(v), 1)
    h = np.stack([unit(np.maximum(x @ kernel, 0)) for x in INPUTS.astype(float)])
    means, walk = {}, state.stream
    for known in (2, 4):
        walk, items = PROBLEM.stream.draw(walk)
        for index, counts in zip(*map(np.asarray, items[:2]), strict=True):
            for c in set(LABELS[index[counts]]):
                now = h[[i for i in index[counts] if LABELS[i] == c]].mean(axis=0)
                means[c] = DECAY * means[c] + (1 - DECAY) * now if c in means else now
        state, found = one(state)
        kept, seen = state.memory["ncm"]
        assert len(means) == known == seen.sum() and kept.shape == (4, 4)
        for c, mean in means.items():
            np.testing.assert_allclose(kept[:, c], mean, rtol=1e-4, atol=1e-6)
        directions = np.stack([unit(means[c]) for c in sorted(means)])
        distances = np.linalg.norm(h[:, None] - directions, axis=-1)
        right = np.array(sorted(means))[distances.argmin(axis=1)] == LABELS
        tested = right.reshape(2, 10).mean(axis=1)[: known // 2]
        np.testing.assert_allclose(
            found["ncm_accuracy"][0][: known // 2], tested, rtol=1e-5
        )
    assert {"test_accuracy", "test_loss", "ncm_loss"} <= set(found)
    assert right.mean() > 0.5  # chance is a quarter


def test_what_learns_is_left_as_it_is():
    state = supervised.init(lambda *_: built(), jax.random.key(0), {})
    params, _ = built().evaluated["ncm"](state)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, state.params)
    np.testing.assert_array_equal(params["w"], state.params["w"])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"network": stateless(init, apply)}, "no embed"),
        ({"head": "bias"}, "one matrix"),
    ],
)
def test_what_is_missing_is_named(changes, match):
    with pytest.raises(ValueError, match=match):
        built(**changes)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match="decay_rate must be in"):
        nearest_mean.keeper(PROBLEM, decay_rate=rate)
