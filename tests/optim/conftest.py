"""A small network written out as units, with gradients and activations at random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import units

W = units.WeightAxis


class Net:
    """Two hidden layers of four units, ``a`` and ``b``; ``w1`` lies between them."""

    shapes = {
        "b0": (4,),
        "b1": (4,),
        "b2": (2,),
        "w0": (3, 4),
        "w1": (4, 4),
        "w2": (4, 2),
    }
    groups = (
        units.UnitGroup("a", 4, (W("w0", 1),), (W("b0", 0),), (), (W("w1", 0),)),
        units.UnitGroup("b", 4, (W("w1", 1),), (W("b1", 0),), (), (W("w2", 0),)),
    )

    def random(self, seed, lead=(), dtype=jnp.float32):
        """Normal parameters (or gradients) with leading axes ``lead``."""
        rng = np.random.default_rng(seed)
        draw = lambda shape: jnp.asarray(rng.normal(size=(*lead, *shape)), dtype)
        return {name: draw(shape) for name, shape in self.shapes.items()}

    def features(self, seed, lead=(), *, silent=None):
        """Positive activations; unit ``silent[name]`` of a layer is 0."""
        rng = np.random.default_rng(seed)
        features = {}
        for group in self.groups:
            h = rng.uniform(0.5, 1.5, size=(*lead, 5, 4)).astype(np.float32)
            if silent is not None:
                h[..., silent[group.name]] = 0.0
            features[group.name] = jnp.asarray(h)
        return features

    def owned(self, replaced):
        """Per parameter, the weights (NumPy masks) of the replaced units."""
        mask = {name: np.zeros(shape, bool) for name, shape in self.shapes.items()}
        a, b = (np.flatnonzero(replaced[name]) for name in "ab")
        mask["w0"][:, a] = mask["b0"][a] = mask["w1"][a, :] = True
        mask["w1"][:, b] = mask["b1"][b] = mask["w2"][b, :] = True
        return mask


@pytest.fixture(scope="session")
def net():
    """The network."""
    return Net()


@pytest.fixture(autouse=True)
def no_key_reuse():
    """Fails tests that consume a random key twice."""
    with jax.debug_key_reuse(True):
        yield


@pytest.fixture(autouse=True)
def quick_compile():
    """Compiles with few optimisations: most tests compile more than they compute."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
