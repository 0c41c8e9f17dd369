"""Output weights of new classes, from the data of their session."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import streams, supervised
from loplax.supervised import losses, new_classes
from loplax.supervised.problem import Problem, stateless

pytestmark = pytest.mark.usefixtures("quick_compile")

CLASSES = 5
rng = np.random.default_rng(2)
LABELS = rng.permutation(np.repeat(np.arange(CLASSES), [3, 4, 7, 5, 1]))
INPUTS = rng.normal(size=(20, 3)).astype(np.float32)
# Class 1 comes in both sessions, class 4 in the second, with a single example.
SESSIONS = np.where(LABELS == 0, 0, np.where(LABELS == 1, np.arange(20) % 2, 1))
NEW = (2, 3, 4)


def embed(params, x):
    return jax.nn.relu(x @ params["hidden"]["kernel"])


def init(key):
    draw = lambda shape: jax.random.normal(jax.random.fold_in(key, shape[1]), shape)
    output = {"kernel": draw((4, CLASSES)), "bias": jnp.arange(5.0)}
    return {"hidden": {"kernel": draw((3, 4))}, "output": output}


def apply(params, x):
    return embed(params, x) @ params["output"]["kernel"] + params["output"]["bias"]


def stream(steps=(2, 2)):
    data = (INPUTS, LABELS), (INPUTS, LABELS)
    split = streams.given(SESSIONS, SESSIONS)
    sizes = {"classes": CLASSES, "batch": 3, "test_batch": 8, "probe": 2}
    return streams.sessions(*data, split, steps=steps, **sizes)


PROBLEM = Problem(
    stream=stream(),
    network=stateless(init, apply, embed),
    loss=losses.cross_entropy,
    tx=optax.with_extra_args_support(optax.sgd(0.0)),
    groups=(),
    test_starts=True,
    observe=(),
)
STARTS = {
    "class_mean": new_classes.class_mean,
    "least_squares": lambda made: new_classes.least_squares(made, ridge=0.1),
}


def start(name, key=None):
    """The weights before and after the second session begins."""
    made = PROBLEM._replace(on_task=(STARTS[name](PROBLEM),))
    state = supervised.init(lambda *_: made, jax.random.key(1), {})
    first, _ = made.stream.draw(state.stream)
    second, _ = made.stream.draw(first)
    state = state._replace(stream=second)
    return state.params, jax.jit(made.on_task[0])(state, jax.random.key(0)).params


def by_hand(name, params):
    """``[features, new classes]``."""
    chosen = np.isin(LABELS, NEW) & (SESSIONS == 1)
    kernel = np.asarray(params["hidden"]["kernel"], float)
    h = np.maximum(INPUTS[chosen].astype(float) @ kernel, 0)
    y = (LABELS[chosen][:, None] == np.array(NEW)).astype(float)
    if name == "class_mean":
        norms = np.linalg.norm(h, axis=1, keepdims=True)
        normalized = h / np.where(norms > 0, norms, 1)
        return np.stack([normalized[y[:, c] > 0].mean(axis=0) for c in range(3)], 1)
    # The minimum of |HW - Y|^2 + n ridge s |W|^2, as a longer least squares.
    weight = np.sqrt(len(h) * 0.1 * np.mean(h**2))
    longer = np.concatenate([h, weight * np.eye(4)])
    return np.linalg.lstsq(longer, np.concatenate([y, np.zeros((4, 3))]), rcond=None)[0]


@pytest.mark.parametrize("name", STARTS)
def test_new_columns_are_those_of_numpy_and_all_else_stays(name):
    before, after = start(name)
    found, old = (np.asarray(p["output"]["kernel"]) for p in (after, before))
    expected = by_hand(name, before)
    np.testing.assert_allclose(found[:, list(NEW)], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(found[:, :2], old[:, :2])
    assert np.abs(found - old)[:, list(NEW)].max() > 0.1
    same = lambda p: (p["hidden"]["kernel"], p["output"]["bias"])
    jax.tree.map(np.testing.assert_array_equal, same(before), same(after))


def test_class_means_have_a_norm_of_at_most_one():
    _, after = start("class_mean")
    norms = np.linalg.norm(np.asarray(after["output"]["kernel"]), axis=0)[list(NEW)]
    assert (norms <= 1 + 1e-6).all() and norms[-1] > 0.99  # that of one example is 1


def test_they_act_before_the_test_at_the_start_of_a_session():
    """Also when the first one has no steps: it is known before."""
    for steps, starts in (((2, 2), [1]), ((0, 2), [0])):
        made = PROBLEM._replace(stream=stream(steps))
        made = made._replace(on_task=(new_classes.class_mean(made),))
        build = lambda hparams, key, data, made=made: made
        state = supervised.init(build, jax.random.key(1), {})
        bins = len(starts) + starts[0]
        after, found = supervised.segment(build, state, bins=bins, fresh=False)
        new = np.asarray(after.params["output"]["kernel"])[:, list(NEW)]
        expected = by_hand("class_mean", state.params)
        np.testing.assert_allclose(new, expected, rtol=1e-4, atol=1e-5)
        tested = np.asarray(found["test_loss_start"][-1])
        assert np.isfinite(tested).all()
        # Nothing learns here, so that what is tested at the end is the same.
        np.testing.assert_allclose(tested, found["test_loss"][-1], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"network": stateless(init, apply)}, "no embed"),
        ({"stream": stream()._replace(session=None)}, "no session"),
        ({"stream": stream()._replace(old_classes=None)}, "no old_classes"),
        ({"head": "outptu"}, "no layer 'outptu'"),
        ({"head": "bias"}, "one matrix"),
    ],
)
def test_what_is_missing_is_named(changes, match):
    with pytest.raises(ValueError, match=match):
        new_classes.class_mean(PROBLEM._replace(**changes))


@pytest.mark.parametrize("ridge", [-1.0, float("nan")])
def test_a_ridge_out_of_range_is_refused(ridge):
    with pytest.raises(ValueError, match="ridge must be in"):
        new_classes.least_squares(PROBLEM, ridge=ridge)
