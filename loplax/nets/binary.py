"""Binarised networks."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from loplax.nets import binary_layers, layers


class BinaryMLP(nn.Module):
    """Fully connected binary layers, each with a norm; the outputs have one too.

    A layer is `BinaryDense`, a norm and, but for the outputs, `sign_hardtanh`. The
    parameters of the norm of a layer ``hidden_0`` are under ``hidden_0/norm``.

    Batch norm is PyTorch's (epsilon 1e-5, :math:`.9` of the old statistics and
    :math:`.1` of the new), but for its unbiased estimate of the running variance.

    Attributes:
      hidden: units per hidden layer.
      outputs: number of outputs.
      normalization: ``"batch"``, or ``"layer"`` for a norm of each example alone.
      affine: whether norms have a scale and a bias.
      running: whether batch norm evaluates with running statistics, the
        ``batch_stats``; else with those of the batch that it is given, always: what an
        example gets then depends on the others, and a batch of one gets nothing but
        biases. There are no statistics to keep.
      binary: whether weights and activations are binarised. If not, the same layers
        have real weights and ReLU: the network that the binarised one is compared with.
      binarize_input: whether to take `sign_hardtanh` of the inputs first.
      dropout: rate after each hidden layer, in training; it needs
        ``rngs={"dropout": key}``. A dropped activation is 0, the others stay +-1.
      kernel_init: initialiser of all (latent) weights.

    Raises:
      ValueError: for an unknown name, a layer without units, or a rate out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> net, x = BinaryMLP(hidden=(8, 8), outputs=3), jnp.ones((5, 4))
      >>> variables = net.init(jax.random.key(0), x)
      >>> sorted(variables), sorted(variables["params"]["hidden_0"])
      (['batch_stats', 'params'], ['kernel', 'norm'])
      >>> y, new = net.apply(variables, x, train=True, mutable=["batch_stats"])
      >>> net.apply(variables, x).shape
      (5, 3)

    References:
      Laborieux et al., `Synaptic metaplasticity in binarized neural networks
      <https://doi.org/10.1038/s41467-021-22768-y>`_, Nature Communications 12, 2021,
      and the authors' code.
    """

    hidden: Sequence[int]
    outputs: int
    normalization: str = "batch"
    affine: bool = True
    running: bool = True
    binary: bool = True
    binarize_input: bool = False
    dropout: float = 0.0
    kernel_init: nn.initializers.Initializer = binary_layers.latent_uniform()

    def __post_init__(self):
        """Checks the attributes."""
        _check(self, hidden=self.hidden)
        super().__post_init__()

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps inputs to outputs.

        Args:
          x: ``[..., inputs]``.
          train: whether batch norm uses, and keeps, the statistics of this batch.

        Returns:
          ``[..., outputs]``.
        """
        return self._layers(x, train)[1]

    def embed(self, x: jax.Array) -> jax.Array:
        """Maps ``[..., inputs]`` to what the output layer is given."""
        return self._layers(x, False)[0]

    @nn.compact
    def _layers(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        norms = self.normalization, self.affine, self.running

        def layer(size, name):
            options: dict[str, Any] = {"kernel_init": self.kernel_init, "parent": None}
            dense: nn.Module
            if self.binary:
                dense = binary_layers.BinaryDense(size, **options)
            else:
                dense = nn.Dense(size, use_bias=False, **options)
            return binary_layers.Normed(dense, *norms, name=name)

        x = binary_layers.sign_hardtanh(x) if self.binarize_input else x
        for i, size in enumerate(self.hidden):
            x = layer(size, f"hidden_{i}")(x, train)
            x = binary_layers.sign_hardtanh(x) if self.binary else nn.relu(x)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
                x = binary_layers.sign_identity(x) if self.binary else x
        return x, layer(self.outputs, "output")(x, train)


class BinaryVGG(nn.Module):
    """Binary convolutions of 3x3 with norms and pools, then a `BinaryMLP`.

    Every layer is a `BinaryConv`, after every second one a 2x2 max pool, a norm and
    `sign_hardtanh`. All but the last convolution are padded: 32x32 images leave a map
    of 3x3. The gradient of a pool is divided between values that are equal, which sums
    of signs often are; PyTorch's goes to the first.

    Attributes:
      outputs: number of outputs.
      filters: units per convolution.
      hidden: units per fully connected hidden layer.
      normalization: as in `BinaryMLP`; the layer norm of a convolution takes the mean
        and variance of an image's whole map.
      affine: likewise.
      running: likewise.
      binarize_input: likewise.
      dropout: likewise, after the fully connected layers; the paper has 0.5.
      kernel_init: likewise; the authors' code for this network draws from
        ``jax.nn.initializers.xavier_normal()``.
      patches: as in `ConvNet`.

    Raises:
      ValueError: as `BinaryMLP`; when called, for images that are too small.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> net, images = BinaryVGG(outputs=10), jnp.ones((7, 32, 32, 3))
      >>> shapes = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
      >>> shapes["dense"]["hidden_0"]["kernel"].shape
      (4608, 2048)

    References:
      As `BinaryMLP`, CIFAR-10 in pieces.
    """

    outputs: int
    filters: Sequence[int] = (128, 128, 256, 256, 512, 512)
    hidden: Sequence[int] = (2048, 2048)
    normalization: str = "batch"
    affine: bool = True
    running: bool = True
    binarize_input: bool = False
    dropout: float = 0.0
    kernel_init: nn.initializers.Initializer = binary_layers.latent_uniform()
    patches: bool = False

    def __post_init__(self):
        """Checks the attributes."""
        _check(self, hidden=self.hidden, filters=self.filters)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images ``[..., height, width, channels]`` to ``[..., outputs]``."""
        norms = self.normalization, self.affine, self.running
        options: dict[str, Any] = {"kernel_init": self.kernel_init}
        shape = x.shape
        x = binary_layers.sign_hardtanh(x) if self.binarize_input else x
        for i, size in enumerate(self.filters):
            padding, pool = int(i + 1 < len(self.filters)), i % 2 == 1
            if min(x.shape[-3:-1]) < 3 + pool - 2 * padding:
                raise ValueError(f"images of shape {shape} are too small for conv_{i}.")
            conv = binary_layers.BinaryConv(
                size, padding=padding, patches=self.patches, parent=None, **options
            )
            layer = binary_layers.Normed(conv, *norms, pool, name=f"conv_{i}")
            x = binary_layers.sign_hardtanh(layer(x, train))
        x = x.reshape(*x.shape[:-3], -1)
        options |= {"dropout": self.dropout}
        return BinaryMLP(self.hidden, self.outputs, *norms, name="dense", **options)(
            x, train
        )


def _check(net: BinaryMLP | BinaryVGG, **sizes: Sequence[int]) -> None:
    """Raises ``ValueError`` unless the attributes are in range."""
    layers.check_sizes(outputs=(net.outputs,), **sizes)
    layers.check_choice("normalization", net.normalization, ("batch", "layer"))
    if not 0 <= net.dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {net.dropout}.")
