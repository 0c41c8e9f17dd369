"""Incremental classes: what is shown when, told from pixels that are all different."""

import itertools
import types

import jax
import numpy as np
import pytest

from loplax import streams
from loplax.streams import augmentation

pytestmark = pytest.mark.usefixtures("quick_compile")

make = streams.incremental_classes
CLASSES, INCREMENT, EPOCHS, BATCH, TRAIN = 6, 2, 3, 4, 4
# Image i of class c is 40 c + i everywhere; validation has 20 and 21, test 30 to 32.
VALUES = (40 * np.arange(CLASSES)[:, None] + np.arange(40)).astype(np.uint8)
IMAGES = np.broadcast_to(VALUES[..., None, None, None], (CLASSES, 40, 1, 1, 3))
SETS = (IMAGES[:, :TRAIN], IMAGES[:, 20:22], IMAGES[:, 30:33])
# (task, epoch, part) of every chunk; the fourth task has no new classes.
SCHEDULE = [
    (task, epoch, part)
    for task in range(4)
    for epoch in range(EPOCHS)
    for part in range(min(task + 1, CLASSES // INCREMENT))
]


def plain(**changes):
    sizes = {"increment": INCREMENT, "epochs": EPOCHS, "batch": BATCH}
    return make(*SETS, **(sizes | {"augment": False} | changes))


def values(inputs):
    """The pixel of every image, ``[...]`` of ``[..., 1, 1, 3]``."""
    pixels = np.asarray(inputs) * augmentation.DEVIATION + augmentation.MEAN
    pixels = np.rint(255 * pixels).astype(int)
    assert np.all(pixels == pixels[..., :1])
    return pixels[..., 0, 0, 0]


def classes_at(classes, task):
    """The classes of a task in the order in which they came in."""
    return np.asarray(classes)[: min(INCREMENT * (task + 1), CLASSES)]


@pytest.fixture(scope="module")
def seen(quick_compile, walker):
    """What a stream shows, chunk by chunk."""
    stream = plain()
    walk = walker(stream, len(SCHEDULE))

    @jax.jit
    def run(key):
        states, _, shown = walk(key)
        every = lambda function: jax.vmap(function)(states)

        def batches(held_out):
            numbers = np.arange(held_out.batches)
            return every(lambda s: jax.vmap(lambda i: held_out.batch(s, i))(numbers))

        return {
            "state": states,
            "shown": shown,
            "classes": states.classes[0],
            "task": every(stream.task),
            "epoch_ends": every(stream.epoch_ends),
            "task_ends": every(stream.task_ends),
            "validation": batches(stream.validation),
            "test": batches(stream.test),
            "probe": every(stream.probe),
        }

    return types.SimpleNamespace(**run(jax.random.key(2)))


def test_tasks_epochs_and_their_parts_follow_the_schedule(seen):
    """Task t has t + 1 times as many chunks as the first."""
    state = seen.state
    found = np.stack([state.task, state.epoch, state.part], axis=1)
    np.testing.assert_array_equal(found, SCHEDULE)


def test_beginnings_and_ends(seen):
    both = list(itertools.pairwise([*SCHEDULE, (4, 0, 0)]))
    task_ends = [now[0] != after[0] for now, after in both]
    epoch_ends = [now[:2] != after[:2] for now, after in both]
    np.testing.assert_array_equal(seen.task_ends, task_ends)
    np.testing.assert_array_equal(seen.epoch_ends, epoch_ends)
    np.testing.assert_array_equal(seen.task, [now[0] for now, _ in both])
    assert (sum(task_ends), sum(epoch_ends)) == (4, 4 * EPOCHS)


def test_classes_come_in_one_order_for_the_whole_run(seen):
    assert np.all(seen.state.classes == seen.classes)
    np.testing.assert_array_equal(np.sort(seen.classes), range(CLASSES))
    # A class's place is not mistaken for the class at that place.
    first = np.argsort(seen.classes)[:INCREMENT], seen.classes[:INCREMENT]
    assert len(np.unique(first)) > INCREMENT
    keys = jax.random.split(jax.random.key(1), 20)
    orders = jax.jit(jax.vmap(plain().init))(keys).classes
    assert len(np.unique(orders, axis=0)) > 15


def test_an_epoch_shows_every_image_of_the_classes_so_far_once(seen):
    inputs, (labels, _) = seen.shown
    images, tasks = values(inputs), np.array(SCHEDULE)
    assert images.shape == (len(SCHEDULE), INCREMENT * TRAIN // BATCH, BATCH)
    np.testing.assert_array_equal(labels, images // 40)
    orders = set()
    for task in range(4):
        expected = VALUES[classes_at(seen.classes, task), :TRAIN]
        for epoch in range(EPOCHS):
            now = (tasks[:, 0] == task) & (tasks[:, 1] == epoch)
            shown = images[now].ravel()
            np.testing.assert_array_equal(np.sort(shown), np.sort(expected.ravel()))
            orders.add(tuple(shown))
    assert len(orders) == 4 * EPOCHS  # every epoch has its own


def test_targets_say_which_classes_have_been_seen(seen):
    for targets in (seen.shown[1], seen.validation[1], seen.test[1], seen.probe[1]):
        masks = np.asarray(targets[1])
        for mask, (task, _, _) in zip(masks, SCHEDULE, strict=True):
            expected = np.isin(np.arange(CLASSES), classes_at(seen.classes, task))
            assert np.all(mask == expected)


@pytest.mark.parametrize(
    ("name", "numbers"), [("validation", [20, 21]), ("test", [30, 31, 32])]
)
def test_held_out_images_of_the_classes_so_far_count(seen, name, numbers):
    """Each of them once, and no others; a batch without weight holds none."""
    inputs, (labels, _), weights = getattr(seen, name)
    images = values(inputs)
    np.testing.assert_array_equal(labels, images // 40)
    assert set(np.unique(weights)) == {0.0, 1.0}
    for chunk, (task, _, _) in enumerate(SCHEDULE):
        used = np.sort(images[chunk][weights[chunk] == 1])
        expected = VALUES[classes_at(seen.classes, task)][:, numbers]
        np.testing.assert_array_equal(used, np.sort(expected.ravel()))
    needed = np.any(np.asarray(weights) == 1, axis=2).sum(axis=1)
    assert list(needed) == [len(classes_at(seen.classes, t)) for t, _, _ in SCHEDULE]


def test_probe_holds_the_test_images_of_the_classes_that_the_task_adds(seen):
    inputs, (labels, _) = seen.probe
    images = values(inputs)
    np.testing.assert_array_equal(labels, images // 40)
    for shown, (task, _, _) in zip(images, SCHEDULE, strict=True):
        new = classes_at(seen.classes, task)[-INCREMENT:]
        expected = VALUES[new][:, 30 + np.arange(3)]
        np.testing.assert_array_equal(shown, expected.ravel())


def test_training_images_are_augmented_with_a_key_of_every_minibatch():
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 5, 5, 3), np.uint8)
    sizes = {"increment": 2, "epochs": 1, "batch": 2}
    stream, bare = (make(*[images] * 3, augment=a, **sizes) for a in (True, False))

    @jax.jit
    def first(key):
        state, items = stream.draw(stream.init(key))
        show = lambda stream: jax.vmap(stream.example, (None, 0))(state, items)
        return items, show(stream), show(bare)

    (indices, keys), (x, y), (same, y_same) = first(jax.random.key(0))
    expected = jax.jit(jax.vmap(lambda *a: augmentation.augment(*a)))(keys, same)
    np.testing.assert_array_equal(x, expected)
    assert np.any(x != same, axis=(2, 3, 4)).mean() > 0.7
    jax.tree.map(np.testing.assert_array_equal, y, y_same)
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == len(indices)


def test_streams_side_by_side_equal_streams_one_by_one(assert_alike_side_by_side):
    assert_alike_side_by_side(plain(epochs=1), 6)


def test_state_keeps_its_types(assert_state_keeps_its_types):
    assert_state_keeps_its_types(plain(augment=True))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"increment": 0}, "increment"),
        ({"increment": 4}, "increment must divide 6"),
        ({"increment": 12}, "increment"),
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"batch": 3}, "batch must divide the 8 images of 2 classes"),
        ({"validation": SETS[1][:5]}, "validation has 5"),
        ({"test": SETS[2][:4]}, "test has 4"),
    ],
)
def test_bad_arguments(changes, named):
    names = ("train", "validation", "test")
    good = dict(zip(names, SETS, strict=True)) | {"increment": INCREMENT, "batch": 4}
    with pytest.raises(ValueError, match=named):
        make(**(good | changes))
