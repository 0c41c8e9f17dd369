"""A long sequence of binary tasks: two classes of images, minibatches, many epochs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loplax import branch
from loplax.streams import base


class ClassPairsState(NamedTuple):
    """State of the stream.

    Attributes:
      key: typed key of the draws to come.
      epoch: epochs drawn so far, int32 scalar.
      classes: the order of the classes in this pass, int32 ``[classes]``.
    """

    key: jax.Array
    epoch: jax.Array
    classes: jax.Array


def by_class(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Sorts images by class, as many of every class as the smallest has.

    Args:
      images: ``[images, ...]``.
      labels: integers from 0, ``[images]``.

    Returns:
      ``[classes, images per class, ...]``, in the order given.

    Example:
      >>> by_class(np.array([10, 20, 11, 21, 12]), np.array([0, 1, 0, 1, 0])).tolist()
      [[10, 11], [20, 21]]
    """
    number = np.bincount(labels).min()
    classes = range(labels.max() + 1)
    return np.stack([images[labels == label][:number] for label in classes])


def class_pairs(
    train: jax.Array, test: jax.Array, *, epochs: int = 250, batch: int = 100
) -> base.Stream:
    """Binary classification of two classes at a time, every class once per pass.

    Every pass shuffles the classes and takes them two by two; a task shows all images
    of its two classes in minibatches, in a new order every epoch, and is tested on the
    test images of both.

    Args:
      train: uint8 ``[classes, images, height, width, channels]``, as from `by_class`.
      test: uint8 ``[classes, images, height, width, channels]``.
      epochs: epochs per task.
      batch: examples per minibatch.

    Returns:
      The stream; an item is a minibatch: inputs float32 in [0, 1]
      ``[batch, height, width, channels]``, targets int32 ``[batch]`` in {0, 1}. A chunk
      is an epoch.

    Raises:
      ValueError: if the images of two classes are no whole number of minibatches,
        there are no two classes, or the two sets have different classes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> images = jnp.zeros((4, 6, 8, 8, 1), jnp.uint8)
      >>> stream = class_pairs(images, images, epochs=2, batch=4)
      >>> stream.chunk
      3

    References:
      Dohare et al., Nature 632, 2024, "Continual ImageNet".
    """
    classes, each = train.shape[:2]
    if classes < 2:
        raise ValueError(f"there must be at least 2 classes, got {classes}.")
    if test.shape[0] != classes:
        raise ValueError(f"train has {classes} classes, test has {test.shape[0]}.")
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}.")
    if not 1 <= batch <= 2 * each or 2 * each % batch:
        raise ValueError(
            f"batch must divide the {2 * each} images of two classes, got {batch}."
        )
    chunk = 2 * each // batch
    per_pass = classes // 2

    def task(state) -> jax.Array:
        return (state.epoch - 1) // epochs

    def pair(state) -> jax.Array:
        first = 2 * (task(state) % per_pass)
        return jax.lax.dynamic_slice_in_dim(state.classes, first, 2)

    def init(key) -> ClassPairsState:
        return ClassPairsState(key, jnp.int32(0), jnp.arange(classes, dtype=jnp.int32))

    def draw(state):
        key, key_pass, key_order = jax.random.split(state.key, 3)
        new_pass = state.epoch % (epochs * per_pass) == 0
        leave = lambda key, order: order
        order = branch.cond(
            new_pass, jax.random.permutation, leave, key_pass, state.classes
        )
        items = jax.random.permutation(key_order, 2 * each).reshape(chunk, batch)
        return ClassPairsState(key, state.epoch + 1, order), items

    def show(state, images, indices):
        which, index = jnp.divmod(indices, images.shape[1])
        return jnp.asarray(images)[pair(state)[which], index] / 255.0, which

    def test_batch(state, i):
        number = 2 * test.shape[1]
        x, y = show(state, test, jnp.arange(number))
        return x, y, jnp.ones(number)

    return base.Stream(
        init,
        draw,
        example=lambda state, item: show(state, train, item),
        probe=lambda state: show(state, test, jnp.arange(2 * test.shape[1])),
        chunk=chunk,
        task=task,
        test=base.HeldOut(test_batch, 1),
    )
