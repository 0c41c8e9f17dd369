"""Images that are rotated: one task for every angle."""

from collections.abc import Sequence

import numpy as np


def rotated(images: np.ndarray, degrees: Sequence[float]) -> np.ndarray:
    """The images at every angle, each pixel that of the nearest one before.

    Args:
      images: ``[images, height, width, ...]``.
      degrees: the angles, counter-clockwise about the centre.

    Returns:
      ``[angles * images, height, width, ...]``, angle by angle, of the same type; 0
      where nothing was.

    Raises:
      ValueError: for images of another form.

    Example:
      >>> image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
      >>> rotated(image, [0, 90]).tolist()
      [[[0, 1], [2, 3]], [[1, 3], [0, 2]]]

    References:
      Rotated MNIST of Lopez-Paz & Ranzato 2017.
    """
    from scipy import ndimage

    if images.ndim < 3:
        raise ValueError(
            f"images must be [images, height, width, ...], got {images.shape}."
        )
    turn = lambda angle: ndimage.rotate(
        images, angle, axes=(1, 2), reshape=False, order=0
    )
    return np.concatenate([turn(angle) for angle in degrees])
