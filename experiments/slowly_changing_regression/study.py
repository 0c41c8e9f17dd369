"""Slowly-changing regression as learners: what a configuration means."""

import functools
import math

import jax
import jax.numpy as jnp

from experiments import methods
from loplax import nets, streams, sweep, train, units

BINS_PER_SEGMENT = 5


def problem(config, method: str) -> train.Problem:
    """What a method learns, with what network and transformation.

    Args:
      config: a configuration as ``config.get_config`` returns it.
      method: name of the method.

    Returns:
      The problem.

    Raises:
      ValueError: for an unknown name or a size that is out of range.
    """
    stream = streams.slowly_changing_regression(**config.stream)
    hidden = () if method == "linear" else config.hidden
    net = nets.MLP(hidden, 1, config.activation, small=True)
    example = jnp.zeros(config.stream.inputs)

    def init(key):
        return net.init(key, example)["params"]

    def apply(params, x):
        return net.apply({"params": params}, x)[..., 0]

    groups = units.find(apply, jax.eval_shape(init, jax.random.key(0)), example)
    make_tx = functools.partial(
        methods.make,
        name=method,
        optimizer=config.optimizer,
        groups=groups,
        initializer=nets.kaiming_uniform(config.activation),
        static=_static(config, method),
    )
    return train.Problem(stream, init, apply, _squared_error, make_tx, groups)


def method(config, name: str) -> sweep.Method:
    """The learner of a method, and the numeric settings that it uses.

    Args:
      config: a configuration.
      name: name of the method.

    Returns:
      The method, for ``sweep.run``.

    Raises:
      ValueError: for anything in the configuration that cannot be run.
    """
    task = problem(config, name)
    if config.bin % task.stream.chunk or config.examples % config.bin:
        raise ValueError(
            f"examples ({config.examples}) must be a multiple of bin ({config.bin}), and "
            f"bin of the {task.stream.chunk} examples drawn at once."
        )
    values = {**config, **config.get(config.optimizer, {}), **config.get(name, {})}
    used = methods.OPTIMIZERS[config.optimizer] + methods.SETTINGS[name]
    hparams = {setting: values[setting] for setting in used}
    for setting, values in config.sweep.items():
        for value in values if setting in used else ():
            task.make_tx(hparams | {setting: value}, jax.random.key(0))
    task.make_tx(hparams, jax.random.key(0))
    bins, chunks = segments(config)[1], config.bin // task.stream.chunk
    segment = functools.partial(train.segment, task, bins=bins, chunks=chunks)
    init = functools.partial(train.init, task)
    return sweep.Method(sweep.Learner(init, segment), hparams)


def segments(config) -> tuple[int, int]:
    """Number of segments of a run, and bins per segment."""
    bins = config.examples // config.bin
    per_segment = math.gcd(bins, BINS_PER_SEGMENT)
    return bins // per_segment, per_segment


def _static(config, name: str) -> dict:
    """Arguments of a method that are no numbers to sweep."""
    if name != "cbp":
        return {}
    rates = (*config.sweep.replacement_rate, config.cbp.replacement_rate)
    return {
        "utility": config.cbp.utility,
        "accumulate": config.cbp.accumulate,
        "max_replacements": math.ceil(max(rates) * max(config.hidden)),
    }


def _squared_error(output: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.square(output - target)
