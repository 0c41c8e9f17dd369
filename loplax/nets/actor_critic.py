"""Policy and value networks for reinforcement learning."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from loplax.nets import mlp


class ActorCritic(nn.Module):
    """Two separate `MLP`: one for the policy, one for the value.

    The policy is categorical, or Gaussian with a standard deviation that does not
    depend on the observation and starts at 1. Kernels start at ``lecun_uniform``,
    biases at 0.

    Attributes:
      hidden: units per hidden layer, of each network.
      actions: number of actions, or of their components.
      continuous: whether the policy is Gaussian.
      activation: as in `MLP`.
      normalization: as in `MLP`.

    Raises:
      ValueError: for an unknown name, or a layer without units.

    Example:
      >>> net = ActorCritic(hidden=(8, 8), actions=2, continuous=True)
      >>> params = net.init(jax.random.key(0), jnp.ones(3))["params"]
      >>> (mean, log_std), value = net.apply({"params": params}, jnp.ones((5, 3)))
      >>> mean.shape, log_std.shape, value.shape
      ((5, 2), (5, 2), (5,))

    References:
      Dohare et al., `Loss of plasticity in deep continual learning
      <https://doi.org/10.1038/s41586-024-07711-7>`_, Nature 632, 2024, Methods.
    """

    hidden: Sequence[int]
    actions: int
    continuous: bool
    activation: str = "relu"
    normalization: str = "none"

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[Any, jax.Array]:
        """Maps observations ``[..., inputs]`` to outputs and values ``[...]``."""
        options: dict[str, Any] = {
            "activation": self.activation,
            "normalization": self.normalization,
            "kernel_init": jax.nn.initializers.lecun_uniform(),
        }
        policy = mlp.MLP(self.hidden, self.actions, **options, name="policy")(x)
        value = mlp.MLP(self.hidden, 1, **options, name="value")(x)[..., 0]
        if not self.continuous:
            return policy, value
        log_std = self.param("log_std", nn.initializers.zeros, (self.actions,))
        return (policy, jnp.broadcast_to(log_std, policy.shape)), value
