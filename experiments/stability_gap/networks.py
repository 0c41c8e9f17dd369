"""The networks of the stability gap, and what they know before it begins."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from experiments.studies import defaults, images, learning, pretraining
from loplax import checks, nets
from loplax.supervised import Network, losses, stateless

HEAD = "output"


def made(config, classes: int, base: int, train, test) -> tuple[Callable, Any, Any]:
    """The network of a configuration, and the examples as it takes them.

    Args:
      config: a configuration of this problem.
      classes: number of outputs.
      base: how many of them it knows before it learns.
      train: images and labels.
      test: the same for testing.

    Returns:
      What makes a network of a method's options; ``train`` and ``test``.

    Raises:
      ValueError: for a network that cannot be.
    """
    checks.one_of("network", config.network, tuple(NETWORKS))
    return NETWORKS[config.network].make(config, classes, base, train, test)


def _mlp(config, classes, base, train, test):
    if config.pretrain.weights:
        raise ValueError("published weights are those of a convnext, not of an mlp.")
    in_rows = lambda images, labels: (images.reshape(len(images), -1), labels)
    train, test = in_rows(*train), in_rows(*test)

    def network(options: Mapping[str, Any]) -> Network:
        options = {"activation": config.activation, **options}
        options["final_norm"] = config.final_norm
        hidden = learning.widths(config.hidden, options["activation"])
        hidden = () if options.pop("linear", False) else hidden
        plain = _plain(nets.MLP(hidden, classes, **options), train[0].shape[1:])
        if not base:
            return plain
        return pretraining.begun(
            plain, _trained(config, plain, base, train), HEAD, base
        )

    return network, train, test


def _convnext(config, classes, base, train, test):
    sizes = config.convnext.to_dict()
    frozen = sizes.pop("frozen")
    if frozen and not base:
        raise ValueError(
            f"the first {frozen} stages know nothing that they could be frozen with: "
            "pretrain.steps or pretrain.weights must be given, or convnext.frozen be 0."
        )
    net = nets.ConvNeXt(classes, patches=images.patches(config), **sizes)
    plain, known = _plain(net, train[0].shape[1:]), None
    if config.pretrain.weights:
        known = nets.convnext_from(config.pretrain.weights, net.clone(outputs=base)), ()
    elif base:
        known = _trained(config, plain, base, train)
    if frozen:
        trunk = lambda params, x: net.apply(
            {"params": params}, x, frozen, method="trunk"
        )
        seen = lambda images: pretraining.features(trunk, known[0], images)
        train, test = ((seen(images), labels) for images, labels in (train, test))
        plain = _plain(net.clone(begin=frozen), train[0].shape[1:])
    if base:
        plain = pretraining.begun(plain, known, HEAD, base)

    return lambda options: plain, train, test


def base(config) -> int:
    """How many classes the network knows before it learns.

    Args:
      config: a configuration of this problem.

    Returns:
      Their number.

    Raises:
      ValueError: if it cannot know the first of them.
    """
    if not (config.pretrain.steps or config.pretrain.weights):
        return 0
    if config.order not in ("classes", "data") or not config.classes:
        raise ValueError(
            "what is learned before all runs are the first of the classes: order must "
            f"be classes or data, and classes be given; got {config.order!r} and "
            f"{config.classes}."
        )
    return config.classes[0]


class Kind(NamedTuple):
    """A kind of network: what makes it, see `made`, and options that methods choose."""

    make: Callable
    options: tuple[str, ...] = ()


NETWORKS = {"mlp": Kind(_mlp, defaults.OPTIONS), "convnext": Kind(_convnext)}


def _plain(net, shape: tuple[int, ...]) -> Network:
    """A Flax module without statistics as a network, for inputs of a shape."""
    example = jnp.zeros((1, *shape))
    return stateless(
        lambda key: net.init(key, example)["params"],
        lambda params, x: net.apply({"params": params}, x),
        lambda params, x: net.apply({"params": params}, x, method="embed"),
    )


def _trained(config, network: Network, base: int, train) -> Any:
    """``(params, stats)`` that have learned the first classes."""
    settings = config.pretrain.to_dict()
    del settings["weights"]
    data = tuple(part[train[1] < base] for part in train)
    return pretraining.pretrained(network, losses.cross_entropy, data, **settings)
