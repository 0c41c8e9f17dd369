"""Slowly-changing regression: what a configuration means."""

import jax
import jax.numpy as jnp

from experiments.studies import learning
from loplax import nets, streams, supervised


def make(config, data_dir: str | None = None) -> learning.Study:
    """The study of a configuration.

    Args:
      config: a configuration as ``config.get_config`` returns it.
      data_dir: not used, since this problem needs no data.

    Returns:
      The study.

    Raises:
      ValueError: for a size that is out of range.
    """
    del data_dir
    chunk = streams.slowly_changing_regression(**config.stream).chunk
    bins = learning.whole("examples", config.examples, "bin", config.bin)
    if config.bin % chunk:
        raise ValueError(
            f"bin ({config.bin}) must be a multiple of the {chunk} "
            f"examples drawn at once (period is {config.stream.period})."
        )

    def stream(data, numbers) -> streams.Stream:
        changed = {**config.stream, "beta": numbers["stream.beta"]}
        return streams.slowly_changing_regression(**changed)

    def network(options) -> supervised.Network:
        options = {"activation": config.activation, **options}
        hidden = learning.widths(config.hidden, options["activation"])
        hidden = () if options.pop("linear", False) else hidden
        net = nets.MLP(hidden, 1, small=True, **options)
        return supervised.stateless(
            lambda key: net.init(key, jnp.zeros(config.stream.inputs))["params"],
            lambda params, x: net.apply({"params": params}, x)[..., 0],
        )

    return learning.Study(
        stream=stream,
        network=network,
        length=("examples",),
        loss=_squared_error,
        initializer=nets.kaiming_uniform(config.activation),
        bins=bins,
        chunks=config.bin // chunk,
        numbers={"stream.beta": config.stream.beta},
        runs_per_block=(1024, 128),
    )


def _squared_error(output: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.square(output - target)
