"""Plugins against the stability gap: what learns how fast when a session begins."""

from experiments.methods.plugin import Plugin
from loplax.supervised import new_classes, soft_targets

CONSOLIDATING = {
    # Harun & Kanan 2024: targets t = v / sum(v), where v is M_y for an old class y and
    # p for a new one, v of the class predicted is 1 / K, and then v of y is 1.
    "soft_targets": Plugin(
        "soft targets",
        "#54278f",
        choices={"weighting": "examples"},
        compared=False,  # as all here, it needs sessions
        objective=soft_targets.objective,
        keeper=lambda problem, weighting: soft_targets.keeper(problem),
    ),
    # Harun & Kanan 2024: w_c = mean of h / |h| over the session's examples of class c.
    "class_mean": Plugin(
        "class means",
        "#006d2c",
        claims=("new_classes",),
        compared=False,
        on_task=new_classes.class_mean,
    ),
    # Harun & Kanan 2025: W = Y'H / n (H'H / n + ridge)^-1; the ridge is ours.
    "least_squares": Plugin(
        "least squares",
        "#66a61e",
        {"ridge": 0.01},
        claims=("new_classes",),
        compared=False,
        on_task=new_classes.least_squares,
    ),
}
