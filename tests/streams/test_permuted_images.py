"""Permuted images: what is shown when, told from pixels that are all different."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import streams

pytestmark = pytest.mark.usefixtures("quick_compile")

make = streams.permuted_images
IMAGES = np.arange(36, dtype=np.uint8).reshape(6, 2, 3)
LABELS = np.array([3, 1, 4, 1, 5, 9], np.int32)
TASKS, PROBE = 12, 5


def decoded(x):
    """Images and orders of the pixels, of inputs ``[..., 6]``."""
    values = np.rint(255 * np.asarray(x)).astype(int)
    assert np.all(values // 6 == values[..., :1] // 6)
    return values[..., 0] // 6, values % 6


# Chunks of 6, 2 and 3: a task is one pass, less than one, two and a half.
@pytest.fixture(scope="module", params=[6, 4, 15])
def seen(request, quick_compile, walker):
    """What a stream shows, by task."""
    period = request.param
    stream = make(IMAGES, LABELS, period=period, probe=PROBE)
    walk = walker(stream, TASKS * period // stream.chunk)

    @jax.jit
    def run(key):
        states, _, shown = walk(key)
        return shown, jax.vmap(stream.probe)(states), jax.vmap(stream.task)(states)

    (x, y), probe, task = run(jax.random.key(0))
    images, pixels = decoded(x)
    return types.SimpleNamespace(
        period=period,
        images=images.reshape(TASKS, period),
        pixels=pixels.reshape(TASKS, period, 6),
        labels=np.reshape(y, (TASKS, period)),
        probe=jax.tree.map(lambda a: np.reshape(a, (TASKS, -1, *a.shape[1:])), probe),
        task=np.reshape(task, (TASKS, -1)),
    )


def test_every_image_is_shown_once_before_any_is_shown_again(seen):
    for shown in seen.images:
        for start in range(0, seen.period, 6):
            whole = shown[start : start + 6]
            assert len(set(whole)) == len(whole)
            np.testing.assert_array_equal(whole, shown[: len(whole)])
    assert len(np.unique(seen.images[:, :4], axis=0)) > 6  # every task has its order


def test_pixels_are_permuted_anew_at_every_task_and_only_then(seen):
    assert np.all(seen.pixels == seen.pixels[:, :1])
    orders = seen.pixels[:, 0]
    np.testing.assert_array_equal(np.sort(orders), [range(6)] * TASKS)
    assert len(np.unique(orders, axis=0)) > 9


def test_labels_follow_the_images(seen):
    np.testing.assert_array_equal(seen.labels, LABELS[seen.images])
    assert seen.labels.dtype == np.int32


def test_probe_holds_the_first_images_of_the_task(seen):
    """At whatever chunk of the task; those that a short task never shows come last."""
    images, pixels = decoded(seen.probe[0])
    assert images.shape[2] == PROBE
    first = min(PROBE, seen.period)
    expected = np.broadcast_to(seen.images[:, None, :first], images[..., :first].shape)
    np.testing.assert_array_equal(images[..., :first], expected)
    assert np.all(pixels == seen.pixels[:, :1, None])
    np.testing.assert_array_equal(seen.probe[1], LABELS[images])
    assert all(len(set(each)) == PROBE for each in images[:, 0])


def test_tasks_are_numbered(seen):
    np.testing.assert_array_equal(seen.task.T - np.arange(TASKS), 0)


def test_a_probe_of_more_than_all_images_is_all_images():
    stream = make(IMAGES, LABELS, period=6, probe=100)
    state = jax.eval_shape(stream.init, jax.random.key(0))
    inputs, targets = jax.eval_shape(stream.probe, state)
    assert (inputs.shape, targets.shape) == ((6, 6), (6,))


def test_all_images_and_all_orders_of_pixels_are_as_likely():
    """The second examples of 600 runs; three pixels have six orders."""
    stream = make(np.arange(18, dtype=np.uint8).reshape(6, 3), LABELS, period=6)

    def second(key):
        state, items = stream.draw(stream.init(key))
        return stream.example(state, jax.tree.map(lambda item: item[1], items))[0]

    keys = jax.random.split(jax.random.key(0), 600)
    shown = jax.jit(jax.vmap(second))(keys)
    assert shown.dtype == jnp.float32
    values = np.asarray(shown) * 255
    np.testing.assert_allclose(values, np.rint(values), atol=1e-4)
    values = np.rint(values).astype(int)
    _, orders = np.unique(values % 3, axis=0, return_counts=True)
    for counts in (np.bincount(values[:, 0] // 3), orders):
        assert len(counts) == 6
        # Chi-squared with 5 degrees of freedom: beyond 20.5 with probability 0.001.
        assert np.sum((counts - 100) ** 2) / 100 < 20.5


def test_a_gradual_shift_leads_linearly_to_the_next_task(walker):
    """The share of examples with the next order of the pixels, over 1,580 tasks."""
    images = np.arange(200, dtype=np.uint8).reshape(20, 10)
    stream = make(images, np.zeros(20, int), period=30, shift="gradual")
    assert stream.chunk == 10
    walk = jax.jit(jax.vmap(walker(stream, 240)))
    _, _, (x, _) = walk(jax.random.split(jax.random.key(0), 20))
    pixels = np.rint(255 * np.asarray(x)).astype(int).reshape(20, 80, 30, 10) % 10
    own = pixels[:, :, :1]  # the first example of a task is never of the next
    upcoming = np.any(pixels != own, axis=-1)[:, :-1]
    following = np.broadcast_to(own[:, 1:], pixels[:, :-1].shape)
    np.testing.assert_array_equal(pixels[:, :-1][upcoming], following[upcoming])
    share, expected = upcoming.mean(axis=(0, 1)), np.arange(30) / 30
    deviation = np.sqrt(expected * (1 - expected) / (20 * 79))
    assert np.all(np.abs(share - expected) <= 4 * deviation)


@pytest.mark.parametrize(
    ("period", "chunk"),
    [(60_000, 10_000), (25_000, 5_000), (1_000_000, 10_000), (7, 1)],
)
def test_chunks_are_large_and_divide_task_and_pass(period, chunk):
    images, labels = np.zeros((60_000, 1), np.uint8), np.zeros(60_000, int)
    assert make(images, labels, period=period).chunk == chunk


def test_streams_side_by_side_equal_streams_one_by_one(assert_alike_side_by_side):
    assert_alike_side_by_side(make(IMAGES, LABELS, period=4, shift="gradual"), 5)


def test_state_keeps_its_types(assert_state_keeps_its_types):
    assert_state_keeps_its_types(make(IMAGES, LABELS, period=4))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"period": 0}, "period"),
        ({"probe": 0}, "probe"),
        ({"shift": "sudden"}, "'sudden'"),
        ({"labels": LABELS[:5]}, "labels"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=named):
        make(**({"images": IMAGES, "labels": LABELS} | arguments))
