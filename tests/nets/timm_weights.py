"""Random weights of a ConvNeXt V2 as timm publishes them."""

import math

import numpy as np


def invented(net, pointwise=(), response=lambda n: (n,)):
    """Random weights by the names of timm, in PyTorch's layouts."""
    shapes = {}

    def layer(name, *shape):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    layer("stem.0", net.dims[0], 3, net.patch, net.patch)
    layer("stem.1", net.dims[0])
    for i, (size, depth) in enumerate(zip(net.dims, net.depths, strict=True)):
        if i > 0:
            layer(f"stages.{i}.downsample.0", net.dims[i - 1])
            layer(f"stages.{i}.downsample.1", size, net.dims[i - 1], 2, 2)
        for j in range(depth):
            block = f"stages.{i}.blocks.{j}"
            layer(f"{block}.conv_dw", size, 1, net.side, net.side)
            layer(f"{block}.norm", size)
            layer(f"{block}.mlp.fc1", 4 * size, size, *pointwise)
            for part in ("weight", "bias"):
                shapes[f"{block}.mlp.grn.{part}"] = response(4 * size)
            layer(f"{block}.mlp.fc2", size, 4 * size, *pointwise)
    layer("head.norm", net.dims[-1])
    layer("head.fc", net.outputs, net.dims[-1])
    rng = np.random.default_rng(1)

    def draw(name, shape):
        kernel = len(shape) > 1 and "grn" not in name
        scale = math.prod(shape[1:]) ** -0.5 if kernel else 0.3
        mean = 0 if kernel or name.endswith("bias") else 1
        return (mean + scale * rng.normal(size=shape)).astype(np.float32)

    return {name: draw(name, shape) for name, shape in shapes.items()}
