"""Networks, as Flax linen modules, and what goes around a network."""

from loplax import extras

with extras.needed("nets", "loplax.nets"):
    from loplax.nets import input_normalization
    from loplax.nets.actor_critic import ActorCritic
    from loplax.nets.batch_norm import restart_statistics
    from loplax.nets.binary import BinaryMLP, BinaryVGG
    from loplax.nets.binary_layers import (
        BinaryConv,
        BinaryDense,
        latent_uniform,
        sign_hardtanh,
        sign_identity,
    )
    from loplax.nets.conv import ConvNet
    from loplax.nets.convnext import ConvNeXt, GlobalResponseNorm
    from loplax.nets.layers import (
        ACTIVATIONS,
        NORMALIZATIONS,
        crelu,
        kaiming_normal,
        kaiming_uniform,
        pytorch_uniform,
    )
    from loplax.nets.low_rank import low_rank, merge_low_rank
    from loplax.nets.mlp import MLP
    from loplax.nets.plasticity_injection import learn_in_turn, plasticity_injection
    from loplax.nets.pooling import max_pool
    from loplax.nets.published import convnext_from
    from loplax.nets.resnet import ResNet18, resnet18_reference_units

__all__ = [
    "ACTIVATIONS",
    "ActorCritic",
    "BinaryConv",
    "BinaryDense",
    "BinaryMLP",
    "BinaryVGG",
    "MLP",
    "NORMALIZATIONS",
    "ConvNeXt",
    "ConvNet",
    "GlobalResponseNorm",
    "ResNet18",
    "convnext_from",
    "crelu",
    "input_normalization",
    "kaiming_normal",
    "kaiming_uniform",
    "latent_uniform",
    "learn_in_turn",
    "low_rank",
    "max_pool",
    "merge_low_rank",
    "plasticity_injection",
    "pytorch_uniform",
    "resnet18_reference_units",
    "restart_statistics",
    "sign_hardtanh",
    "sign_identity",
]
