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
    "l2": Plugin(
        "L2",
        "#009E73",
        {"weight_decay": 1e-3},
        sets=("weight_decay",),
        does="decays weights towards 0",
        note=(
            "The decay is added to the gradient. Dohare et al. 2024 have 1e-3 to 1e-6."
        ),
    ),
    "shrink_and_perturb": Plugin(
        "shrink and perturb",
        "#E69F00",
        {"shrink": 1.0, "weight_decay": 1e-2, "perturb_scale": 1e-3, "period": 1},
        does="shrinks all weights and adds noise",
        paper="Ash & Adams 2020",
        made_by="loplax.optim.shrink_and_perturb",
        note=(
            "Dohare et al. 2024 have a decay of 1e-2 in the gradient, and noise of "
            "1e-6 to 1e-1 at every step. Ash & Adams shrink the weights themselves, "
            "every so often."
        ),
        sets=("weight_decay",),
        wrap=_shrink_and_perturb,
    ),
    "l2_init": Plugin(
        "L2 init",
        "#66c2a5",
        {"strength": 1e-3},
        does="decays weights towards the initial ones",
        paper="Kumar et al. 2023",
        made_by="loplax.optim.l2_init",
        note="The paper has 1e-2 to 1e-5.",
        gradient=lambda setting, strength: optim.l2_init(strength),
    ),
    "spectral": Plugin(
        "spectral",
        "#a6761d",
        {"strength": 1e-3, "exponent": 2.0},
        does="keeps each layer's largest singular value at 1",
        paper="Lewandowski et al. 2025",
        made_by="loplax.optim.spectral_regularization",
        gradient=_added(optim.spectral_regularization),
    ),
    "parseval": Plugin(
        "Parseval",
        "#e7298a",
        {"strength": 1e-3, "scale": 2.0},
        gradient=_parseval,
        does="keeps layers near orthogonal",
        paper="Chung et al. 2024",
        made_by="loplax.optim.parseval_regularization",
        note="Hidden layers only.",
    ),
    "wasserstein": Plugin(
        "Wasserstein",
        "#1b9e77",
        {"strength": 1e-3},
        does="keeps the distribution of the weights",
        paper="Lewandowski et al. 2024",
        made_by="loplax.optim.wasserstein_regularization",
        gradient=_added(optim.wasserstein_regularization),
    ),
    "weight_clipping": Plugin(
        "weight clipping",
        "#a1d99b",
        {"kappa": 2.0},
        does="keeps weights in their initial range",
        paper="Elsayed et al. 2024",
        made_by="loplax.optim.weight_clipping",
        wrap=lambda inner, setting, **own: optim.weight_clipping(inner, **own),
    ),
    "nap": Plugin(
        "normalise and project",
        "#843c39",
        does="layer norm, and weights of constant norm",
        paper="Lyle et al. 2024",
        made_by="loplax.optim.normalize_and_project",
        options={"normalization": "layer"},
        wrap=lambda inner, setting: optim.normalize_and_project(inner),
        draws_output=True,
    ),
}
