"""The methods by name: an optimiser, a way to keep plasticity, and their numbers."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import optax

from experiments.methods.specs import OPTIMIZERS, SPECS
from loplax import nets, optim
from loplax.optim import checks
from loplax.supervised.problem import Network
from loplax.units import paths


def values(config, name: str) -> dict[str, float]:
    """The numbers that a method uses, with their values in a configuration.

    Args:
      config: the configuration.
      name: name of the method.

    Returns:
      The numbers of its optimiser and its own.

    Raises:
      ValueError: for an unknown method or optimiser.
    """
    checks.one_of("methods", name, tuple(SPECS))
    checks.one_of("optimizer", config.optimizer, tuple(OPTIMIZERS))
    spec = SPECS[name]
    inner = {} if spec.optimizer else OPTIMIZERS[config.optimizer]
    used = {"learning_rate", *inner, *spec.settings}
    found = {**config, **config.get(config.optimizer, {}), **config.get(name, {})}
    return {setting: found[setting] for setting in sorted(used)}


def static(config, name: str, size: int) -> dict[str, Any]:
    """Arguments of a method that are no numbers to sweep.

    Args:
      config: the configuration.
      name: name of the method.
      size: units of the largest hidden layer.

    Returns:
      Keyword arguments for `make`.
    """
    choices = {choice: config[name][choice] for choice in SPECS[name].choices}
    if name == "cbp":
        rates = (*config.sweep.replacement_rate, config.cbp.replacement_rate)
        for rate in rates:
            checks.in_range("replacement_rate", rate, 0, 1)
        choices["max_replacements"] = max(1, math.ceil(max(rates) * size))
    return choices


def make(
    hparams: Mapping,
    key: jax.Array,
    *,
    name: str,
    optimizer: str,
    groups,
    initializer,
    static: Mapping[str, Any],
    schedule=lambda rate: rate,
) -> optax.GradientTransformationExtraArgs:
    """Builds the transformation of a method.

    Args:
      hparams: the numeric settings of method and optimiser, numbers or traced.
      key: typed random key.
      name: a key of ``SPECS``.
      optimizer: a key of ``OPTIMIZERS``.
      groups: the hidden layers.
      initializer: distribution of re-drawn weights, or one per path.
      static: further keyword arguments of the method.
      schedule: makes of a learning rate what the optimiser takes.

    Returns:
      The transformation.

    Raises:
      ValueError: for an unknown name, or a number out of range.
    """
    checks.one_of("method", name, tuple(SPECS))
    checks.one_of("optimizer", optimizer, tuple(OPTIMIZERS))
    for setting, value in hparams.items():
        below = setting in ("b1", "b2", "momentum")
        high = 1 if below or setting == "decay_rate" else math.inf
        checks.in_range(setting, value, 0, high, below=below)
    spec = SPECS[name]
    used = {"learning_rate", *OPTIMIZERS[optimizer]}
    used |= {"weight_decay"} & spec.settings.keys()  # added to the gradient
    if spec.optimizer:
        used = {"learning_rate", *spec.settings}
    numbers = {setting: hparams[setting] for setting in used}
    own = {s: hparams[s] for s in spec.settings if s not in used}
    rate = schedule(numbers["learning_rate"])
    in_turn = name == "plasticity_injection"
    numbers["learning_rate"] = 1.0 if in_turn else rate
    resets = name in RESETS and static.get("reset_inner", True)
    per_unit = groups if resets else None
    inner = _optimizer(spec.optimizer or optimizer, numbers, per_unit, key)
    if in_turn:
        checks.whole("injection_step", own["injection_step"], 0)
        halves = nets.learn_in_turn(inner, own["injection_step"])
        # The rate comes last, so that a schedule counts the steps of both halves.
        return optax.chain(halves, optax.scale_by_learning_rate(rate, flip_sign=False))
    if name in RESETS:
        arguments = {**own, **static, "initializer": initializer}
        return RESETS[name](inner, groups, key=key, **arguments)
    if name in PENALTIES:
        penalty = PENALTIES[name](**own)
        if name == "parseval":
            penalty = optax.masked(penalty, _hidden_weights(groups))
        return optax.chain(penalty, inner)
    return _wrapped(name, inner, own, static | {"initializer": initializer}, key)


def _wrapped(name: str, inner, own: Mapping, how: Mapping, key):
    """The optimiser in what a method puts around it, if that is anything."""
    if name == "shrink_and_perturb":
        return optim.shrink_and_perturb(inner, key=key, **own)
    if name == "hare_tortoise":
        # As the authors' supervised code; a schedule must not start again.
        return optim.hare_tortoise(
            inner, momentum=own["decay_rate"], period=own["period"], reset_inner=False
        )
    if name == "weight_resets":
        reinitialize = optim.selective_weight_reinitialization
        return reinitialize(inner, key=key, **own, **how)
    if name == "weight_clipping":
        return optim.weight_clipping(inner, **own)
    if name == "nap":
        return optim.normalize_and_project(inner)
    return optax.with_extra_args_support(inner)


RESETS = {
    "cbp": optim.continual_backprop,
    "ccbp": optim.ccbp,
    "redo": optim.redo,
    "regrama": optim.regrama,
    "self_normalized_resets": optim.self_normalized_resets,
}
PENALTIES = {
    "l2_init": lambda strength: optim.l2_init(strength),
    "spectral": optim.spectral_regularization,
    "parseval": optim.parseval_regularization,
    "wasserstein": optim.wasserstein_regularization,
}


def _hidden_weights(groups):
    """Makes of parameters a mask of the weights into hidden layers."""
    hidden = {axis.path for group in groups for axis in group.incoming}
    is_hidden = lambda path, _: paths.name(path) in hidden
    return lambda params: jax.tree.map_with_path(is_hidden, params)


def _optimizer(name: str, numbers: dict, groups, key):
    """The optimiser; Adam counts steps per unit if ``groups`` are given."""
    decay = numbers.pop("weight_decay", None) if name not in ("adamw", "upgd") else None
    if name == "upgd":
        made = optim.upgd(key=key, **numbers)
    elif name == "adam" and groups is not None:
        made = optim.adam(units=groups, **numbers)
    elif name == "momentum":
        made = optax.sgd(**numbers)
    else:
        made = getattr(optax, name)(**numbers)
    if decay is None:
        return made
    return optax.chain(optax.add_decayed_weights(decay), made)


def around(network: Network, name: str, hparams: Mapping, shape) -> Network:
    """The network of a method that puts something around it.

    Args:
      network: the network.
      name: name of the method.
      hparams: its numbers.
      shape: shape of the input of one example.

    Returns:
      The network that learns.

    Raises:
      ValueError: for a number out of range.
    """
    if name == "plasticity_injection":
        checks.whole("injection_step", hparams["injection_step"], 0)
        injected = nets.plasticity_injection(
            *network[:3], step=hparams["injection_step"]
        )
        return Network(*injected)
    if name == "input_normalization":
        return _normalized(network, hparams["decay_rate"], shape)
    return network


def _normalized(network: Network, decay, shape) -> Network:
    checks.in_range("decay_rate", decay, 0, 1)
    normalization = nets.input_normalization

    def init(key):
        params, stats = network.init(key)
        return params, (normalization.init(shape), stats)

    def apply(params, both, x):
        seen = normalization.update(both[0], x, decay)
        outputs, stats = network.apply(
            params, both[1], normalization.normalize(seen, x)
        )
        return outputs, (seen, stats)

    def predict(params, both, x):
        return network.predict(params, both[1], normalization.normalize(both[0], x))

    def restart(both, replaced):
        return both[0], network.restart(both[1], replaced)

    return Network(init, apply, predict, restart)
