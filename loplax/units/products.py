"""Products and convolutions computed in ways that the analysis still recognises."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

FORMS = ("convolve_patches", "convolve_depthwise")
"""Names of convolutions: as one matrix product, and with one input per output."""


@jax.jit
def sum_of_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``x @ kernel`` as products and a sum, which a compiler can fuse.

    For layers of a few units and many small networks side by side, this is about twice
    as fast on CPU as a call of the matrix-product routine. ``find`` takes it for what
    it is.

    Args:
      x: activations, ``[..., inputs]``.
      kernel: weights, ``[inputs, outputs]``.

    Returns:
      ``[..., outputs]``.

    Example:
      >>> import jax.numpy as jnp
      >>> sum_of_products(jnp.ones(3), jnp.ones((3, 2))).tolist()
      [3.0, 3.0]
    """
    return jnp.sum(x[..., None] * kernel, axis=-2)


def convolve_patches(
    inputs: jax.Array,
    kernel: jax.Array,
    strides,
    padding,
    feature_group_count: int = 1,
    **_,
) -> jax.Array:
    r"""A convolution as one matrix product of the images' patches.

    .. math::
      y_{hwo} = \sum_{ijc} x_{sh + i,\, sw + j,\, c} \, W_{ijco}

    A depthwise one is the sum of products with shifted images,
    :math:`y_{hwc} = \sum_{ij} x_{sh + i,\, sw + j,\, c} \, W_{ij1c}`.

    On a CPU, XLA's own convolution is fast outside loops only: the gradients of one
    within a ``scan`` take about twenty times as long as these, and forty times if it
    is depthwise (350 against 9 ms for two 3x3 layers of 32 channels and 16 images of
    16x16). On accelerators it is the other way round. ``find`` and ``tap`` take either
    form for the convolution that it is.

    Args:
      inputs: ``[batch, height, width, in]``.
      kernel: ``[side, side, in, out]``, without dilation; ``[side, side, 1, in]`` if
        depthwise.
      strides: steps along height and width.
      padding: zeros before and after each of them, or ``"VALID"`` for none.
      feature_group_count: 1, or the number of inputs for a depthwise convolution.

    Returns:
      ``[batch, height, width, out]``; for ``flax.linen.Conv`` to take as
      ``conv_general_dilated``.

    Raises:
      ValueError: for other groups.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x, kernel = jnp.arange(75.0).reshape(1, 5, 5, 3), jnp.ones((3, 3, 3, 2))
      >>> y = convolve_patches(x, kernel, (2, 2), "VALID")
      >>> names = ("NHWC", "HWIO", "NHWC")
      >>> same = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID",
      ...                                     dimension_numbers=names)
      >>> bool((y == same).all())
      True
      >>> kernel = jnp.ones((3, 3, 1, 3))
      >>> convolve_patches(x, kernel, (1, 1), "VALID", feature_group_count=3).shape
      (1, 3, 3, 3)
    """
    channels, groups = inputs.shape[-1], feature_group_count
    depthwise = groups == channels and kernel.shape[2:] == (1, channels)
    if groups != 1 and not depthwise:
        raise ValueError(
            f"feature_group_count must be 1, or {channels} with a kernel of shape "
            f"[..., 1, {channels}], for images of {channels} channels; got {groups} "
            f"and a kernel of shape {kernel.shape}."
        )
    edges = ((0, 0), (0, 0)) if padding == "VALID" else padding
    numbers = (*strides, *(size for pair in edges for size in pair))
    convolve = _convolution(FORMS[depthwise], tuple(map(int, numbers)))
    return convolve(inputs, kernel)


@functools.cache
def _convolution(form: str, numbers: tuple[int, ...]):
    """The convolution with these strides and edges, whose name tells them."""
    strides, edges = numbers[:2], (numbers[2:4], numbers[4:6])

    def convolve(inputs, kernel):
        inputs = jnp.pad(inputs, ((0, 0), *edges, (0, 0)))
        (_, height, width, _), (rows, columns, *_) = inputs.shape, kernel.shape

        def shifted(i, j):
            down = slice(i, height - rows + i + 1, strides[0])
            return inputs[:, down, j : width - columns + j + 1 : strides[1]]

        if form == FORMS[1]:
            places = [(i, j) for i in range(rows) for j in range(columns)]
            return sum(shifted(i, j) * kernel[i, j, 0] for i, j in places)
        lines = [
            jnp.stack([shifted(i, j) for j in range(columns)], 3) for i in range(rows)
        ]
        return jnp.tensordot(jnp.stack(lines, 3), kernel, 3)

    convolve.__name__ = "_".join([form, *map(str, numbers)])
    return jax.jit(convolve)


def _fits(form: str, inputs, kernel) -> bool:
    channels = inputs.shape[-1]
    if form == FORMS[1]:
        return kernel.shape[2:] == (1, channels)
    return form == FORMS[0] and kernel.shape[2] == channels


def recognise(eqn: core.JaxprEqn) -> tuple[str, dict] | None:
    """The primitive that a call stands for, and its parameters, or ``None``.

    The name alone proves nothing, so the traced operations are compared.
    """
    name = eqn.params.get("name", "")
    shapes: list[Any] = [var.aval for var in eqn.invars]
    if len(shapes) != 2:
        return None
    function: Any = None
    params: dict[str, Any] = {}
    primitive, blocks = "", 1
    ranks = shapes[0].ndim, shapes[1].ndim
    if name == "sum_of_products" and ranks[0] >= 1 and ranks[1] == 2:
        function, primitive = sum_of_products, "dot_general"
        params = {"dimension_numbers": (((ranks[0] - 1,), (0,)), ((), ()))}
    words = name.split("_")
    form, numbers = "_".join(words[:2]), words[2:]
    digits = len(numbers) == 6 and all(map(str.isdigit, numbers))
    if ranks == (4, 4) and digits and _fits(form, *shapes):
        dimensions = jax.lax.ConvDimensionNumbers(
            lhs_spec=(0, 3, 1, 2), rhs_spec=(3, 2, 0, 1), out_spec=(0, 3, 1, 2)
        )
        blocks = shapes[0].shape[-1] if form == FORMS[1] else 1
        sizes = tuple(map(int, numbers))
        function, primitive = _convolution(form, sizes), "conv_general_dilated"
        params = {
            "dimension_numbers": dimensions,
            "padding": (sizes[2:4], sizes[4:6]),
            "lhs_dilation": (1, 1),
            "rhs_dilation": (1, 1),
        }
    if function is None:
        return None
    expected = jax.make_jaxpr(function.__wrapped__)(*shapes)
    if str(expected) != str(eqn.params["jaxpr"]):
        return None
    groups = {"feature_group_count": blocks, "batch_group_count": 1}
    return primitive, params | groups
