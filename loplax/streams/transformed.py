"""Images that are rotated or permuted: one task for every angle or permutation."""

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


def permuted(images: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
    """The images with their pixels in so many random orders.

    Args:
      images: ``[images, ...]``.
      number: of orders, at least 1.
      seed: of these.

    Returns:
      ``[number * images, pixels]``, order by order, of the same type.

    Raises:
      ValueError: for a number below 1.

    Example:
      >>> image = np.arange(4).reshape(1, 2, 2)
      >>> sorted(permuted(image, 2)[1].tolist())
      [0, 1, 2, 3]
    """
    if number < 1:
        raise ValueError(f"number must be at least 1, got {number}.")
    flat = images.reshape(len(images), -1)
    random = np.random.default_rng(seed)
    return np.concatenate(
        [flat[:, random.permutation(flat.shape[1])] for _ in range(number)]
    )
