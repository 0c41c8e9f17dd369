"""Half and double precision: no intermediate result overflows, vanishes or is rounded.

Of a step in float16 only the input and the result are rounded: it is the step of the
same numbers in float32, also where sums, squares and products of them are no numbers of
float16.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

KEY = jax.random.key(0)
STILL, DOUBLE = optax.sgd(0.0), optax.sgd(16.0)  # the latter goes from p to 2 p
SEVEN = jax.nn.initializers.constant(7.0)
CASES = {
    "l2_init": lambda s: optax.chain(optim.l2_init(0.1), optax.scale(-1.0)),
    "wasserstein": lambda s: optax.chain(
        optim.wasserstein_regularization(0.1), optax.scale(-1.0)
    ),
    "parseval": lambda s: optax.chain(
        optim.parseval_regularization(0.01 / s**2, scale=s**2), optax.scale(-1.0)
    ),
    "spectral": lambda s: optax.chain(
        optim.spectral_regularization(0.01 / s**2), optax.scale(-1.0)
    ),
    "normalize_and_project": lambda s: optim.normalize_and_project(DOUBLE),
    "weight_clipping": lambda s: optim.weight_clipping(DOUBLE, kappa=1.0),
    "hare_tortoise": lambda s: optim.hare_tortoise(STILL, momentum=0.25, period=1),
    "shrink_and_perturb": lambda s: optim.shrink_and_perturb(
        STILL, shrink=0.3, key=KEY
    ),
    "upgd": lambda s: optim.upgd(1.0, noise_scale=0.0, weight_decay=0.1, key=KEY),
    "selective_weight_reinitialization": lambda s: (
        optim.selective_weight_reinitialization(
            STILL, factor=0.5, period=1, initializer=SEVEN, key=KEY
        )
    ),
}


def consolidated(tx, *importance):
    """Held where it begins, with the importances of the parameters' paths."""
    init = lambda params: tx.consolidate(tx.init(params), params, *importance)
    return optax.GradientTransformationExtraArgs(init, tx.update)


ONES = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
CASES |= {
    "elastic_weight_consolidation": lambda s: optax.chain(
        consolidated(optim.elastic_weight_consolidation(0.1), ONES), optax.scale(-1.0)
    ),
    "memory_aware_synapses": lambda s: optax.chain(
        consolidated(optim.memory_aware_synapses(0.1), ONES), optax.scale(-1.0)
    ),
    "synaptic_intelligence": lambda s: consolidated(
        optim.synaptic_intelligence(optax.sgd(1.0), strength=0.1)
    ),
}
PATTERN = np.array([[0.25, -0.9375, 0.5], [0.75, 0.375, -0.125]])


SCALES = np.array([2.0**-13, 1.0, 2.0**16])


@pytest.mark.parametrize("name", CASES)
def test_a_step_in_float16(name):
    """From minus its initial weights p, along gradients of -p / 16."""

    def after(scale, dtype):
        leaf = (scale * PATTERN).astype(dtype)
        params = {"w": leaf, "b": leaf[0] / 4}
        tx, other = CASES[name](scale), jax.tree.map(jnp.negative, params)
        grads = jax.tree.map(lambda p: -p / 16, params)
        updates, _ = tx.update(grads, tx.init(other), params)
        return optax.apply_updates(params, updates)

    many = jax.jit(jax.vmap(after, (0, None)), static_argnums=1)
    found, expected = (many(jnp.float32(SCALES), dtype) for dtype in ("f2", "f4"))
    for leaf, wide in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert leaf.dtype == jnp.float16
        for scale, a, b in zip(SCALES, np.asarray(leaf, np.float32), wide, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * scale)
