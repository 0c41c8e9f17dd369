"""ConvNeXt V2 for small images."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from loplax import checks, units
from loplax.nets import layers

EPSILON = 1e-6
# As PyTorch's trunc_normal_(std=.02), which cuts at +-2, a hundred deviations.
INITIAL = nn.initializers.normal(0.02)


class GlobalResponseNorm(nn.Module):
    r"""Lets the channels of an image compete.

    .. math::
      y_c = \gamma_c x_c \frac{\|x_c\|}{\operatorname{mean}_k \|x_k\| + 10^{-6}}
      + \beta_c + x_c

    with the norm over all places. :math:`\gamma` and :math:`\beta` start at 0, and so
    it starts as the identity.

    References:
      Woo et al., `ConvNeXt V2 <https://arxiv.org/abs/2301.00808>`_, 2023.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[..., height, width, channels]`` to the same shape."""
        scale = self.param("scale", nn.initializers.zeros, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        square = jnp.sum(jnp.square(x), axis=(-3, -2), keepdims=True)
        # The root has no gradient at 0: of a channel without activation, say.
        norm = jnp.sqrt(jnp.maximum(square, jnp.finfo(x.dtype).tiny))
        response = norm / (jnp.mean(norm, axis=-1, keepdims=True) + EPSILON)
        return scale * (x * response) + bias + x


class _Block(nn.Module):
    """A depthwise convolution, a pair of pointwise layers, and a skip connection."""

    side: int
    patches: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = x.shape[-1]
        options = {"padding": self.side // 2, "feature_group_count": size}
        y = _conv(size, self.side, "depthwise", self.patches, **options)(x)
        y = nn.LayerNorm(EPSILON, name="norm")(y)
        y = nn.gelu(_dense(4 * size, "expand")(y), approximate=False)
        y = GlobalResponseNorm(name="response_norm")(y)
        return x + _dense(size, "project")(y)


class ConvNeXt(nn.Module):
    """ConvNeXt V2: layer norms only, so that nothing is kept beside the parameters.

    A stem, stages of blocks, each but the first behind a convolution of stride 2, the
    mean over all places, a layer norm and the output layer. All dense layers, which are
    the pointwise ones and the output layer, can have adapters, see `low_rank`.

    The first stages can be a frozen trunk, whose outputs are computed once: `trunk`
    gives what stage ``begin`` takes, and the network that begins there has the
    parameters of the others only, under the same names.

    Attributes:
      outputs: number of outputs.
      dims: channels of each stage.
      depths: blocks of each stage.
      side: of the depthwise kernels, odd; 7 in the paper.
      patch: side and stride of the stem's kernel; 4 in the paper, for larger images.
      begin: the stage that is given the inputs, behind its convolution of stride 2; 0
        if these are images.
      patches: whether convolutions are matrix products of patches, the fast way within
        a loop on a CPU; see `units.convolve_patches`.

    Raises:
      ValueError: for sizes below 1, an even side, not as many depths as dims, a stage
        that there is not, or images that are too small.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> net = ConvNeXt(outputs=10, dims=(4, 8), depths=(1, 1), side=3)
      >>> images = jnp.ones((6, 8, 8, 3))
      >>> params = net.init(jax.random.key(0), images)["params"]
      >>> net.apply({"params": params}, images).shape
      (6, 10)
      >>> net.apply({"params": params}, images, method="embed").shape
      (6, 8)
      >>> maps = net.apply({"params": params}, images, 1, method="trunk")
      >>> rest = ConvNeXt(outputs=10, dims=(4, 8), depths=(1, 1), side=3, begin=1)
      >>> outputs = rest.apply({"params": params}, maps)
      >>> bool((outputs == net.apply({"params": params}, images)).all())
      True

    References:
      Woo et al., `ConvNeXt V2 <https://arxiv.org/abs/2301.00808>`_, 2023. Femto, which
      Harun & Kanan 2024 use, has dims 48, 96, 192, 384, depths 2, 2, 6, 2, patch 4.
    """

    outputs: int
    dims: Sequence[int] = (32, 64, 128, 256)
    depths: Sequence[int] = (1, 1, 2, 1)
    side: int = 7
    patch: int = 2
    begin: int = 0
    patches: bool = False

    def __post_init__(self):
        """Checks the attributes."""
        layers.check_sizes(
            outputs=(self.outputs,),
            dims=self.dims,
            depths=self.depths,
            side=(self.side,),
            patch=(self.patch,),
        )
        if self.side % 2 == 0:
            raise ValueError(f"side must be odd, got {self.side}.")
        if len(self.dims) != len(self.depths) or not self.dims:
            raise ValueError(
                f"dims and depths must be as many, got {self.dims} and {self.depths}."
            )
        checks.whole("begin", self.begin, 0)
        self._check_stage("begin", self.begin)
        super().__post_init__()

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[..., height, width, channels]`` to ``[..., outputs]``."""
        return self._layers(x)[1]

    def embed(self, x: jax.Array) -> jax.Array:
        """Maps images to what the output layer is given, ``[..., dims[-1]]``."""
        return self._layers(x)[0]

    def trunk(self, x: jax.Array, end: int) -> jax.Array:
        """Maps images to what stage ``end`` begins with.

        Args:
          x: images ``[..., height, width, channels]``.
          end: a stage after the first.

        Returns:
          ``[..., height, width, dims[end]]``.

        Raises:
          ValueError: if there is no such stage, or no images are given.
        """
        self._check_stage("end", end)
        if not self.begin < end:
            raise ValueError(f"end must be more than begin ({self.begin}), got {end}.")
        return self._layers(x, end)

    @nn.compact
    def _layers(self, x: jax.Array, end: int | None = None):
        norm = lambda name: nn.LayerNorm(EPSILON, name=name)
        conv = functools.partial(_conv, patches=self.patches)
        if self.begin == 0:
            self._check_images(x)
            x = conv(self.dims[0], self.patch, "stem", strides=self.patch)(x)
            x = norm("stem_norm")(x)
        for i, depth in enumerate(self.depths[self.begin :], self.begin):
            if i > self.begin:
                x = norm(f"down_norm_{i}")(x)
                x = conv(self.dims[i], 2, f"down_{i}", strides=2)(x)
            if i == end:
                return x
            for j in range(depth):
                x = _Block(self.side, self.patches, name=f"block_{i}_{j}")(x)
        x = norm("norm")(jnp.mean(x, axis=(-3, -2)))
        return x, _dense(self.outputs, "output")(x)

    def _check_stage(self, name: str, stage: int) -> None:
        if not 0 <= stage < len(self.dims):
            raise ValueError(
                f"{name} must be one of {len(self.dims)} stages from 0, got {stage}."
            )

    def _check_images(self, x: jax.Array) -> None:
        least = self.patch * 2 ** (len(self.dims) - 1)
        if min(x.shape[-3:-1]) < least:
            raise ValueError(
                f"images of {x.shape[-3]} x {x.shape[-2]} pixels are too small for "
                f"{len(self.dims)} stages and patch {self.patch}: at least {least}."
            )


def _conv(size: int, side: int, name: str, patches: bool, **options: Any) -> nn.Conv:
    options = {"padding": "VALID", "kernel_init": INITIAL, **options}
    if patches:
        options["conv_general_dilated"] = units.convolve_patches
    return nn.Conv(size, (side, side), name=name, **options)


def _dense(size: int, name: str) -> nn.Dense:
    return nn.Dense(size, kernel_init=INITIAL, name=name)
