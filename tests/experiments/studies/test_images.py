"""Images as networks for 32x32 pixels take them."""

import types

import jax
import numpy as np
import pytest

from experiments.studies import images


@pytest.mark.parametrize(
    ("side", "factor", "before"), [(8, 4, 0), (28, 1, 2), (5, 6, 1), (32, 1, 0)]
)
def test_images_are_enlarged_and_padded(side, factor, before):
    """Every pixel becomes a square; what remains is black, as much on both sides."""
    given = np.random.default_rng(0).integers(1, 256, (2, side, side, 3), np.uint8)
    found = images.to_32(given)
    assert found.shape == (2, 32, 32, 3) and found.dtype == np.uint8
    inside = slice(before, before + factor * side)
    expected = np.kron(given, np.ones((1, factor, factor, 1), np.uint8))
    np.testing.assert_array_equal(found[:, inside, inside], expected)
    assert found.sum(dtype=int) == expected.sum(dtype=int)


def test_images_need_not_be_square():
    found = images.to_32(np.ones((1, 16, 9, 1), np.uint8))
    np.testing.assert_array_equal(np.flatnonzero(found[0, 0, :, 0]), range(7, 25))
    np.testing.assert_array_equal(np.flatnonzero(found[0, :, 16, 0]), range(32))


def test_large_images_are_refused():
    with pytest.raises(ValueError, match="at most 32x32.*33"):
        images.to_32(np.zeros((1, 8, 33, 1), np.uint8))


def test_patches(monkeypatch):
    def wanted(patches, platform="auto"):
        config = types.SimpleNamespace(patches=patches, platform=platform)
        return images.patches(config)

    assert wanted("yes") is True and wanted("no") is False
    for backend, expected in (("cpu", True), ("gpu", False), ("tpu", False)):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert wanted("auto") is expected
        assert wanted("auto", "cpu") is True  # whatever jax has been used for before
        assert wanted("auto", "gpu") is wanted("auto", "tpu") is False
    with pytest.raises(ValueError, match="patches.*'on'"):
        wanted("on")
