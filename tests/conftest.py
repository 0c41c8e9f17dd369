"""Settings of all tests."""

import os
import pathlib

# Compiled programs are kept from run to run, for all workers and for the programs that
# tests start; where, and whether at all, is as JAX's own settings say.
_CACHE = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(_CACHE, "loplax", "tests"))
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402 - it reads the environment when it is imported
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

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


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Frees the compiled programs of a file of tests when it ends.

    Every one maps memory, and a process may have some 65,000 such maps: thousands of
    tests in one process end it.
    """
    yield
    jax.clear_caches()
