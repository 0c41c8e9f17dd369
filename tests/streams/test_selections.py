"""Which examples are wanted: the first of each class, and a long tail."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loplax import streams

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(np.array)


@given(LABELS, st.integers(1, 12))
def test_the_first_of_every_class(labels, number):
    found = streams.first_of_class(labels, number)
    left, expected = dict.fromkeys(range(7), number), []
    for i, label in enumerate(labels.tolist()):
        if left[label]:
            left[label] -= 1
            expected.append(i)
    assert found.tolist() == expected


def test_none_of_a_class_is_no_selection():
    for number in (0, 1.5):
        with pytest.raises(ValueError, match="number must be"):
            streams.first_of_class(np.array([0]), number)


@given(
    st.lists(st.integers(40, 90), min_size=3, max_size=30),
    st.integers(1, 5),
    st.integers(10, 40),
    st.floats(0.0, 1.0),
    st.integers(0, 9),
)
def test_a_long_tail_has_its_numbers_and_falls_ever_slower(
    stock, least, most, part, seed
):
    labels = np.random.default_rng(seed).permutation(
        np.repeat(np.arange(len(stock)), stock)
    )
    few = most + (len(stock) - 1) * least
    # The straightest of the tails falls with the logarithm of the rank.
    rank = np.log(np.arange(1, len(stock) + 1))
    many = (most - (most - least) * rank / rank[-1]).sum()
    total = int(few + part * (many - few) * 0.99)
    found = streams.long_tail(labels, least=least, most=most, total=total, seed=seed)
    assert np.all(np.diff(found) > 0)
    sizes = np.sort(np.bincount(labels[found], minlength=len(stock)))[::-1]
    assert (sizes[0], sizes[-1], sizes.sum()) == (most, least, total)
    assert np.all(np.diff(sizes, 2) >= -2)  # convex, but for rounding


def test_places365_lt():
    """Its makers' numbers; the law leaves a seventh of the classes with many images."""
    stock = np.random.default_rng(0).integers(3068, 5001, 365)
    stock[:3] = 5000
    labels = np.repeat(np.arange(365), stock)
    numbers = {"least": 5, "most": 4980, "total": 62_500}
    found = streams.long_tail(labels, **numbers)
    sizes = np.bincount(labels[found])
    assert np.sort(sizes)[[0, -2, -1]].tolist() == [5, 3109, 4980]
    assert sizes.size == 365 and found.size == np.unique(found).size == 62_500
    assert stock[np.argmax(sizes)] >= 4980
    power = 1.5075  # at which n r^(-1/a), shifted and scaled to the ends, has this sum
    tail = np.arange(1, 366) ** (-1 / power)
    law = 5 + 4975 * (tail - tail[-1]) / (1 - tail[-1])
    np.testing.assert_allclose(np.sort(sizes)[::-1], law, atol=1.01)
    again = streams.long_tail(labels, **numbers)
    np.testing.assert_array_equal(again, found)
    other = np.bincount(labels[streams.long_tail(labels, **numbers, seed=1)])
    assert (other != sizes).any() and sorted(other) == sorted(sizes)


def test_large_sizes_go_to_classes_that_have_so_many():
    labels = np.repeat(np.arange(4), [3, 50, 9, 22])
    for seed in range(9):
        found = streams.long_tail(labels, least=2, most=50, total=80, seed=seed)
        sizes = np.bincount(labels[found])
        assert sizes[1] == 50 and sizes.sum() == 80
        assert np.all(sizes <= [3, 50, 9, 22])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"least": 0}, "least must be"),
        ({"most": 1}, "most must be"),
        ({"total": 29}, "total must be 30 to 38 for 3 classes of 2 to 26, got 29"),
        ({"total": 60}, "got 60"),
        ({"total": 35.5}, "total must be a whole number"),
        ({"most": 31, "total": 45}, "must have 31 examples, but the .* has 30"),
        ({"labels": np.zeros(9, int)}, "number of classes must be"),
    ],
)
def test_numbers_that_no_long_tail_has(change, match):
    usual = {"labels": np.repeat(np.arange(3), 30), "least": 2, "most": 26, "total": 40}
    with pytest.raises(ValueError, match=match):
        streams.long_tail(**usual | change)
