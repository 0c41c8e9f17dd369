"""Pieces of results: what was written is read, and runs are known by content."""

import numpy as np
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st

from loplax.studies import identity, pieces

ABOUT = pieces.About("bp", {}, {"decay": 0.0}, ["old", "new"], 10.0, {"config": {}})
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def piece(unit, first, last, value=0.0, seeds=(0, 1), about=ABOUT, **hparams):
    count = len(seeds)
    metrics = {"loss": np.full([count, last - first], value, np.float32)}
    columns = {name: np.full(count, number) for name, number in hparams.items()}
    return pieces.Piece(
        pieces.Group(unit, about, columns, np.array(seeds)), first, metrics
    )


@given(
    st.lists(st.floats(width=32), min_size=4, max_size=4),
    st.lists(NUMBERS, min_size=2, max_size=2),
    TEXT.filter(str.strip),
    st.integers(0, 10**6),
)
def test_what_was_written_is_read(tmp_path_factory, values, rates, method, first):
    """Any number and any name, bit for bit."""
    study = tmp_path_factory.mktemp("any")
    (study / "results").mkdir()
    about = ABOUT._replace(method=method, choices={method: [1.5, None]})
    loss = np.array(values, np.float32).reshape(2, 2)
    metrics = {"loss": loss, "held": np.stack([loss, loss], 2).astype(float)}
    group = pieces.Group(7, about, {"a.rate": np.array(rates)}, np.array([0, 3]))
    (path,) = pieces.write(study, pieces.Piece(group, first, metrics))
    found = pieces.read(path)
    assert found.group.about == about and found.group.runs() == group.runs()
    assert (found.group.unit, found.first, found.last) == (7, first, first + 2)
    for name, x in metrics.items():
        assert found.metrics[name].dtype == x.dtype
        np.testing.assert_array_equal(found.metrics[name], x)
    with xarray.open_dataset(path) as plain:
        assert plain["held"].dims == ("run", "bin", "subset")
        assert plain["step"].values.tolist() == [10.0 * (first + 1), 10.0 * (first + 2)]


def test_any_changed_byte_is_told(tmp_path):
    (tmp_path / "results").mkdir()
    (path,) = pieces.write(tmp_path, piece(1, 0, 4))
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        data = bytearray(whole)
        data[place] ^= 1
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is damaged: its checksum"):
            pieces.read(path)


def longest(**given):
    best = pieces.chains(given, {})
    return {
        run[1]: (c.unit, c.reach, [n for n, *_ in c.spans]) for run, c in best.items()
    }


def test_results_of_a_run_have_no_gap_and_are_of_one_unit():
    a, b, c = piece(1, 0, 4), piece(1, 4, 8), piece(1, 12, 16)
    assert longest(a=a, b=b, c=c)[0] == (1, 8, ["a", "b"])
    assert longest(b=b, c=c)[0] == (1, 0, [])
    other = piece(2, 8, 12)
    assert longest(a=a, b=b, c=c, d=other)[0] == (1, 8, ["a", "b"])


def test_the_longest_count_and_of_two_the_older():
    short, long, same = piece(1, 0, 4), piece(2, 0, 8), piece(3, 0, 8)
    assert longest(a=short, b=long)[0] == (2, 8, ["b"])
    assert longest(a=same, b=long)[0] == (2, 8, ["b"])


def test_pieces_may_overlap_where_a_process_died():
    """While it put them together; each bin is taken once."""
    parts = {"a": piece(1, 0, 4), "b": piece(1, 4, 8), "c": piece(1, 0, 12, seeds=[1])}
    assert longest(**parts)[0] == (1, 8, ["a", "b"])
    assert longest(**parts)[1] == (1, 12, ["a", "c"])
    best = pieces.chains(parts, {})
    cells = {run: (0, run[1]) for run in best}
    found = np.zeros([2, 12])
    for (arms, seeds), first, metrics in pieces.spans(parts, best, cells, 10):
        assert (arms == 0).all()
        found[seeds, first : first + metrics["loss"].shape[1]] += 1
    assert found.sum(axis=1).tolist() == [8, 10] and found.max() == 1


def test_defaults_of_today_hold_for_what_was_written_before():
    old, new = piece(1, 0, 4, rate=0.5), piece(2, 0, 8, rate=0.5, decay=0.0, warm=1.0)
    assert len(pieces.chains({"a": old, "b": new}, {})) == 4
    today = {"bp": {"warm": 1, "decay": 0.0}}
    assert len(pieces.chains({"a": old, "b": new}, today)) == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_there_are_differences_where_texts_differ(old, new):
    same = identity.text(old) == identity.text(new)
    assert same == (not list(identity.differences(old, new)))


@given(st.dictionaries(TEXT, JSON, max_size=4), st.dictionaries(TEXT, JSON, max_size=4))
def test_what_has_its_default_counts_for_nothing(values, defaults):
    """To add it or to take it away changes nothing; anything else does."""
    bare = identity.without_defaults(values, defaults)
    assert identity.without_defaults(defaults, defaults) == {}
    full = {**defaults, **values}
    again = identity.without_defaults(full, defaults)
    assert identity.text(again) == identity.text(bare)
    assert identity.without_defaults(bare, {}) == bare
