"""The convolutional network of Continual ImageNet."""

import functools
from collections.abc import Sequence

import jax
from flax import linen as nn

from loplax import units
from loplax.nets import layers, mlp, pooling


class ConvNet(nn.Module):
    """Convolutions with 2x2 max pooling, then fully connected layers.

    Convolutions and pools are not padded: an image of 32x32 leaves a map of 2x2.
    Biases start at 0; those of the authors' code as the kernels do.

    Attributes:
      outputs: number of outputs.
      filters: units per convolution.
      kernels: height and width of each convolution's kernel.
      hidden: units per fully connected hidden layer.
      activation: as in `MLP`.
      normalization: as in `MLP`. The layer norm of a convolution takes the mean and
        variance of an image's whole map, and has a scale and shift per unit.
      kernel_init: as in `MLP`; the authors' is `pytorch_uniform`.
      patches: whether convolutions are matrix products of patches, the fast way within
        a loop on a CPU; see `units.convolve_patches`.

    Raises:
      ValueError: for an unknown name, a layer without units, or as many kernels as
        there are not filters; when called, for images that are too small.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> net = ConvNet(outputs=2)
      >>> images = jnp.ones((7, 32, 32, 3))
      >>> shapes = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
      >>> jax.eval_shape(net.apply, {"params": shapes}, images).shape
      (7, 2)

    References:
      Dohare et al., `Loss of plasticity in deep continual learning
      <https://doi.org/10.1038/s41586-024-07711-7>`_, Nature 632, 2024, Continual
      ImageNet.
    """

    outputs: int
    filters: Sequence[int] = (32, 64, 128)
    kernels: Sequence[int] = (5, 3, 3)
    hidden: Sequence[int] = (128, 128)
    activation: str = "relu"
    normalization: str = "none"
    kernel_init: jax.nn.initializers.Initializer | None = None
    patches: bool = False

    def __post_init__(self):
        """Checks the attributes."""
        layers.check(
            self.activation,
            self.normalization,
            outputs=(self.outputs,),
            filters=self.filters,
            kernels=self.kernels,
            hidden=self.hidden,
        )
        if len(self.kernels) != len(self.filters):
            raise ValueError(
                f"kernels must be as many as filters, got kernels={self.kernels}, "
                f"filters={self.filters}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[..., height, width, channels]`` to ``[..., outputs]``."""
        shape = x.shape
        activate, _ = layers.ACTIVATIONS[self.activation]
        init = self.kernel_init or layers.kaiming_uniform(self.activation)
        how = units.convolve_patches if self.patches else None
        for i, (size, side) in enumerate(zip(self.filters, self.kernels, strict=True)):
            if min(x.shape[-3:-1]) <= side:
                raise ValueError(f"images of shape {shape} are too small for conv_{i}.")
            conv = functools.partial(nn.Conv, padding="VALID", kernel_init=init)
            x = conv(size, (side, side), name=f"conv_{i}", conv_general_dilated=how)(x)
            if self.normalization == "layer":
                norm = functools.partial(nn.LayerNorm, reduction_axes=(-3, -2, -1))
                x = norm(feature_axes=-1, name=f"norm_{i}")(x)
            x = pooling.max_pool(activate(x))
        x = x.reshape(*x.shape[:-3], -1)
        dense = (self.hidden, self.outputs, self.activation, self.normalization)
        return mlp.MLP(*dense, kernel_init=self.kernel_init, name="dense")(x)
