"""Online normalisation of the inputs by exponential moving statistics.

Normalised inputs are longer than raw ones (on handwritten digits their squared length
is 62 instead of 15, on MNIST 522 instead of 88), so that every step of SGD is larger,
and without weight decay a network loses its plasticity sooner than on raw inputs. With
it, normalised inputs are learned from better. Online accuracy, with steps of SGD of
size 0.01 and a decay of the statistics of 0.999, without and with an L2 regularisation
of 0.01:

==================================  ====  ==========  =======  ==============
problem                              raw  normalised  raw, L2  normalised, L2
==================================  ====  ==========  =======  ==============
digits, mean of 50 permutations     0.65        0.59     0.71            0.83
digits, the last permutation        0.57        0.49     0.69            0.83
MNIST, mean of 30 permutations      0.84        0.77     0.83            0.86
MNIST, the last permutation         0.84        0.67     0.83            0.85
==================================  ====  ==========  =======  ==============

The digits are those of ``experiments/permuted_mnist`` (16 seeds); on MNIST (one seed)
tasks have 5,000 examples and the network 300 and 150 hidden units; these, the step size
and the regularisation are those of UPGD in Elsayed & Mahmood, `Addressing loss of
plasticity and catastrophic forgetting in continual learning
<https://arxiv.org/abs/2404.00781>`_, ICLR 2024.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class InputStatistics(NamedTuple):
    """Moving statistics of the inputs.

    Attributes:
      mean: moving mean, ``shape``.
      variance: moving variance, ``shape``.
      weight: sum of the weights of all batches so far, the last one's being 1;
        ``shape``, since a batch may be without a number for some of the features.
    """

    mean: jax.Array
    variance: jax.Array
    weight: jax.Array


def init(shape: tuple[int, ...]) -> InputStatistics:
    """Statistics before the first input: mean 0, variance 1, no weight.

    Args:
      shape: shape of one input; or its last axes, such as the channels, to have one
        mean and variance for all of what lies before them.

    Returns:
      The statistics.
    """
    return InputStatistics(jnp.zeros(shape), jnp.ones(shape), jnp.zeros(shape))


def update(stats: InputStatistics, x: jax.Array, decay) -> InputStatistics:
    r"""Takes in one input or a batch.

    Mean and variance are those of all inputs so far, each batch with ``decay`` times
    the weight of the next. With :math:`w` the sum of these weights and :math:`m, v` the
    mean and variance of the batch (:math:`x, 0` for a single input):

    .. math::
      w &\leftarrow \eta w + 1, \quad \alpha = 1 / w, \quad \delta = m - \mu \\
      \mu &\leftarrow \mu + \alpha \delta \\
      \sigma^2 &\leftarrow (1 - \alpha) (\sigma^2 + \alpha \delta^2) + \alpha v

    Since :math:`\alpha = 1` at first, nothing is biased by the initial values. Call it
    before `normalize`: an input that is new to the statistics is then at most
    :math:`1 / \sqrt \alpha` standard deviations off. Values that are not finite are
    left out; a feature without any other in a batch keeps its mean, variance and
    weight.

    Args:
      stats: the statistics.
      x: inputs, ``[..., *shape]``.
      decay: :math:`\eta` in [0, 1], per batch; the field takes 0.99 or 0.999, and 1
        weighs all batches alike. May be traced.

    Returns:
      The new statistics.

    Raises:
      ValueError: if the last axes of ``x`` are not ``shape``, or for a decay out of
        range.

    Example:
      >>> import jax.numpy as jnp
      >>> stats = update(init((2,)), jnp.array([1.0, 5.0]), decay=1.0)
      >>> stats = update(stats, jnp.array([3.0, 5.0]), decay=1.0)
      >>> stats.mean.tolist(), stats.variance.tolist()
      ([2.0, 5.0], [1.0, 0.0])
    """
    if not isinstance(decay, jax.core.Tracer) and not 0 <= decay <= 1:
        raise ValueError(f"decay must be in [0, 1], got {decay}.")
    shape = stats.mean.shape
    if x.shape[x.ndim - len(shape) :] != shape:
        raise ValueError(f"x must have shape [..., *{shape}], got {x.shape}.")
    x = x.astype(stats.mean.dtype)  # squares of half precision may overflow
    axes, finite = tuple(range(x.ndim - len(shape))), jnp.isfinite(x)
    weight = decay * stats.weight + 1
    step = 1 / weight
    change = jnp.mean(x, axes, where=finite) - stats.mean
    between = (1 - step) * (stats.variance + step * jnp.square(change))
    variance = between + step * jnp.var(x, axes, where=finite)
    new = InputStatistics(stats.mean + step * change, variance, weight)
    # Without a finite value it is NaN, and infinite where a square overflows.
    known = jnp.isfinite(variance)
    return jax.tree.map(lambda new, old: jnp.where(known, new, old), new, stats)


def normalize(
    stats: InputStatistics, x: jax.Array, epsilon=1e-5, limit=5.0
) -> jax.Array:
    r"""Shifts and scales inputs to mean 0 and variance 1 under the statistics.

    .. math::
      \operatorname{clip}((x - \mu) / \sqrt{\sigma^2 + \epsilon}, -c, c)

    What was constant and comes alive, as pixels at the border do when their permutation
    changes, is up to :math:`1 / \sqrt \alpha` standard deviations off (`update`): 31
    with a decay of 0.999. The limit on that gains 1.2 points of online accuracy on the
    permutations of MNIST above.

    Args:
      stats: the statistics.
      x: inputs, ``[..., *shape]``.
      epsilon: added to the variance.
      limit: :math:`c`, standard deviations at most; infinite for no limit.

    Returns:
      The normalised inputs, ``[..., *shape]``.

    Example:
      >>> import jax.numpy as jnp
      >>> stats = InputStatistics(jnp.array([1.0]), jnp.array([4.0]), jnp.array([1.0]))
      >>> [round(float(normalize(stats, jnp.array([x]))[0]), 3) for x in (5.0, 99.0)]
      [2.0, 5.0]
    """
    normal = (x - stats.mean) * jax.lax.rsqrt(stats.variance + epsilon)
    return jnp.clip(normal, -limit, limit)
