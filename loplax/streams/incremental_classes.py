"""Class-incremental image classification: more and more classes, all kept in view."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from loplax import branch
from loplax.streams import augmentation, base


class IncrementalClassesState(NamedTuple):
    """State of the stream.

    Attributes:
      key: typed key of the draws to come.
      classes: the order in which classes come in, int32 ``[classes]``.
      order: the epoch's order of the images of all classes so far, int32
        ``[classes * images]``; image ``i`` belongs to ``classes[i // images]``.
      task: number of the task, int32 scalar.
      epoch: epoch within the task, int32 scalar.
      part: chunk within the epoch, int32 scalar.
    """

    key: jax.Array
    classes: jax.Array
    order: jax.Array
    task: jax.Array
    epoch: jax.Array
    part: jax.Array


def incremental_classes(
    train: jax.Array,
    validation: jax.Array,
    test: jax.Array,
    *,
    increment: int = 5,
    epochs: int = 200,
    batch: int = 90,
    augment: bool = True,
) -> base.Stream:
    """Starts with ``increment`` classes and adds as many at every task.

    All images of the classes seen so far are shown in every epoch, in minibatches; only
    the logits of these classes count. A chunk is the part of an epoch that holds as
    many images as ``increment`` classes have, so task ``t`` (from 0) has
    ``(t + 1) * epochs`` chunks. After the last classes, every ``epochs`` epochs of all
    classes are a task.

    Args:
      train: uint8 ``[classes, images, height, width, 3]``.
      validation: the same for choosing the stopping time.
      test: the same for testing.
      increment: classes per task.
      epochs: epochs per task.
      batch: examples per minibatch.
      augment: whether training images are flipped, shifted and rotated at random.

    Returns:
      The stream; inputs are float32 ``[batch, height, width, 3]``, standardised with
      the channels' mean and deviation of CIFAR-100; targets are pairs: labels int32
      ``[batch]`` and the classes seen so far, bool ``[classes]``. See
      `loplax.supervised.losses.masked`.

    Raises:
      ValueError: if sizes do not divide one another, or the sets have different
        classes.

    References:
      Dohare et al., Nature 632, 2024, "Class-incremental CIFAR-100".
    """
    total, each = train.shape[:2]
    if not 1 <= increment <= total or total % increment:
        raise ValueError(f"increment must divide {total} classes, got {increment}.")
    for name, images in (("validation", validation), ("test", test)):
        if images.shape[0] != total:
            raise ValueError(
                f"train has {total} classes, {name} has {images.shape[0]}."
            )
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}.")
    if not 1 <= batch <= increment * each or increment * each % batch:
        raise ValueError(
            f"batch must divide the {increment * each} images of {increment} classes, "
            f"got {batch}."
        )
    size = increment * each
    chunk = size // batch

    def classes_seen(task) -> jax.Array:
        return jnp.minimum((task + 1) * increment, total)

    def init(key) -> IncrementalClassesState:
        key, key_classes = jax.random.split(key)
        classes = jax.random.permutation(key_classes, total).astype(jnp.int32)
        order = jnp.arange(total * each, dtype=jnp.int32)
        zero = jnp.int32(0)
        return IncrementalClassesState(key, classes, order, zero, zero, zero - 1)

    def advance(state):
        """Moves on by a chunk; the first draw moves from part -1 to part 0."""
        part = state.part + 1
        new_epoch = part * increment >= classes_seen(state.task)
        epoch = state.epoch + new_epoch
        new_task = epoch >= epochs
        return state._replace(
            part=jnp.where(new_epoch, 0, part),
            epoch=jnp.where(new_task, 0, epoch),
            task=state.task + new_task,
        )

    def shuffle(key, order, seen):
        there = jnp.arange(order.size) < seen * each
        score = jnp.where(there, jax.random.uniform(key, order.shape), 2)
        return jnp.argsort(score).astype(jnp.int32)

    def draw(state):
        key, key_order, key_items = jax.random.split(state.key, 3)
        state = advance(state)._replace(key=key)
        begins, seen = state.part == 0, classes_seen(state.task)
        leave = lambda key, order, seen: order
        order = branch.cond(begins, shuffle, leave, key_order, state.order, seen)
        indices = jax.lax.dynamic_slice_in_dim(order, state.part * size, size)
        items = (indices.reshape(chunk, batch), jax.random.split(key_items, chunk))
        return state._replace(order=order), items

    def targets(state, classes):
        """The classes' labels, and which classes have been seen."""
        place = jnp.argsort(state.classes)
        return state.classes[classes], place < classes_seen(state.task)

    def standardised(images, *places):
        return augmentation.standardise(jnp.asarray(images)[places])

    def example(state, item):
        indices, key = item
        rank, index = jnp.divmod(indices, each)
        inputs = standardised(train, state.classes[rank], index)
        if augment:
            inputs = augmentation.augment(key, inputs)
        return inputs, targets(state, rank)

    def held_out(images) -> base.HeldOut:
        def one_class(state, rank):
            inputs = standardised(images, state.classes[rank])
            rank = jnp.full(images.shape[1], rank)
            weights = (rank < classes_seen(state.task)).astype(jnp.float32)
            return inputs, targets(state, rank), weights

        return base.HeldOut(one_class, total)

    def probe(state):
        """The test images of the classes that the task has added."""
        first = classes_seen(state.task) - increment
        rank, index = jnp.divmod(jnp.arange(increment * test.shape[1]), test.shape[1])
        inputs = standardised(test, state.classes[first + rank], index)
        return inputs, targets(state, first + rank)

    def epoch_ends(state) -> jax.Array:
        return (state.part + 1) * increment >= classes_seen(state.task)

    return base.Stream(
        init,
        draw,
        example,
        probe,
        chunk,
        task=lambda state: jnp.where(state.part < 0, -1, state.task),
        test=held_out(test),
        validation=held_out(validation),
        epoch_ends=epoch_ends,
        task_ends=lambda state: epoch_ends(state) & (state.epoch == epochs - 1),
    )
