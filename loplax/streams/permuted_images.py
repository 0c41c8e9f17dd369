"""Images whose pixels are permuted anew for every task, seen one at a time."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from loplax import branch
from loplax.streams import base

MAX_CHUNK = 10_000


class PermutedImagesState(NamedTuple):
    """State of the stream.

    Attributes:
      key: typed key of the draws to come.
      position: examples drawn so far, int32 scalar.
      order: the order in which the images are shown, int32 ``[images]``.
      permutations: of the pixels, int32 ``[2, pixels]``: this task's and the next's.
    """

    key: jax.Array
    position: jax.Array
    order: jax.Array
    permutations: jax.Array


def permuted_images(
    images: jax.Array,
    labels: jax.Array,
    *,
    period: int = 60_000,
    shift: str = "abrupt",
    probe: int = 2_000,
) -> base.Stream:
    """Online classification of images with a new pixel permutation every ``period``.

    Within a task every image is shown once, in an order of the task's own, before any
    is shown again. Nothing tells the learner that the task has changed.

    Args:
      images: uint8 ``[images, ...]``; they become float32 in [0, 1] in the step.
      labels: integers ``[images]``.
      period: examples per task.
      shift: ``"abrupt"``, or ``"gradual"``: an example of the task is shown with the
        next task's permutation with a probability that grows linearly from 0 to 1.
      probe: images of the diagnostics, the first ones of the task.

    Returns:
      The stream; inputs float32 ``[pixels]``, targets int32 scalars.

    Raises:
      ValueError: for sizes out of range or an unknown ``shift``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> images = jnp.arange(24, dtype=jnp.uint8).reshape(6, 2, 2)
      >>> stream = permuted_images(images, jnp.arange(6), period=6)
      >>> state, items = stream.draw(stream.init(jax.random.key(0)))
      >>> x, y = stream.example(state, jax.tree.map(lambda item: item[0], items))
      >>> x.shape, bool((jnp.sort(x * 255) == jnp.arange(4 * y, 4 * y + 4)).all())
      ((4,), True)

    References:
      Goodfellow et al. 2013; online, Dohare et al., Nature 632, 2024, "Online Permuted
      MNIST".
    """
    number, pixels = images.shape[0], math.prod(images.shape[1:])
    if shift not in ("abrupt", "gradual"):
        raise ValueError(f"shift must be 'abrupt' or 'gradual', got {shift!r}.")
    for name, value in (("period", period), ("probe", probe)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if labels.shape != (number,):
        raise ValueError(f"{number} images need as many labels, got {labels.shape}.")
    common = math.gcd(period, number)
    chunk = next(n for n in range(min(common, MAX_CHUNK), 0, -1) if common % n == 0)
    flat = images.reshape(number, pixels)

    def new_permutation(key) -> jax.Array:
        return jax.random.permutation(key, pixels).astype(jnp.int32)

    def init(key) -> PermutedImagesState:
        key, key_first, key_second = jax.random.split(key, 3)
        both = jnp.stack([new_permutation(key_first), new_permutation(key_second)])
        return PermutedImagesState(
            key, jnp.int32(0), jnp.arange(number, dtype=jnp.int32), both
        )

    def begin_task(key, order, permutations):
        key_order, key_pixels = jax.random.split(key)
        following = jnp.stack([permutations[1], new_permutation(key_pixels)])
        return jax.random.permutation(key_order, order), following

    def draw(state):
        key, key_task, key_mix = jax.random.split(state.key, 3)
        within = state.position % period
        leave = lambda key, order, permutations: (order, permutations)
        order, permutations = branch.cond(
            within == 0, begin_task, leave, key_task, state.order, state.permutations
        )
        indices = jax.lax.dynamic_slice_in_dim(order, within % number, chunk)
        share = (within + jnp.arange(chunk)) / period
        upcoming = jax.random.uniform(key_mix, (chunk,)) < share
        which = (
            upcoming.astype(jnp.int32)
            if shift == "gradual"
            else jnp.zeros_like(indices)
        )
        state = PermutedImagesState(key, state.position + chunk, order, permutations)
        return state, (indices, which)

    def example(state, item):
        index, which = item
        pixels = jnp.asarray(flat)[index][state.permutations[which]]
        return pixels / 255.0, jnp.asarray(labels)[index]

    def probe_batch(state):
        shown = state.order[:probe]
        pixels = jnp.asarray(flat)[shown][:, state.permutations[0]]
        return pixels / 255.0, jnp.asarray(labels)[shown]

    def task(state) -> jax.Array:
        return (state.position - chunk) // period

    return base.Stream(init, draw, example, probe_batch, chunk, task)
