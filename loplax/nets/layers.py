"""What the layers of several networks share: activations and initial weights."""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn


def crelu(x: jax.Array) -> jax.Array:
    r"""Concatenated ReLU: ``[..., n]`` to ``[..., 2 n]``.

    .. math::
      h = [\max(x, 0), \max(-x, 0)]

    Every unit has two outputs, of which one is not 0: it cannot die. Half the units of
    a ReLU layer give the next layer as many inputs as before; :math:`1 / \sqrt 2` of
    them in every layer leave as many weights between two hidden layers as before.

    Args:
      x: pre-activations.

    Returns:
      The activations.

    Example:
      >>> import jax.numpy as jnp
      >>> crelu(jnp.array([3.0, -2.0])).tolist()
      [3.0, 0.0, 0.0, 2.0]

    References:
      Shang et al., `Understanding and improving convolutional neural networks via
      concatenated rectified linear units <https://arxiv.org/abs/1603.05201>`_, 2016;
      Abbas et al., `Loss of plasticity in continual deep reinforcement learning
      <https://arxiv.org/abs/2303.07507>`_, 2023.
    """
    return nn.relu(jnp.concatenate([x, -x], axis=-1))


# Each activation with the gain of its Kaiming initialisation, as PyTorch and the
# authors of continual backprop set it (elu and swish count as relu). The 2 n outputs of
# crelu have the same sum of squares as its n inputs, so the mean square is halved, as
# by relu, and its gain is relu's: fan_in counts all 2 n.
ACTIVATIONS = {
    "relu": (nn.relu, math.sqrt(2)),
    "leaky_relu": (nn.leaky_relu, math.sqrt(2 / (1 + 0.01**2))),
    "elu": (nn.elu, math.sqrt(2)),
    "swish": (nn.swish, math.sqrt(2)),
    "tanh": (nn.tanh, 5 / 3),
    "sigmoid": (nn.sigmoid, 1.0),
    "crelu": (crelu, math.sqrt(2)),
}
NORMALIZATIONS = ("none", "layer")


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
    return _kaiming(activation, "uniform")


def kaiming_normal(activation: str) -> nn.initializers.Initializer:
    """Normal with standard deviation gain / sqrt(fan_in), with the activation's gain.

    Args:
      activation: a name in ``ACTIVATIONS``, or ``"linear"`` (gain 1).

    Returns:
      ``(key, shape, dtype) -> array``.

    Raises:
      ValueError: for an unknown name.

    Example:
      >>> import jax
      >>> w = kaiming_normal("relu")(jax.random.key(0), (2, 10_000))
      >>> round(float(w.std()), 1)
      1.0
    """
    return _kaiming(activation, "normal")


def pytorch_uniform() -> nn.initializers.Initializer:
    """Uniform on +- 1 / sqrt(fan_in), PyTorch's default.

    Returns:
      ``(key, shape, dtype) -> array``.

    Example:
      >>> import jax
      >>> w = pytorch_uniform()(jax.random.key(0), (25, 400))
      >>> round(float(abs(w).max()), 2)
      0.2
    """
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _kaiming(
    activation: str, distribution: Literal["normal", "uniform"]
) -> nn.initializers.Initializer:
    gains = {name: gain for name, (_, gain) in ACTIVATIONS.items()} | {"linear": 1.0}
    check_choice("activation", activation, gains)
    scale = gains[activation] ** 2
    return nn.initializers.variance_scaling(scale, "fan_in", distribution)


def check(activation: str, normalization: str, **sizes: Sequence[int]) -> None:
    """Checks the attributes of a network.

    Args:
      activation: to be a name in ``ACTIVATIONS``.
      normalization: to be a name in ``NORMALIZATIONS``.
      **sizes: to be integers of at least 1.

    Raises:
      ValueError: if they are not.
    """
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("normalization", normalization, NORMALIZATIONS)
    check_sizes(**sizes)


def check_sizes(**sizes: Sequence[int]) -> None:
    """Raises ``ValueError`` unless all sizes are integers of at least 1."""
    for name, values in sizes.items():
        if not all(isinstance(size, int) and size >= 1 for size in values):
            raise ValueError(f"{name} must be integers of at least 1, got {values}.")


def check_choice(name: str, value: str, known) -> None:
    """Raises ``ValueError`` unless the value is a known name."""
    if value not in known:
        raise ValueError(f"{name} must be one of {list(known)}, got {value!r}.")
