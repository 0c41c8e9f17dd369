"""States that come back from disk are those that the learner had."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax.studies import checkpoints, states
from tests.studies import toys

METHODS = {"walk": toys.WALK}
NUMBER = {"size": jnp.zeros([], float)}
FORM = jax.eval_shape(toys.init, jax.random.key(0), NUMBER)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The leaves of a study's last states."""
    folder = tmp_path_factory.mktemp("states") / "study"
    toys.study(folder, METHODS, settings={}, keep_states=True)
    (path,) = checkpoints.of_units(folder)
    return checkpoints.load(path)


def test_a_learner_goes_on_from_what_was_restored(kept):
    """All leaves are there: keys, those without elements, and the numbers."""
    state = states.restored(FORM, kept)
    assert state["none"].shape == (3, 0)
    assert jnp.issubdtype(state["key"].dtype, jax.dtypes.prng_key)
    np.testing.assert_array_equal(state["count"], 6 * toys.BINS)
    after, metrics = jax.vmap(toys.segment)(state)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    longer = toys.study(None, METHODS, settings={}, num_segments=7)
    expected = longer["draw"].isel(arm=0, bin=slice(24, None))
    np.testing.assert_array_equal(metrics["draw"], expected)


def test_states_of_another_learner_are_refused(kept):
    with pytest.raises(ValueError, match=r"state\['w'\] is float32\[3\], not .*\[4\]"):
        states.restored(FORM | {"w": jax.ShapeDtypeStruct((4,), jnp.float32)}, kept)
    with pytest.raises(ValueError, match=r"state\['more'\] is None, not"):
        states.restored(FORM | {"more": FORM["w"]}, kept)
