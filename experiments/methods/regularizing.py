"""Plugins that keep weights small, near their start, or in shape."""

import jax
import optax

from experiments.methods.plugin import Plugin
from loplax import optim
from loplax.units import paths


def _added(make):
    return lambda setting, **own: make(**own)


def _parseval(setting, **own):
    """Of the weights into hidden layers only."""
    hidden = {axis.path for group in setting.groups for axis in group.incoming}
    is_hidden = lambda path, _: paths.name(path) in hidden
    mask = lambda params: jax.tree.map_with_path(is_hidden, params)
    return optax.masked(optim.parseval_regularization(**own), mask)


def _shrink_and_perturb(inner, setting, **own):
    return optim.shrink_and_perturb(inner, key=setting.key, **own)


REGULARIZING = {
    # Added to the gradient. Dohare et al. 2024: 1e-3 to 1e-6.
    "l2": Plugin("L2", "#009E73", {"weight_decay": 1e-3}, sets=("weight_decay",)),
    # Dohare et al. 2024: decay 1e-2 in the gradient, noise 1e-6 to 1e-1 at every step.
    # Ash & Adams 2020 shrink the weights themselves, every so often.
    "shrink_and_perturb": Plugin(
        "shrink and perturb",
        "#E69F00",
        {"shrink": 1.0, "weight_decay": 1e-2, "perturb_scale": 1e-3, "period": 1},
        sets=("weight_decay",),
        wrap=_shrink_and_perturb,
    ),
    # Kumar et al. 2023: 1e-2 to 1e-5.
    "l2_init": Plugin(
        "L2 init",
        "#66c2a5",
        {"strength": 1e-3},
        gradient=lambda setting, strength: optim.l2_init(strength),
    ),
    # Lewandowski et al. 2025.
    "spectral": Plugin(
        "spectral",
        "#a6761d",
        {"strength": 1e-3, "exponent": 2.0},
        gradient=_added(optim.spectral_regularization),
    ),
    # Chung et al. 2024; hidden layers only.
    "parseval": Plugin(
        "Parseval", "#e7298a", {"strength": 1e-3, "scale": 2.0}, gradient=_parseval
    ),
    # Lewandowski et al. 2024.
    "wasserstein": Plugin(
        "Wasserstein",
        "#1b9e77",
        {"strength": 1e-3},
        gradient=_added(optim.wasserstein_regularization),
    ),
    # Elsayed et al. 2024.
    "weight_clipping": Plugin(
        "weight clipping",
        "#a1d99b",
        {"kappa": 2.0},
        wrap=lambda inner, setting, **own: optim.weight_clipping(inner, **own),
    ),
    # Lyle et al. 2024.
    "nap": Plugin(
        "normalise and project",
        "#843c39",
        options={"normalization": "layer"},
        wrap=lambda inner, setting: optim.normalize_and_project(inner),
        draws_output=True,
    ),
}
