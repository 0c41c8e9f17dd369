"""Settings of the contract table."""

import jax
import pytest


@pytest.fixture(autouse=True)
def quick_compile():
    """Compiles with few optimisations: the table compiles more than it computes."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
