"""Networks, as Flax linen modules."""

from loplax.nets.mlp import ACTIVATIONS, MLP, kaiming_uniform

__all__ = ["ACTIVATIONS", "MLP", "kaiming_uniform"]
