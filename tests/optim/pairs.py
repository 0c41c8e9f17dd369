"""A transformation of distributions as one of plain parameters."""

import jax
import jax.numpy as jnp
import optax

from loplax import optim


def of_means(tx, deviation=0.5):
    """The means' part of ``tx``, where all deviations are the same and stay."""

    def update(grads, state, params=None, **extra):
        nothing = jax.tree.map(jnp.zeros_like, grads)
        weights = None if params is None else optim.gaussian(params, deviation)
        pairs = optim.Gaussian(grads, nothing)
        updates, state = tx.update(pairs, state, weights, **extra)
        return updates.mean, state

    init = lambda params: tx.init(optim.gaussian(params, deviation))
    return optax.GradientTransformationExtraArgs(init, update)
