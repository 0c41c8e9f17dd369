"""The methods by name: an optimiser, a way to keep plasticity, and their numbers."""

from collections.abc import Mapping

import optax

from loplax import optim
from loplax.optim import checks

# The numeric settings that each method uses, beside those of its optimiser.
SETTINGS = {
    "bp": (),
    "linear": (),
    "l2": ("weight_decay",),
    "l2_init": ("weight_decay",),
    "shrink_and_perturb": ("weight_decay", "perturb_scale"),
    "redo": ("threshold", "period", "decay_rate"),
    "cbp": ("replacement_rate", "maturity_threshold", "decay_rate"),
}
OPTIMIZERS = {"sgd": ("learning_rate",), "adam": ("learning_rate", "b1", "b2")}


def make(
    hparams: Mapping, key, *, name, optimizer, groups, initializer, static: Mapping
):
    """Builds the transformation of a method.

    Args:
      hparams: the numeric settings of method and optimiser, numbers or traced.
      key: typed random key.
      name: a key of ``SETTINGS``.
      optimizer: a key of ``OPTIMIZERS``.
      groups: the hidden layers.
      initializer: distribution of re-drawn weights.
      static: further keyword arguments of the method that are no numbers to sweep.

    Returns:
      The transformation.

    Raises:
      ValueError: for an unknown name, or a number out of range.
    """
    checks.choice("method", name, tuple(SETTINGS))
    checks.choice("optimizer", optimizer, tuple(OPTIMIZERS))
    for setting, value in hparams.items():
        if setting in ("b1", "b2"):
            checks.number(setting, value, 0, 1, below=True)
        checks.number(setting, value)
    hparams = dict(hparams)
    own = {setting: hparams.pop(setting) for setting in SETTINGS[name]}
    if optimizer == "adam" and name in ("cbp", "redo"):
        inner = optim.adam(units=groups, **hparams)
    else:
        inner = getattr(optax, optimizer)(**hparams)
    if name == "l2":
        return optax.chain(optax.add_decayed_weights(**own), inner)
    if name == "l2_init":
        return optax.chain(optim.l2_init(**own), inner)
    if name == "shrink_and_perturb":
        shrink = 1 - hparams["learning_rate"] * own["weight_decay"]
        scale = own["perturb_scale"]
        return optim.shrink_and_perturb(
            inner, shrink=shrink, perturb_scale=scale, key=key
        )
    if name in ("cbp", "redo"):
        wrap = optim.continual_backprop if name == "cbp" else optim.redo
        arguments = {**own, **static, "initializer": initializer}
        return wrap(inner, groups, key=key, **arguments)
    return optax.with_extra_args_support(inner)
