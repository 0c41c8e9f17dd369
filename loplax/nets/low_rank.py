"""Low-rank adapters: a second, narrow path around every dense layer of a network."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from loplax.nets import layers
from loplax.units import paths

NAME = "low_rank"


class Adapted(NamedTuple):
    """A network with adapters; its parameters have them under ``"low_rank"``.

    Attributes:
      init: ``key -> (params, stats)``; but for the adapters, what it is without them.
      wrap: ``(params, ..., **) -> anything`` of the plain network to the same of this
        one.
    """

    init: Callable[[jax.Array], tuple[dict, Any]]
    wrap: Callable[[Callable], Callable]


def low_rank(
    init: Callable[[jax.Array], tuple[dict, Any]],
    *,
    rank: int,
    scale,
    without: Sequence[str] = ("output",),
) -> Adapted:
    r"""Puts an adapter beside every dense layer of a network of Flax linen modules.

    .. math::
      h W + b \quad\to\quad h W + b + s\, (h A) B

    :math:`A`, ``[inputs, rank]``, starts uniform on :math:`\pm 1/\sqrt{\text{inputs}}`,
    :math:`B`, ``[rank, outputs]``, at 0: at first the network is what it was. Which
    parameters learn is for the optimiser to say, see `optim.frozen`.

    The path is a second one, in place of a sum :math:`W + s A B`, so that
    ``units.find`` sees what it is made of: a unit of the layer has a column of
    :math:`W` and one of :math:`B`. The bottleneck :math:`h A` is found as a layer too,
    ``"low_rank/..."``.

    Args:
      init: ``key -> (params, stats)`` of the network, with the parameters of its linen
        module, a dict.
      rank: columns of :math:`A`, at least 1.
      scale: :math:`s`; may be traced.
      without: layers that get no adapter, by the beginning of their path.

    Returns:
      The network's new ``init``, and what makes new ones of its other functions.

    Raises:
      ValueError: for a rank below 1, or a network without such layers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from loplax import nets
      >>> net, x = nets.MLP(hidden=(8, 6), outputs=3), jnp.ones((2, 5))
      >>> plain = lambda key: (net.init(key, x)["params"], ())
      >>> start, wrap = nets.low_rank(plain, rank=2, scale=0.5)
      >>> params, _ = start(jax.random.key(0))
      >>> jax.tree.map(jnp.shape, params["low_rank"]["hidden_1"])
      {'a': (8, 2), 'b': (2, 6)}
      >>> apply = wrap(lambda params, x: net.apply({"params": params}, x))
      >>> bool((apply(params, x) == net.apply({"params": params}, x)).all())
      True

    References:
      Hu et al., `LoRA <https://arxiv.org/abs/2106.09685>`_, 2021; with :math:`s` = 1 /
      rank, in the hidden layers, Harun & Kanan, `Overcoming the stability gap in
      continual learning <https://arxiv.org/abs/2306.01904>`_, TMLR 2024.
    """
    layers.check_sizes(rank=(rank,))
    shapes = _kernels(init, without)

    def start(key: jax.Array) -> tuple[dict, Any]:
        params, stats = init(key)
        key_adapters = jax.random.fold_in(key, zlib.crc32(NAME.encode()))
        adapters = _new(key_adapters, shapes, rank, params)
        return params | {NAME: adapters}, stats

    def wrap(function: Callable) -> Callable:
        def adapted(params, *args, **kwargs):
            params = dict(params)
            adapters = params.pop(NAME)
            with nn.intercept_methods(_second_path(adapters, scale)):
                return function(params, *args, **kwargs)

        return adapted

    return Adapted(start, wrap)


def merge_low_rank(params: dict, key: jax.Array, scale) -> dict:
    r"""Adds the adapters to the weights, and begins them anew: the same function.

    .. math::
      W \leftarrow W + s A B, \quad A \leftarrow \text{new}, \quad B \leftarrow 0

    Args:
      params: the parameters of the network with adapters.
      key: typed key of the new :math:`A`.
      scale: :math:`s`, as for `low_rank`.

    Returns:
      The parameters.
    """
    plain = {name: value for name, value in params.items() if name != NAME}
    found = paths.by_path(plain)
    shapes, rank = {}, 0
    for layer, (a, b) in _layers(params[NAME]).items():
        kernel = f"{layer}/kernel"
        before = found.leaves[kernel]
        found.leaves[kernel] = (before + scale * a @ b).astype(before.dtype)
        shapes[layer], rank = before.shape, a.shape[1]
    new = _new(key, shapes, rank, plain)
    return found.unflatten() | {NAME: new}


def _second_path(adapters: dict, scale) -> Callable:
    """What flax calls in place of the methods of modules."""
    known = _layers(adapters)

    def intercept(call, args, kwargs, context):
        outputs = call(*args, **kwargs)
        layer = "/".join(context.module.path) if _is_dense(context) else ""
        if layer not in known:
            return outputs
        a, b = known[layer]
        x = args[0] if args else kwargs["inputs"]
        return outputs + (x @ a) @ b * jnp.asarray(scale, outputs.dtype)

    return intercept


def _kernels(init: Callable, without: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Shapes of the kernels of the layers that get an adapter, by the layer's path."""
    dense = []

    def record(call, args, kwargs, context):
        if _is_dense(context):
            dense.append("/".join(context.module.path))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        # Traced anew, whatever has been traced of this function.
        params, _ = jax.eval_shape(lambda key: init(key), jax.random.key(0))
    leaves = paths.by_path(params).leaves
    excluded = tuple(f"{layer}/" for layer in without)
    names = [n for n in dict.fromkeys(dense) if not f"{n}/".startswith(excluded)]
    found = {n: leaves[f"{n}/kernel"].shape for n in names if f"{n}/kernel" in leaves}
    if not found:
        raise ValueError(
            f"low_rank needs dense layers of Flax linen beside {tuple(without)}, but "
            f"the network's parameters are {list(leaves)}."
        )
    return found


def _new(key: jax.Array, shapes: dict, rank: int, params: dict) -> dict:
    """New adapters, in the tree of their layers."""
    leaves = paths.by_path(params).leaves
    tree: dict[str, Any] = {}
    keys = jax.random.split(key, len(shapes))
    for (layer, (inputs, outputs)), key_layer in zip(shapes.items(), keys, strict=True):
        kind = leaves[f"{layer}/kernel"].dtype
        a = layers.pytorch_uniform()(key_layer, (inputs, rank), kind)
        inside = tree
        for part in layer.split("/"):
            inside = inside.setdefault(part, {})
        inside |= {"a": a, "b": jnp.zeros((rank, outputs), kind)}
    return tree


def _layers(adapters: dict) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The two matrices of every adapter, by the path of its layer."""
    leaves = paths.by_path(adapters).leaves
    names = dict.fromkeys(path.rpartition("/")[0] for path in leaves)
    return {name: (leaves[f"{name}/a"], leaves[f"{name}/b"]) for name in names}


def _is_dense(context) -> bool:
    return isinstance(context.module, nn.Dense) and context.method_name == "__call__"
