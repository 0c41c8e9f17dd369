"""The laws of units, tried on every model of these tests."""

import pytest

from loplax import units


@pytest.fixture
def prove():
    """Tries the laws on all groups that are found in a model; returns them."""

    def prove(apply, params, *inputs, has_aux=False):
        return units.verify(apply, params, *inputs, has_aux=has_aux, draws=2)

    return prove
