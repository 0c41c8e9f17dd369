"""Published weights, as parameters of a network of this package."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from loplax import extras
from loplax.nets import convnext

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Modules of `ConvNeXt`, and their names in timm.
NAMES = (
    (r"stem", "stem.0"),
    (r"stem_norm", "stem.1"),
    (r"down_norm_(\d+)", r"stages.\1.downsample.0"),
    (r"down_(\d+)", r"stages.\1.downsample.1"),
    (r"block_(\d+)_(\d+)/depthwise", r"stages.\1.blocks.\2.conv_dw"),
    (r"block_(\d+)_(\d+)/norm", r"stages.\1.blocks.\2.norm"),
    (r"block_(\d+)_(\d+)/expand", r"stages.\1.blocks.\2.mlp.fc1"),
    (r"block_(\d+)_(\d+)/response_norm", r"stages.\1.blocks.\2.mlp.grn"),
    (r"block_(\d+)_(\d+)/project", r"stages.\1.blocks.\2.mlp.fc2"),
    (r"norm", "head.norm"),
    (r"output", "head.fc"),
)


def convnext_from(
    weights: str | os.PathLike | Mapping[str, np.ndarray],
    net: convnext.ConvNeXt,
    *,
    mean: Sequence[float] | np.ndarray = IMAGENET_MEAN,
    std: Sequence[float] | np.ndarray = IMAGENET_STD,
) -> dict:
    r"""Parameters of a `ConvNeXt` that were published for timm's.

    The published network is given :math:`(x - \mu) / \sigma` of an image :math:`x` in
    [0, 1]. As the stem, of kernel :math:`k` and bias :math:`b`, pads nothing, that is
    the same as :math:`x` itself and

    .. math::
      k'_{ijco} = k_{ijco} / \sigma_c, \qquad
      b'_o = b_o - \sum_{ijc} k'_{ijco} \mu_c,

    which are the parameters here.

    Nothing is unpickled. Those of Femto (depths 2, 2, 6, 2; dims 48, 96, 192, 384;
    patch 4; 1,000 outputs) are ``model.safetensors`` of
    https://huggingface.co/timm/convnextv2_femto.fcmae_ft_in1k, licence CC BY-NC 4.0.

    Args:
      weights: a file of safetensors, or what it holds: arrays by timm's names.
      net: the network they are for.
      mean: :math:`\mu` of each channel, that of ImageNet if not given; 0 for a network
        that is given the image as it is.
      std: :math:`\sigma`, with 1 for such a network.

    Returns:
      The parameters, float32.

    Raises:
      ImportError: without safetensors, for a file.
      ValueError: if the file cannot be read, weights are missing, not known to the
        network, or not of its shapes, or not every channel has a mean and deviation.

    Example:
      >>> net = convnext.ConvNeXt(outputs=3, dims=(2,), depths=(1,), patch=1)
      >>> convnext_from({"stem.0.weight": np.zeros((2, 3, 1, 1))}, net)
      Traceback (most recent call last):
      ValueError: the weights are not those of the network. Missing: head.fc.bias,
      head.fc.weight, head.norm.bias and 14 more.

    References:
      Woo et al., `ConvNeXt V2 <https://arxiv.org/abs/2301.00808>`_, 2023; timm is
      https://github.com/huggingface/pytorch-image-models.
    """
    mean, std = np.asarray(mean, float), np.asarray(std, float)
    if mean.ndim != 1 or mean.shape != std.shape or not np.all(std > 0):
        raise ValueError(
            "mean and std must have a number for each channel, std above 0; got "
            f"{mean.tolist()} and {std.tolist()}."
        )
    if not isinstance(weights, Mapping):
        weights = _read(weights)
    side = net.patch * 2 ** (len(net.dims) - 1)
    example = jnp.zeros((1, side, side, mean.size))
    shapes = jax.eval_shape(net.init, jax.random.key(0), example)["params"]
    shapes = traverse_util.flatten_dict(shapes, sep="/")
    names = {_published(path): path for path in shapes}
    _check_names(weights, names)
    arranged = {
        path: _arranged(name, weights[name], shapes[path].shape)
        for name, path in names.items()
    }
    kernel = arranged["stem/kernel"] / std[:, None]
    arranged["stem/bias"] = arranged["stem/bias"] - mean @ kernel.sum(axis=(0, 1))
    arranged["stem/kernel"] = kernel
    params = {path: jnp.asarray(x, jnp.float32) for path, x in arranged.items()}
    return traverse_util.unflatten_dict(params, sep="/")


def _read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    with extras.needed("weights", str(path)):
        import safetensors
        from safetensors import numpy as safetensors_numpy
    try:
        return safetensors_numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is no file of safetensors: {error}") from error


def _published(path: str) -> str:
    """The name of a parameter in timm."""
    module, _, leaf = path.rpartition("/")
    for own, name in NAMES:
        if found := re.fullmatch(own, module):
            return f"{found.expand(name)}.{'bias' if leaf == 'bias' else 'weight'}"
    raise ValueError(f"no published weights are known for {path}.")


def _check_names(weights: Iterable[str], names: Iterable[str]) -> None:
    weights, names, told = set(weights), set(names), ""
    lacking = {"Missing": names - weights, "Not of the network": weights - names}
    for what, some in lacking.items():
        more = f" and {len(some) - 3} more" if len(some) > 3 else ""
        told += f" {what}: {', '.join(sorted(some)[:3])}{more}." if some else ""
    if told:
        raise ValueError(f"the weights are not those of the network.{told}")


def _arranged(name: str, weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A weight of PyTorch as Flax has it, in double precision."""
    known: list[tuple[int, ...]]
    order: tuple[int, ...]
    if len(shape) == 4:  # depthwise kernels too: [channels, 1, side, side]
        height, width, inputs, outputs = shape
        known, order = [(outputs, inputs, height, width)], (2, 3, 1, 0)
    elif len(shape) == 2:  # small networks of timm have convolutions of side 1 instead
        known, order = [shape[::-1], (*shape[::-1], 1, 1)], (1, 0)
    else:  # response norms of some versions have axes for all that is normalised
        known, order = [shape, (1, *shape, 1, 1), (1, 1, 1, *shape)], (0,)
    if weight.shape not in known:
        raise ValueError(
            f"{name} must have the shape {known[0]} for this network, got "
            f"{weight.shape}."
        )
    return np.asarray(weight, float).reshape(known[0]).transpose(order)
