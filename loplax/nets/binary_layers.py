"""Binary layers: weights and activations of +-1, and latent weights that learn."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from loplax import units
from loplax.nets import pooling


def sign_identity(w: jax.Array) -> jax.Array:
    r"""The sign of latent weights, with the derivative of the identity.

    .. math::
      b = \operatorname{sign}(w), \quad \operatorname{sign}(0) = 0, \quad
      \partial b / \partial w := 1

    for all :math:`w`: latent weights beyond +-1 learn as well.

    Args:
      w: latent weights.

    Returns:
      -1, 0 or 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> w = jnp.array([-0.1, 0.0, 3.0])
      >>> sign_identity(w).tolist()
      [-1.0, 0.0, 1.0]
      >>> jax.grad(lambda w: sign_identity(w).sum())(w).tolist()
      [1.0, 1.0, 1.0]

    References:
      Hubara et al., `Binarized neural networks <https://arxiv.org/abs/1602.02830>`_,
      2016; without their cancellation, Laborieux et al., `Synaptic metaplasticity in
      binarized neural networks <https://doi.org/10.1038/s41467-021-22768-y>`_, Nature
      Communications 12, 2021.
    """
    return _sign_identity(w)


def sign_hardtanh(x: jax.Array) -> jax.Array:
    r"""The sign of activations, with the derivative of :math:`\max(-1, \min(x, 1))`.

    .. math::
      y = \operatorname{sign}(x), \quad \operatorname{sign}(0) = 0, \quad
      \partial y / \partial x := 1 \text{ where } |x| \le 1, \text{ else } 0

    Args:
      x: pre-activations.

    Returns:
      -1, 0 or 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.array([-1.5, -1.0, 0.0, 0.3])
      >>> sign_hardtanh(x).tolist()
      [-1.0, -1.0, 0.0, 1.0]
      >>> jax.grad(lambda x: sign_hardtanh(x).sum())(x).tolist()
      [0.0, 1.0, 1.0, 1.0]

    References:
      As `sign_identity`.
    """
    return _sign_hardtanh(x)


# As custom_jvp they also have second derivatives and forward ones; custom_vjp has none.
_sign_identity = jax.custom_jvp(jnp.sign)
_sign_identity.defjvps(lambda tangent, out, w: tangent)
_sign_hardtanh = jax.custom_jvp(jnp.sign)
_sign_hardtanh.defjvps(
    lambda tangent, out, x: jnp.where(jnp.abs(x) <= 1, tangent, jnp.zeros_like(tangent))
)


def latent_uniform(width: float = 0.1) -> nn.initializers.Initializer:
    """Uniform on +- width / 2, whatever the shape.

    Args:
      width: of the interval.

    Returns:
      ``(key, shape, dtype) -> array``.

    Example:
      >>> import jax
      >>> w = latent_uniform()(jax.random.key(0), (25, 400))
      >>> round(float(abs(w).max()), 3)
      0.05
    """

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -width / 2, width / 2)

    return init


class BinaryDense(nn.Module):
    r"""A fully connected layer of weights +-1, without bias.

    .. math::
      y = x \operatorname{sign}(W)

    Attributes:
      features: number of outputs.
      kernel_init: initialiser of the latent weights :math:`W`, the parameter
        ``kernel``, kept in float32: in half precision small steps would be lost.
      binarize_input: whether to take `sign_hardtanh` of the input first.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> layer, x = BinaryDense(3), jnp.ones((2, 5))
      >>> variables = layer.init(jax.random.key(0), x)
      >>> signs = jnp.sign(variables["params"]["kernel"])
      >>> bool((layer.apply(variables, x) == x @ signs).all())
      True
    """

    features: int
    kernel_init: nn.initializers.Initializer = latent_uniform()
    binarize_input: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[..., inputs]`` to ``[..., features]``."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = sign_hardtanh(x) if self.binarize_input else x
        return x @ sign_identity(kernel)


class BinaryConv(nn.Module):
    """A convolution of stride 1 with weights +-1, without bias.

    Attributes:
      features: number of outputs.
      side: height and width of the kernel.
      padding: zeros around the image; they are no signs.
      kernel_init: as in `BinaryDense`.
      binarize_input: likewise.
      patches: as in `ConvNet`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> layer, images = BinaryConv(4, padding=1), jnp.ones((2, 6, 6, 3))
      >>> layer.init_with_output(jax.random.key(0), images)[0].shape
      (2, 6, 6, 4)
    """

    features: int
    side: int = 3
    padding: int = 0
    kernel_init: nn.initializers.Initializer = latent_uniform()
    binarize_input: bool = False
    patches: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[..., height, width, channels]`` to images of ``features``."""
        shape = (self.side, self.side, x.shape[-1], self.features)
        kernel = sign_identity(
            self.param("kernel", self.kernel_init, shape, jnp.float32)
        )
        x = sign_hardtanh(x) if self.binarize_input else x
        images, edges = (
            x.reshape(-1, *x.shape[-3:]),
            ((self.padding, self.padding),) * 2,
        )
        if self.patches:
            y = units.convolve_patches(images, kernel, (1, 1), edges)
        else:
            names = ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(
                images, kernel, (1, 1), edges, dimension_numbers=names
            )
        return y.reshape(*x.shape[:-3], *y.shape[1:])


class Normed(nn.Module):
    """A layer, a pool and a norm, whose parameters are all under one name.

    Attributes:
      layer: the layer; its parameters are those of this module.
      normalization: as in `BinaryMLP`.
      affine: likewise.
      running: likewise.
      pool: whether a 2x2 max pool stands before the norm.
    """

    layer: nn.Module
    normalization: str
    affine: bool
    running: bool
    pool: bool = False

    def setup(self):
        """Gives the layer's parameters the name of this module."""
        nn.share_scope(self, self.layer)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps what the layer takes to what it gives, pooled and normalised."""
        x = self.layer(x)
        x = pooling.max_pool(x) if self.pool else x
        affine = {"use_scale": self.affine, "use_bias": self.affine}
        options: dict[str, Any] = {"epsilon": 1e-5, "name": "norm", **affine}
        if self.normalization == "batch" and self.running:
            return nn.BatchNorm(not train, momentum=0.9, **options)(x)
        image = range(-3, 0) if isinstance(self.layer, BinaryConv) else (-1,)
        axes = range(x.ndim - 1) if self.normalization == "batch" else image
        return nn.LayerNorm(reduction_axes=tuple(axes), feature_axes=-1, **options)(x)
