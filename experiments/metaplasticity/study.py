"""Metaplasticity: what a configuration means."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from experiments.studies import learning, sessions
from loplax import nets
from loplax.nets import binary_layers
from loplax.supervised import Network

OPTIONS = ("binary", "running")  # that methods choose otherwise


def make(config, data_dir: str | None = None) -> learning.Study:
    """The study of a configuration.

    Args:
      config: a configuration as ``config.get_config`` returns it.
      data_dir: where the data set is, or is to be prepared.

    Returns:
      The study.

    Raises:
      ValueError: for an unknown name or a size that is out of range, or if there is no
        data.
    """
    train, test, classes, origins = sessions.examples(config, data_dir)
    train, test, split = sessions.in_sessions(config, train, test, origins)
    in_rows = lambda images, labels: (images.reshape(len(images), -1), labels)
    train, test = in_rows(*train), in_rows(*test)
    pixels = train[0].shape[1]

    def network(options: Mapping[str, Any]) -> Network:
        options = {"running": config.running, **options}
        return _network(config, classes, pixels, options)

    return sessions.make(
        config,
        (train, test),
        network,
        split,
        classes,
        initializer=binary_layers.latent_uniform(config.width),
        output_initializer=binary_layers.latent_uniform(config.width),
        options=OPTIONS,
        batch_norm=config.normalization == "batch",
        task_norms=config.task_norms,
    )


def _network(config, classes: int, pixels: int, options) -> Network:
    net = nets.BinaryMLP(
        config.hidden,
        classes,
        normalization=config.normalization,
        affine=config.affine,
        binarize_input=config.binarize_input,
        kernel_init=binary_layers.latent_uniform(config.width),
        **options,
    )

    def seen(x):
        return x - x.mean(-1, keepdims=True) if config.binarize_input else x

    def init(key):
        variables = net.init(key, jnp.zeros((1, pixels)))
        return variables["params"], variables.get("batch_stats", {})

    def apply(params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        outputs, new = net.apply(
            variables, seen(x), train=True, mutable=["batch_stats"]
        )
        return outputs, new.get("batch_stats", stats)

    def predict(params, stats, x):
        return net.apply({"params": params, "batch_stats": stats}, seen(x))

    def embed(params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        return net.apply(variables, seen(x), method="embed")

    alone = config.normalization != "batch" or options["running"]
    return Network(init, apply, predict, embed=embed, per_example=alone)
