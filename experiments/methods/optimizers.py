"""The optimisers, with their numbers beside the learning rate."""

import functools
from collections.abc import Mapping

import optax

from experiments.methods.plugin import Plugin, Setting
from loplax import checks, optim


def _decayed(make):
    """Adds ``weight_decay`` to the gradients, as torch does, where there is any."""

    @functools.wraps(make)
    def made(setting: Setting, *, weight_decay=None, **numbers):
        inner = make(setting, **numbers)
        if weight_decay is None:
            return inner
        return optax.chain(optax.add_decayed_weights(weight_decay), inner)

    return made


def _below_one(numbers: Mapping) -> None:
    for name in ("b1", "b2", "momentum"):
        if name in numbers:
            checks.in_range(name, numbers[name], 0, 1, below=True)


@_decayed
def _sgd(setting, **numbers):
    _below_one(numbers)
    return optax.sgd(**numbers)


@_decayed
def _adam(setting, **numbers):
    _below_one(numbers)
    if setting.per_unit:
        return optim.adam(units=setting.groups, **numbers)
    return optax.adam(**numbers)


@_decayed
def _adam_eps_hat(setting, **numbers):
    _below_one(numbers)
    groups = setting.groups if setting.per_unit else None
    return optim.adam(units=groups, eps_hat=True, **numbers)


def _adamw(setting, **numbers):
    _below_one(numbers)
    return optax.adamw(**numbers)


def _upgd(setting, **numbers):
    return optim.upgd(key=setting.key, **numbers)


OPTIMIZERS = {
    "sgd": Plugin(
        "SGD",
        "#7f7f7f",
        optimizer=_sgd,
        compared=False,
        does="gradient descent",
        made_by="optax.sgd",
    ),
    "momentum": Plugin(
        "momentum",
        "#5f6b7a",
        {"momentum": 0.9, "weight_decay": 0.0},
        does="gradient descent with momentum",
        made_by="optax.sgd",
        note="With L2 regularisation, as `torch.optim.SGD`.",
        optimizer=_sgd,
        compared=False,
    ),
    "adam": Plugin(
        "Adam",
        "#8c6d31",
        {"b1": 0.9, "b2": 0.999, "weight_decay": 0.0},
        does="Adam",
        paper="Kingma & Ba 2014",
        made_by="loplax.optim.adam",
        note=(
            "With L2 regularisation, as `torch.optim.Adam`. It is optax's own where "
            "no unit is replaced."
        ),
        optimizer=_adam,
        compared=False,
    ),
    "adam_eps_hat": Plugin(
        "Adam, eps hat",
        "#7a5c1e",
        {"b1": 0.9, "b2": 0.999, "weight_decay": 1e-7},
        does="Adam with epsilon added before the bias correction",
        paper="Kingma & Ba 2014, section 2",
        made_by="loplax.optim.adam",
        note="The decay is that of Laborieux et al. 2021.",
        optimizer=_adam_eps_hat,
        compared=False,
    ),
    "tuned_adam": Plugin(
        "tuned Adam",
        "#bd9e39",
        {"b1": 0.99, "b2": 0.99, "weight_decay": 0.0},
        does="Adam with equal betas",
        paper="Lyle et al. 2023",
        made_by="loplax.optim.adam",
        note="The betas are those of Dohare et al. 2024.",
        optimizer=_adam,
    ),
    "adamw": Plugin(
        "AdamW",
        "#e7ba52",
        {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "weight_decay": 1e-2},
        does="Adam with decoupled decay towards 0",
        paper="Loshchilov & Hutter 2019",
        made_by="optax.adamw",
        note="The decay is in units of the step size.",
        optimizer=_adamw,
    ),
    "upgd": Plugin(
        "UPGD",
        "#31a354",
        {
            "learning_rate": 0.01,
            "weight_decay": 0.01,
            "noise_scale": 0.1,
            "decay_rate": 0.9999,
        },
        does="protects useful weights and perturbs the others",
        paper="Elsayed & Mahmood 2024",
        made_by="loplax.optim.upgd",
        note="The numbers are those for input-permuted MNIST.",
        optimizer=_upgd,
    ),
}
