"""Plugins that start units or weights anew while the network learns."""

import math

from experiments.methods.plugin import Plugin, Stage
from loplax import checks, optim


def _replacing(make):
    """A builder from a transformation of units, with a key and an initialiser."""

    def wrap(inner, setting, **own):
        fixed = {"initializer": setting.initializer, "key": setting.key}
        return make(inner, setting.groups, **fixed, **own)

    return wrap


def _cbp(inner, setting, **own):
    largest = max((group.size for group in setting.groups), default=1)
    most = max(1, math.ceil(setting.highest["replacement_rate"] * largest))
    make = _replacing(optim.continual_backprop)
    return make(inner, setting, max_replacements=most, **own)


def _release(inner, setting, *, magnitude, **own):
    return _cbp(inner, setting, release=magnitude, **own)


def _weight_resets(inner, setting, **own):
    fixed = {"initializer": setting.initializer, "key": setting.key}
    return optim.selective_weight_reinitialization(inner, **fixed, **own)


def _hare_tortoise(inner, setting, *, decay_rate, period):
    checks.in_range("decay_rate", decay_rate, 0, 1)
    # As the authors' supervised code; a schedule must not start again.
    return optim.hare_tortoise(
        inner, momentum=decay_rate, period=period, reset_inner=False
    )


# What starts units or weights anew stands alone, around all else.
_ONE = {"claims": ("replacement",), "stage": Stage.REPLACE}
_PER_UNIT = {**_ONE, "per_unit": lambda choices: choices.get("reset_inner", True)}
# Which units continual backprop chooses.
_NUMBERS = {"replacement_rate": 1e-4, "maturity_threshold": 100, "decay_rate": 0.99}
_CHOICES = {
    "utility": "adaptable_contribution",
    # How replacements add up: over the eligible units, over all once one is eligible,
    # or not at all but at random.
    "budget": "eligible",
    "reset_inner": True,  # whether the optimiser's moments start anew too
}

REPLACING = {
    "cbp": Plugin(
        "continual backprop",
        "#0072B2",
        _NUMBERS,
        _CHOICES,
        does=(
            "replaces the least useful mature units, a small fraction per step; "
            "seven utilities"
        ),
        paper="Dohare et al. 2024",
        made_by="loplax.optim.continual_backprop",
        note="The rate is that of the paper's regression problem.",
        wrap=_cbp,
        **_PER_UNIT,
    ),
    "release": Plugin(
        "release",
        "#7fb800",
        {**_NUMBERS, "magnitude": 0.01},
        _CHOICES,
        does=(
            "as `cbp`, but makes latent weights of a binarised network small again "
            "and keeps their signs"
        ),
        made_by="loplax.optim.continual_backprop",
        note="The magnitude is two steps of Laborieux et al. 2021.",
        options={"binary": True},
        wrap=_release,
        compared=False,
        **_PER_UNIT,
    ),
    "ccbp": Plugin(
        "CCBP",
        "#56B4E9",
        {
            "replacement_rate": 0.015,  # most that a unit is pulled back at once
            "sharpness": 16.0,  # of the sigmoid of the utility
            "threshold": 1.0,  # utility, in layer means, below which the pull is full
            "decay_rate": 0.99,
            "period": 1000,
        },
        does="pulls units back to their initialisation, the less useful the more",
        paper="McCutcheon 2026",
        made_by="loplax.optim.ccbp",
        note="The numbers are the best of the paper.",
        wrap=_replacing(optim.ccbp),
        **_PER_UNIT,
    ),
    "redo": Plugin(
        "ReDo",
        "#CC79A7",
        {"threshold": 0.1, "period": 1000, "decay_rate": 0.99},
        {"reset_inner": True},
        does="re-initialises dormant units",
        paper="Sokar et al. 2023",
        made_by="loplax.optim.redo",
        note="The decay is for batches of one example.",
        wrap=_replacing(optim.redo),
        **_PER_UNIT,
    ),
    "regrama": Plugin(
        "ReGraMa",
        "#7b4173",
        {"threshold": 0.01, "period": 1000, "decay_rate": 0.99},
        does="re-initialises units with little gradient",
        paper="Liu et al. 2025",
        made_by="loplax.optim.regrama",
        note="The paper has thresholds of 0.01 to 0.25.",
        wrap=_replacing(optim.regrama),
        **_PER_UNIT,
    ),
    "self_normalized_resets": Plugin(
        "self-normalised resets",
        "#ce6dbd",
        {"rejection_threshold": 0.05, "initial_threshold": 1000, "period": 1000},
        does="re-initialises units silent for longer than they ever are",
        paper="Farias & Jozefiak 2025",
        made_by="loplax.optim.self_normalized_resets",
        note="The paper's first threshold of 16 is for large batches.",
        wrap=_replacing(optim.self_normalized_resets),
        **_PER_UNIT,
    ),
    "weight_resets": Plugin(
        "weight resets",
        "#393b79",
        {"factor": 1e-3, "period": 1000},
        {
            "utility": "gradient",  # gradient, magnitude or random
            "pruning": "proportional",  # proportional or threshold
            "decay_rate": 0.0,  # of averaged utilities; 0: those of the step
        },
        does="re-draws the least useful weights",
        paper="Hernandez-Garcia et al. 2025",
        made_by="loplax.optim.selective_weight_reinitialization",
        note="The factor is a fraction of each tensor's weights.",
        wrap=_weight_resets,
        **_ONE,
    ),
    "hare_tortoise": Plugin(
        "hare and tortoise",
        "#8ca252",
        {"decay_rate": 0.999, "period": 1000},
        does="returns to the mean of its own path",
        paper="Lee et al. 2024",
        made_by="loplax.optim.hare_tortoise",
        note=(
            "The decay is the tortoise's momentum. What learns, and is measured, is "
            "the hare."
        ),
        wrap=_hare_tortoise,
        claims=("replacement",),
    ),
}
