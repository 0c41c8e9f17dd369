"""What the signs of the weights are worth to what is learned."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from loplax.metrics import matrices


class SwitchingCost(NamedTuple):
    """What switching signs costs, by the size of the weights, each ``[bins]``.

    Attributes:
      size: mean of ``|w|`` of the weights that were switched, in parts of the largest.
      mean: increase of the loss per switched sign, mean over the runs.
      deviation: its standard deviation over the runs.
    """

    size: jax.Array
    mean: jax.Array
    deviation: jax.Array


def switching_cost(
    loss: Callable[[Any], jax.Array],
    params,
    path: str,
    key: jax.Array,
    *,
    switched: int,
    bins: int = 15,
    runs: int = 100,
) -> SwitchingCost:
    r"""By how much a loss increases if signs of weights of about one size are switched.

    The weights of one array are sorted into ``bins`` of equal width of :math:`|w|`,
    from 0 to the largest. In each run a set :math:`S` of so many as are to be
    ``switched`` is drawn from every bin, and

    .. math::
      \Delta L = \frac{L(w \text{ with } w_i \to -w_i \text{ for } i \in S) - L(w)}{|S|}

    Where networks compute with the signs of latent weights, this tells whether these
    are the larger the more their signs matter. It evaluates the loss ``bins * runs``
    times, one after the other.

    Args:
      loss: ``params -> scalar``, such as the mean over a probe batch.
      params: a tree of arrays.
      path: of the array in it, keys joined by ``/``.
      key: typed random key.
      switched: how many signs are switched at once.
      bins: number of bins.
      runs: number of draws from every bin.

    Returns:
      The cost, NaN in bins with fewer weights than are to be switched, and everywhere
      if the weights are all 0 or not finite.

    Raises:
      ValueError: for a path that is not there, or a number less than 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> loss = lambda params: jnp.sum((params["w"] - 1) ** 2)
      >>> params = {"w": jnp.array([-0.25, 1.0])}
      >>> switching_cost(loss, params, "w", jax.random.key(0), switched=1, bins=3).mean
      Array([-1., nan,  4.], dtype=float32)

    References:
      Laborieux et al., `Synaptic metaplasticity in binarized neural networks
      <https://doi.org/10.1038/s41467-021-22768-y>`_, Nature Communications 12, 2021,
      figure 5, and the authors' code.
    """
    for name, value in (("switched", switched), ("bins", bins), ("runs", runs)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    pairs, treedef = jax.tree_util.tree_flatten_with_path(params)
    names = [jax.tree_util.keystr(at, simple=True, separator="/") for at, _ in pairs]
    if path not in names:
        raise ValueError(f"path must be one of {names}, got {path!r}.")
    leaves, place = [leaf for _, leaf in pairs], names.index(path)
    weights = jnp.ravel(leaves[place])
    size = jnp.abs(matrices.at_least_float32(weights))
    largest = jnp.max(size)
    sound = jnp.isfinite(largest) & (largest > 0)
    relative = size / jnp.where(sound, largest, 1)
    group = jnp.minimum((relative * bins).astype(int), bins - 1)
    starts = jnp.searchsorted(jnp.sort(group), jnp.arange(bins + 1))
    before, number = loss(params), min(switched, weights.size)

    def changed(some):
        new = weights.at[some].multiply(-1).reshape(leaves[place].shape)
        other = [new if i == place else leaf for i, leaf in enumerate(leaves)]
        cost = (loss(jax.tree.unflatten(treedef, other)) - before) / switched
        return jnp.mean(relative[some]), cost

    def one_run(key):
        # A random order of the weights of every bin: those at its beginning are drawn.
        order = jnp.lexsort((jax.random.uniform(key, weights.shape), group))

        def one_bin(ends):
            some = jax.lax.dynamic_slice(order, ends[:1], (number,))
            nothing = lambda some: (relative[0] * jnp.nan, before * jnp.nan)
            enough = sound & (ends[1] - ends[0] >= switched)
            return jax.lax.cond(enough, changed, nothing, some)

        return jax.lax.map(one_bin, jnp.stack([starts[:-1], starts[1:]], axis=1))

    sizes, costs = jax.lax.map(one_run, jax.random.split(key, runs))
    return SwitchingCost(sizes.mean(0), costs.mean(0), costs.std(0))
