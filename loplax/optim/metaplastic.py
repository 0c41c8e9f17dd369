"""Metaplasticity: what has grown far from 0 is hard to bring back."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from loplax import checks, spelling
from loplax.optim import expected, paths, placement


def metaplastic(m: Any, *, mask: Any = None) -> optax.GradientTransformationExtraArgs:
    r"""Attenuates the updates that bring latent weights nearer to 0.

    For networks that compute with the signs of their weights: the further a latent
    weight :math:`w` is from 0, the surer its sign is, and the harder to change. With
    the updates :math:`u` of the optimiser before it

    .. math::
      u \leftarrow
      \begin{cases}
        (1 - \tanh^2(m |w|)) \, u & \operatorname{sign}(w) \, u < 0 \\
        u & \text{else}
      \end{cases}

    Growth is never attenuated, and nothing is at :math:`w = 0`. Parameters with fewer
    than two axes, biases and scales of norms, are left alone, and so are integers. It
    must be the last link of its chain, behind any optimiser, whose moments it leaves as
    they are. The authors' optimiser, with the gradients of the latent weights, is::

      optax.chain(
          optax.add_decayed_weights(1e-7),
          optim.adam(5e-3, None, eps_hat=True),
          optim.metaplastic(1.35),
      )

    As :math:`m` is measured in inverse weights, it depends on how far these get: on the
    learning rate times the number of steps. With a large :math:`m` later tasks are not
    learned.

    Args:
      m: :math:`m`, at least 0; 0 is the optimiser itself. A number (may be traced), a
        mapping with one for the path of every weight, or ``path -> number``; for a
        schedule see ``optax.inject_hyperparams``.
      mask: which parameters are meant, as in ``optax.masked``. Default: all.

    Returns:
      The transformation, without state; ``update`` needs ``params``.

    Raises:
      ValueError: for values out of range or paths that are no weights; in ``update``,
        without ``params``, for updates that lack a weight, or for weights of half
        precision, in which small steps away from 0, all that a sure weight is to
        remember, are rounded away.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> tx = optax.chain(optax.sgd(1.0), optim.metaplastic(2.0))
      >>> params = {"w": jnp.array([[0.5, -0.5, 0.0]])}
      >>> grads = {"w": jnp.array([[1.0, 1.0, 1.0]])}
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> print(updates["w"])  # 1 - tanh(1)^2 of the first
      [[-0.4199743 -1.        -1.       ]]

    References:
      Laborieux et al., `Synaptic metaplasticity in binarized neural networks
      <https://arxiv.org/abs/2003.03533>`_, Nature Communications 12, 2021, and the
      authors' code.
    """
    if not callable(m):
        for one in m.values() if isinstance(m, Mapping) else [m]:
            checks.in_range("m", one)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        expected.required_params(params)
        placement.require_last()
        found, new = paths.by_path(params).leaves, paths.by_path(updates)
        weights = {path: w for path, w in found.items() if _is_latent(w)}
        expected.alike("updates", updates, weights)
        of = _of_path(m, weights)
        for path, weight in weights.items():
            expected.wide("latent weights", path, weight)
            update, here = new.leaves[path], of(path)
            checks.in_range(f"m of {path!r}", here)
            # 1 - tanh(x)^2, of which float32 would leave nothing from x = 9 on.
            small = jnp.exp(-2 * (here * jnp.abs(weight)))
            kept = 4 * small / (1 + small) ** 2
            less = (kept * update).astype(update.dtype)
            back = jnp.sign(weight) * update < 0
            new.leaves[path] = jnp.where(back, less, update)
        return new.unflatten(), state

    tx = optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
    return tx if mask is None else optax.masked(tx, mask)


def _of_path(m: Any, weights: Mapping[str, jax.Array]) -> Callable[[str], Any]:
    if callable(m):
        return m
    if not isinstance(m, Mapping):
        return lambda path: m
    for path in m:
        if path not in weights:
            hint = spelling.hint(path, weights)
            raise ValueError(f"m: no weight {path!r} among {list(weights)}{hint}")
    for path in weights:
        if path not in m:
            raise ValueError(f"m: nothing for {path!r}; give it one, or mask it.")
    return m.__getitem__


def _is_latent(leaf: jax.Array) -> bool:
    return paths.is_weight(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
