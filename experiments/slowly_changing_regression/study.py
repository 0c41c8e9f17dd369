"""Slowly-changing regression as learners: what a configuration means."""

import functools
import math

import jax
import jax.numpy as jnp

from experiments import methods
from loplax import nets, streams, sweep, train, units
from loplax.optim import checks

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
    checks.choice("optimizer", config.optimizer, tuple(methods.OPTIMIZERS))
    if config.unroll < 0:
        raise ValueError(f"unroll must be at least 0, got {config.unroll}.")
    task = problem(config, name)
    bins, chunks = segments(config)[1], config.bin // task.stream.chunk
    if config.bin % task.stream.chunk:
        raise ValueError(
            f"bin ({config.bin}) must be a multiple of the {task.stream.chunk} "
            f"examples drawn at once (period is {config.stream.period})."
        )
    values = {**config, **config.get(config.optimizer, {}), **config.get(name, {})}
    used = methods.OPTIMIZERS[config.optimizer] + methods.SETTINGS[name]
    hparams = {setting: values[setting] for setting in used}
    for setting, swept in config.sweep.items():
        for value in swept if setting in used else ():
            task.make_tx(hparams | {setting: value}, jax.random.key(0))
    task.make_tx(hparams, jax.random.key(0))
    segment = functools.partial(
        train.segment,
        task,
        bins=bins,
        chunks=chunks,
        unroll=config.unroll or (2 if jax.default_backend() == "cpu" else 1),
    )
    init = functools.partial(train.init, task)
    return sweep.Method(sweep.Learner(init, segment), hparams)


def segments(config) -> tuple[int, int]:
    """Number of segments of a run, and bins per segment.

    Raises:
      ValueError: if the examples are not a whole number of bins.
    """
    if config.bin < 1 or config.examples < 1 or config.examples % config.bin:
        raise ValueError(
            f"examples ({config.examples}) must be a positive multiple of bin "
            f"({config.bin})."
        )
    bins = config.examples // config.bin
    per_segment = math.gcd(bins, BINS_PER_SEGMENT)
    return bins // per_segment, per_segment


def _static(config, name: str) -> dict:
    """Arguments of a method that are no numbers to sweep."""
    if name != "cbp":
        return {}
    rates = (*config.sweep.replacement_rate, config.cbp.replacement_rate)
    for rate in rates:
        checks.number("replacement_rate", rate, 0, 1)
    most = math.ceil(max(rates) * max(config.hidden, default=0))
    return {
        "utility": config.cbp.utility,
        "accumulate": config.cbp.accumulate,
        "max_replacements": max(1, most),
    }


def _squared_error(output: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.square(output - target)
