"""Multi-layer perceptrons."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from loplax import units
from loplax.nets import layers


def _small_dot(x, kernel, dimension_numbers, **_):
    """`units.sum_of_products` in place of ``jax.lax.dot_general`` in a dense layer."""
    del dimension_numbers  # A dense layer contracts the last axis with the first.
    return units.sum_of_products(x, kernel)


class MLP(nn.Module):
    """Fully connected layers with one activation, and a linear output layer.

    Biases start at 0. Without hidden layers it is a linear model.

    Attributes:
      hidden: units per hidden layer.
      outputs: number of outputs.
      activation: a name in ``ACTIVATIONS``. A unit of ``"crelu"`` has two outputs:
        halve ``hidden`` to keep the next layers' inputs as many (see `crelu`).
      normalization: ``"none"``, or ``"layer"`` for a layer norm before each activation.
      final_norm: whether a layer norm stands before the output layer.
      kernel_init: initialiser of all kernels, ``(key, shape, dtype) -> array``; by
        default `kaiming_uniform`, of the activation and, for the outputs, ``"linear"``.
      small: whether to compute the layers as `units.sum_of_products`.

    Raises:
      ValueError: for an unknown name, or a layer without units.

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
    normalization: str = "none"
    final_norm: bool = False
    kernel_init: jax.nn.initializers.Initializer | None = None
    small: bool = False

    def __post_init__(self):
        """Checks the attributes."""
        layers.check(
            self.activation,
            self.normalization,
            hidden=self.hidden,
            outputs=(self.outputs,),
        )
        super().__post_init__()

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[..., inputs]`` to ``[..., outputs]``."""
        return self._layers(x)[1]

    def embed(self, x: jax.Array) -> jax.Array:
        """Maps ``[..., inputs]`` to what the output layer is given."""
        return self._layers(x)[0]

    @nn.compact
    def _layers(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        dot = _small_dot if self.small else None
        activate, _ = layers.ACTIVATIONS[self.activation]
        init = self.kernel_init or layers.kaiming_uniform(self.activation)
        for i, size in enumerate(self.hidden):
            x = nn.Dense(size, kernel_init=init, name=f"hidden_{i}", dot_general=dot)(x)
            if self.normalization == "layer":
                x = nn.LayerNorm(name=f"norm_{i}")(x)
            x = activate(x)
        if self.final_norm:
            x = nn.LayerNorm(name="final_norm")(x)
        init = self.kernel_init or layers.kaiming_uniform("linear")
        output = nn.Dense(
            self.outputs, kernel_init=init, name="output", dot_general=dot
        )
        return x, output(x)
