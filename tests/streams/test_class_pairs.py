"""Class pairs: which images are shown when, told from pixels that are all different."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import streams
from loplax.streams.class_pairs import by_class

pytestmark = pytest.mark.usefixtures("quick_compile")

EPOCHS, PASSES, TRAIN, TEST = 3, 6, 4, 3


def images_of(classes):
    """Images ``[classes, images, 1, 1, 1]``: 10 per class, of which 5 are for tests."""
    values = 10 * np.arange(classes)[:, None] + np.arange(10)
    values = values.astype(np.uint8)[..., None, None, None]
    return values[:, :TRAIN], values[:, 5 : 5 + TEST]


def values(inputs):
    return np.rint(255 * np.asarray(inputs)).astype(int)[..., 0, 0, 0]


@pytest.fixture(scope="module", params=[6, 5])
def seen(request, quick_compile, walker):
    """What a stream shows, by task, of an even and an odd number of classes."""
    stream = streams.class_pairs(*images_of(request.param), epochs=EPOCHS, batch=2)
    tasks = PASSES * (request.param // 2)
    walk = walker(stream, tasks * EPOCHS)

    @jax.jit
    def run(key):
        states, _, shown = walk(key)
        every = lambda function: jax.vmap(function)(states)
        tests = every(lambda state: stream.test.batch(state, 0))
        return shown, tests, every(stream.probe), every(stream.task)

    by_task = lambda a: np.reshape(a, (tasks, EPOCHS, *a.shape[1:]))
    found = jax.tree.map(by_task, run(jax.random.key(0)))
    (x, y), (test_x, test_y, weights), probe, task = found
    flat = lambda a: np.reshape(a, (tasks, EPOCHS, 2 * TRAIN))  # minibatches end on end
    return types.SimpleNamespace(
        classes=request.param,
        images=flat(values(x)),
        labels=flat(y),
        test=(values(test_x), test_y, weights),
        probe=(values(probe[0]), probe[1]),
        task=task,
    )


def test_an_epoch_shows_every_image_of_two_classes_once(seen):
    pairs = np.sort(seen.images // 10, axis=-1)[..., [0, -1]]
    everything = 10 * pairs[..., None] + np.arange(TRAIN)
    shape = seen.images.shape
    np.testing.assert_array_equal(np.sort(seen.images), everything.reshape(shape))
    assert np.all(pairs == pairs[:, :1])  # the same two classes in all epochs of a task
    assert np.all(pairs[..., 0] < pairs[..., 1])


def test_every_epoch_has_its_own_order(seen):
    within = (seen.images % 10) + TRAIN * seen.labels
    assert len(np.unique(within.reshape(-1, 2 * TRAIN), axis=0)) == within[..., 0].size


def test_a_label_is_a_class_for_a_whole_task(seen):
    assert set(np.unique(seen.labels)) == {0, 1}
    assert seen.labels.dtype == np.int32
    for images, labels in zip(seen.images, seen.labels, strict=True):
        classes = [set(images[labels == label] // 10) for label in (0, 1)]
        assert [len(found) for found in classes] == [1, 1]
        assert classes[0] != classes[1]


def test_pairs_of_a_pass_are_disjoint_and_cover_the_classes(seen):
    """But for one class if their number is odd, another one from pass to pass."""
    pairs = [frozenset(task.ravel()) for task in seen.images // 10]
    each = seen.classes // 2
    passes = [pairs[i : i + each] for i in range(0, len(pairs), each)]
    covered = [frozenset().union(*tasks) for tasks in passes]
    assert all(len(classes) == 2 * each for classes in covered)
    assert frozenset().union(*covered) == set(range(seen.classes))
    assert len(set(map(frozenset, passes))) > 2  # another pairing in every pass


def test_a_task_is_tested_on_all_test_images_of_its_classes(seen):
    images, labels, weights = seen.test
    np.testing.assert_array_equal(weights, np.ones_like(images))
    for task in range(len(images)):
        of = {y: seen.images[task][seen.labels[task] == y][0] // 10 for y in (0, 1)}
        expected = [10 * of[y] + 5 + i for y in (0, 1) for i in range(TEST)]
        for epoch in range(EPOCHS):
            np.testing.assert_array_equal(images[task, epoch], expected)
            np.testing.assert_array_equal(labels[task, epoch], [0] * TEST + [1] * TEST)
    np.testing.assert_array_equal(seen.probe[0], images)
    np.testing.assert_array_equal(seen.probe[1], labels)


def test_tasks_are_numbered(seen):
    expected = np.repeat(np.arange(len(seen.images)), EPOCHS)
    np.testing.assert_array_equal(np.ravel(seen.task), expected)


def test_minibatches_are_numbers_from_0_to_1(walker):
    images = np.array([0, 51, 102, 255], np.uint8).reshape(2, 2, 1, 1, 1)
    stream = streams.class_pairs(images, images, epochs=1, batch=4)
    _, _, (x, y) = walker(stream, 1)(jax.random.key(0))
    assert (x.shape, x.dtype, y.shape) == ((1, 1, 4, 1, 1, 1), jnp.float32, (1, 1, 4))
    np.testing.assert_allclose(np.sort(np.ravel(x)), [0.0, 0.2, 0.4, 1.0], rtol=1e-6)


def test_streams_side_by_side_equal_streams_one_by_one(assert_alike_side_by_side):
    stream = streams.class_pairs(*images_of(5), epochs=2, batch=4)
    assert_alike_side_by_side(stream, 6)


def test_state_keeps_its_types(assert_state_keeps_its_types):
    assert_state_keeps_its_types(streams.class_pairs(*images_of(5), epochs=2, batch=4))


def test_by_class_keeps_the_order_within_a_class_and_equal_numbers():
    labels = np.array([2, 0, 1, 2, 0, 1, 1, 0, 2, 2])
    images = np.arange(20).reshape(10, 2)
    found = by_class(images, labels)
    assert found.shape == (3, 3, 2)
    np.testing.assert_array_equal(found[..., 0] // 2, [[1, 4, 7], [2, 5, 6], [0, 3, 8]])
    np.testing.assert_array_equal(found[..., 1], found[..., 0] + 1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train": images_of(1)[0]}, "2 classes, got 1"),
        ({"test": images_of(5)[1]}, "6 classes, test has 5"),
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"batch": 3}, "batch must divide the 8 images"),
        ({"train": images_of(6)[0][:, :0]}, "batch must divide the 0 images"),
    ],
)
def test_bad_arguments(changes, named):
    train, test = images_of(6)
    good = {"train": train, "test": test, "epochs": 2, "batch": 4}
    with pytest.raises(ValueError, match=named):
        streams.class_pairs(**(good | changes))
