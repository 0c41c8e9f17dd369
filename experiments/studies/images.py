"""Images as networks for 32x32 pixels take them."""

import numpy as np

from experiments.studies import defaults
from loplax import checks

SIDE = 32


def to_32(images: np.ndarray) -> np.ndarray:
    """Enlarges images by a whole factor, and pads them with zeros, to 32x32.

    Args:
      images: ``[images, height, width, channels]``, at most 32x32.

    Returns:
      ``[images, 32, 32, channels]``, of the same type.

    Raises:
      ValueError: if they are larger.
    """
    if max(images.shape[1:3]) > SIDE:
        raise ValueError(f"images must be at most 32x32, got {images.shape[1:3]}.")
    factor = SIDE // max(images.shape[1:3])
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    missing = [SIDE - side for side in images.shape[1:3]]
    edges = [(gap // 2, gap - gap // 2) for gap in missing]
    return np.pad(images, ((0, 0), *edges, (0, 0)))


def patches(config) -> bool:
    """Whether convolutions are to be matrix products of patches.

    Raises:
      ValueError: unless ``config.patches`` is yes, no or auto.
    """
    checks.one_of("patches", config.patches, ("yes", "no", "auto"))
    if config.patches == "auto":
        return defaults.on_cpu(config)
    return config.patches == "yes"
