"""Which examples belong to which session, and how images are turned."""

import jax
import numpy as np
import pytest

from loplax import streams

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4])
TESTED = np.array([4, 3, 2, 1, 0, 0])


def sessions(split, seed=0):
    return [np.asarray(part) for part in split.of(jax.random.key(seed))]


@pytest.mark.parametrize("fixed", [0, 2])
def test_classes_come_together_in_an_order_of_each_run(fixed):
    split = streams.class_incremental(LABELS, TESTED, (2, 2, 1), fixed=fixed)
    orders = set()
    for seed in range(12):
        train, test = sessions(split, seed)
        of_class = train[[0, 3, 5, 9, 10]].tolist()
        np.testing.assert_array_equal(train, np.array(of_class)[LABELS])
        np.testing.assert_array_equal(test, np.array(of_class)[TESTED])
        assert np.bincount(of_class).tolist() == [2, 2, 1]
        assert of_class[:fixed] == [0] * fixed
        sizes = np.bincount(train)
        assert split.smallest <= sizes.min() and sizes.max() <= split.largest
        orders.add(tuple(of_class))
    assert len(orders) > 2


def test_parts_of_the_data_are_equal_and_random():
    split = streams.data_incremental(LABELS, TESTED, 5)
    first, second = sessions(split)[0], sessions(split, 1)[0]
    for found in (first, second):
        assert sorted(np.bincount(found).tolist()) == [2, 2, 2, 3, 3]
    assert (first != second).any()
    assert sessions(split)[1].tolist() == [0] * 6
    assert (split.sessions, split.smallest, split.largest) == (5, 2, 3)


def test_a_base_comes_before_the_parts():
    split = streams.data_incremental(LABELS, TESTED, 2, base=2)
    train, test = sessions(split)
    np.testing.assert_array_equal(train == 0, LABELS < 2)
    assert np.bincount(train).tolist() == [5, 4, 3]
    assert test.tolist() == [1, 1, 1, 0, 0, 0]
    assert (split.sessions, split.smallest, split.largest) == (3, 3, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: streams.given([0, 2], [0]), "session 1 has no"),
        (lambda: streams.given([0, -1], [0]), "from 0"),
        (lambda: streams.given([0, 1], [2]), "2 to 2 to test"),
        (lambda: streams.class_incremental(LABELS, TESTED, (2, 2)), "5 classes"),
        (lambda: streams.class_incremental(LABELS, TESTED, (5, 0)), "5 classes"),
        (lambda: streams.class_incremental([0, 2], [0], (3,)), "class 1 has no"),
        (
            lambda: streams.class_incremental([0, 1], [0, 2], (1, 1)),
            "0 to 1, .* 0 to 2",
        ),
        (lambda: streams.class_incremental([0, 1], [-1], (1, 1)), "got -1 to -1"),
        (
            lambda: streams.class_incremental(LABELS, TESTED, (5,), fixed=6),
            "fixed must be 0 to 5",
        ),
        (lambda: streams.data_incremental(LABELS, TESTED, 13), "1 to 12"),
        (lambda: streams.data_incremental(LABELS + 1, TESTED, 2, base=1), "first 1"),
    ],
)
def test_what_is_no_split_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_are_turned_counter_clockwise_about_their_centre():
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 6), dtype=np.uint8)
    turned = streams.rotated(images, (0, 90, 180, 270))
    quarter = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    np.testing.assert_array_equal(turned, np.concatenate(quarter))
    odd = np.zeros((1, 5, 5, 1), np.uint8)
    odd[0, 2, 3:] = 9  # a hand at 3 o'clock goes up and to the right
    assert np.argwhere(streams.rotated(odd, [45])[0, ..., 0]).tolist() == [[1, 3]]
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        streams.rotated(np.zeros((4, 4)), [1])


def test_every_permutation_is_one_of_all_images():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    found = streams.permuted(images, 4, seed=1).reshape(4, 3, 20)
    index = np.arange(20, dtype=np.uint8).reshape(1, 4, 5)
    orders = streams.permuted(index, 4, seed=1)
    assert len({tuple(order) for order in orders}) == 4
    for part, order in zip(found, orders, strict=True):
        np.testing.assert_array_equal(part, images.reshape(3, 20)[:, order])
    assert (streams.permuted(images, 1) != streams.permuted(images, 1, seed=1)).any()
    with pytest.raises(ValueError, match="number must be at least 1"):
        streams.permuted(images, 0)
