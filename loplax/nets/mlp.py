"""Multi-layer perceptrons."""

import math
from collections.abc import Sequence

import jax
from flax import linen as nn

from loplax import units

# Each activation with the gain of its Kaiming initialisation, as PyTorch and the
# authors of continual backprop set it (elu and swish count as relu).
ACTIVATIONS = {
    "relu": (nn.relu, math.sqrt(2)),
    "leaky_relu": (nn.leaky_relu, math.sqrt(2 / (1 + 0.01**2))),
    "elu": (nn.elu, math.sqrt(2)),
    "swish": (nn.swish, math.sqrt(2)),
    "tanh": (nn.tanh, 5 / 3),
    "sigmoid": (nn.sigmoid, 1.0),
}


def kaiming_uniform(activation: str) -> nn.initializers.Initializer:
    """Uniform on +- gain * sqrt(3 / fan_in), with the activation's gain.

    Args:
      activation: a name in ``ACTIVATIONS``, or ``"linear"`` (gain 1).

    Returns:
      ``(key, shape, dtype) -> array``.

    Raises:
      ValueError: for an unknown name.

    Example:
      >>> import jax
      >>> w = kaiming_uniform("relu")(jax.random.key(0), (24, 5))
      >>> bool(abs(w).max() <= 0.5)
      True
    """
    gains = {name: gain for name, (_, gain) in ACTIVATIONS.items()} | {"linear": 1.0}
    if activation not in gains:
        raise ValueError(
            f"activation must be one of {list(gains)}, got {activation!r}."
        )
    return nn.initializers.variance_scaling(gains[activation] ** 2, "fan_in", "uniform")


def _small_dot(x, kernel, dimension_numbers, **_):
    """`units.sum_of_products` in place of ``jax.lax.dot_general`` in a dense layer."""
    del dimension_numbers  # A dense layer contracts the last axis with the first.
    return units.sum_of_products(x, kernel)


class MLP(nn.Module):
    """Fully connected layers with one activation, and a linear output layer.

    Biases start at 0, kernels at `kaiming_uniform`. Without hidden layers it is a
    linear model.

    Attributes:
      hidden: units per hidden layer.
      outputs: number of outputs.
      activation: a name in ``ACTIVATIONS``.
      small: whether to compute the layers as `units.sum_of_products`.

    Raises:
      ValueError: for an unknown activation, or a layer without units.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> net = MLP(hidden=(5,), outputs=1)
      >>> params = net.init(jax.random.key(0), jnp.ones(20))["params"]
      >>> net.apply({"params": params}, jnp.ones((7, 20))).shape
      (7, 1)
    """

    hidden: Sequence[int]
    outputs: int
    activation: str = "relu"
    small: bool = False

    def __post_init__(self):
        """Checks the attributes."""
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {list(ACTIVATIONS)}, got "
                f"{self.activation!r}."
            )
        sizes = (*self.hidden, self.outputs)
        if not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise ValueError(
                f"hidden and outputs must be integers of at least 1, got "
                f"hidden={self.hidden}, outputs={self.outputs}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[..., inputs]`` to ``[..., outputs]``."""
        dot = {"dot_general": _small_dot} if self.small else {}
        activate, _ = ACTIVATIONS[self.activation]
        for i, size in enumerate(self.hidden):
            init = kaiming_uniform(self.activation)
            x = activate(nn.Dense(size, kernel_init=init, name=f"hidden_{i}", **dot)(x))
        init = kaiming_uniform("linear")
        return nn.Dense(self.outputs, kernel_init=init, name="output", **dot)(x)
