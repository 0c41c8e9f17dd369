"""ResNet-18 for small images, as in the study of class-incremental CIFAR-100."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from loplax import units
from loplax.nets import layers

BLOCKS = 8


def _conv(module, filters: int, side: int, stride: int = 1, *, name: str) -> nn.Conv:
    # The padding of PyTorch; "SAME" would pad one side only where the stride is 2.
    options: dict[str, Any] = {"strides": stride, "padding": side // 2}
    options["kernel_init"] = layers.kaiming_normal("relu")
    if module.patches:
        options["conv_general_dilated"] = units.convolve_patches
    return nn.Conv(filters, (side, side), name=name, **options)


def _norm(train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)


class _Block(nn.Module):
    """Two convolutions and a skip connection; returns both activations."""

    filters: int
    stride: int
    patches: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        y = _conv(self, self.filters, 3, self.stride, name="conv_0")(x)
        inner = nn.relu(_norm(train, "norm_0")(y))
        y = _norm(train, "norm_1")(_conv(self, self.filters, 3, name="conv_1")(inner))
        if self.stride > 1:
            x = _conv(self, self.filters, 1, self.stride, name="skip")(x)
            x = _norm(train, "skip_norm")(x)
        return inner, nn.relu(y + x)


class ResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem of stride 1, no max pooling, and biases everywhere.

    Kernels start at `kaiming_normal`, biases at 0. Batch norm keeps its running
    statistics as PyTorch does (:math:`.9` of the old, :math:`.1` of the new), but for
    the running variance, of which PyTorch takes the unbiased estimate: with ``n``
    values per unit and batch, it is ``n / (n - 1)`` of the one here.

    Attributes:
      outputs: number of outputs.
      width: units of the stem and the first of four stages; each next one has twice as
        many.
      patches: as in `ConvNet`.

    Raises:
      ValueError: for sizes below 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> net = ResNet18(outputs=10, width=4)
      >>> images = jnp.ones((6, 8, 8, 3))
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), images)
      >>> params, stats = variables["params"], variables["batch_stats"]
      >>> def apply(params, stats, x):
      ...   variables = {"params": params, "batch_stats": stats}
      ...   y, new = net.apply(variables, x, train=True, mutable=["batch_stats"])
      ...   return y, new["batch_stats"]
      >>> y, stats = jax.eval_shape(apply, params, stats, images)
      >>> y.shape
      (6, 10)

    References:
      He et al., `Deep residual learning for image recognition
      <https://arxiv.org/abs/1512.03385>`_, 2015; Dohare et al., `Loss of plasticity in
      deep continual learning <https://doi.org/10.1038/s41586-024-07711-7>`_, Nature
      632, 2024, class-incremental CIFAR-100.
    """

    outputs: int
    width: int = 64
    patches: bool = False

    def __post_init__(self):
        """Checks the attributes."""
        layers.check_sizes(outputs=(self.outputs,), width=(self.width,))
        super().__post_init__()

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images to outputs.

        Args:
          x: ``[..., height, width, channels]``.
          train: whether batch norm uses, and keeps, the statistics of this batch.

        Returns:
          ``[..., outputs]``.
        """
        return self.with_features(x, train)[0]

    @nn.compact
    def with_features(
        self, x: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps images to outputs, and returns the activations.

        Args:
          x: as for calling the network.
          train: likewise.

        Returns:
          The outputs, and for each group of `resnet18_reference_units` its activations
          ``[..., size]``.
        """
        features = {}
        x = nn.relu(
            _norm(train, "stem_norm")(_conv(self, self.width, 3, name="stem")(x))
        )
        features["stem"] = x
        for i in range(BLOCKS):
            filters, stride = self.width * 2 ** (i // 2), 2 if i in (2, 4, 6) else 1
            inner, x = _Block(filters, stride, self.patches, name=f"block_{i}")(
                x, train
            )
            features |= {f"block_{i}/conv_0": inner, f"block_{i}/conv_1": x}
        x = jnp.mean(x, axis=(-3, -2))
        features[f"block_{BLOCKS - 1}/conv_1"] = x
        init = layers.kaiming_normal("linear")
        return nn.Dense(self.outputs, kernel_init=init, name="output")(x), features


def resnet18_reference_units(width: int = 64) -> units.Units:
    """The units of `ResNet18` as the authors of continual backprop read them.

    The network is taken for a chain: every convolution but those on skip connections is
    a layer of its own, and its only reader is the next convolution. ``units.find``
    gives the exact reading, in which all layers that write one residual stream share
    its units. The matching activations come from ``ResNet18.with_features``; those of
    the last layer are averaged over the image.

    Args:
      width: the network's width.

    Returns:
      The 17 groups in forward order.

    Example:
      >>> groups = resnet18_reference_units()
      >>> groups[1].name, groups[1].size, groups[1].outgoing[0].path
      ('block_0/conv_0', 64, 'block_0/conv_1/kernel')

    References:
      `res_gnt.py <https://github.com/shibhansh/loss-of-plasticity>`_ of the authors.
    """
    blocks = range(BLOCKS)
    names = ["stem", *(f"block_{i}/conv_{j}" for i in blocks for j in range(2))]
    norms = ["stem_norm", *(name.replace("conv", "norm") for name in names[1:])]
    sizes = [width, *(width * 2 ** (i // 2) for i in blocks for _ in range(2))]
    readers = [*names[1:], "output"]
    found = []
    for name, norm, size, reader in zip(names, norms, sizes, readers, strict=True):
        biases = (f"{name}/bias", f"{norm}/bias")
        inputs = 0 if reader == "output" else 2
        group = units.UnitGroup(
            name=name,
            size=size,
            incoming=(units.WeightAxis(f"{name}/kernel", 3),),
            biases=tuple(units.WeightAxis(path, 0) for path in biases),
            scales=(units.WeightAxis(f"{norm}/scale", 0),),
            outgoing=(units.WeightAxis(f"{reader}/kernel", inputs),),
        )
        found.append(group)
    return units.Units(found)
