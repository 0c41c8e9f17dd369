"""Settings of all tests."""

import jax
import pytest
from hypothesis import settings

# Examples are drawn alike in every run, and may take as long as a compilation takes.
settings.register_profile("loplax", deadline=None, derandomize=True)
settings.load_profile("loplax")


@pytest.fixture(scope="module")
def quick_compile():
    """Compiles with few optimisations: most tests compile more than they compute."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
