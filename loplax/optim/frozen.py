"""Weights that do not learn for a while: rows of classes that are known, say."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax.optim import expected, placement


class FrozenState(NamedTuple):
    """State of `frozen`.

    Attributes:
      inner: state of the inner optimiser.
    """

    inner: optax.OptState


def frozen(
    inner: optax.GradientTransformation,
    *,
    argument: str = "frozen",
    exact: bool = True,
    beside: Sequence[str] = ("reference",),
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that some weights stay as they are, step by step.

    With the updates :math:`u` that the optimiser makes of gradients :math:`g`, and
    flags :math:`f`

    .. math::
      g_i \leftarrow 0, \quad u_i \leftarrow 0 \quad \text{where } f_i

    which neither momentum nor the decay of weights escapes. What is frozen is told at
    every update, so that it may change: weight by weight, unlike with ``optax.masked``
    or ``optax.freeze``. It must be the last link of a chain. What replaces units goes
    around it, and replaces those that are frozen too.

    Args:
      inner: the optimiser of all parameters.
      argument: name of the further argument of ``update`` with the flags: bool arrays,
        in a tree with the structure of the parameters or a prefix of it, each of which
        broadcasts to the leaves that it is for.
      exact: whether the updates are 0 too. Otherwise only gradients are, and a decay
        still shrinks what is frozen, as in the code of Harun & Kanan.

      beside: names of further arguments of ``update`` that are gradients too, such as
        the reference of `a_gem`, and are stopped likewise.

    Returns:
      The transformation.

    Raises:
      ValueError: in ``update``, without the argument, or if it holds no flags.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from loplax import optim
      >>> tx = optim.frozen(optax.sgd(0.5))
      >>> params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
      >>> old = jnp.array([True, True, False])
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, frozen=old)
      >>> updates["bias"].tolist()
      [0.0, 0.0, -0.5]

    References:
      Freezing old output classes in Harun & Kanan, `Overcoming the stability gap in
      continual learning <https://arxiv.org/abs/2306.01904>`_, TMLR 2024.
    """
    inner = expected.optimizer(inner)

    def init(params) -> FrozenState:
        return FrozenState(inner.init(params))

    def update(grads, state, params=None, **extra_args):
        placement.require_last()
        flags = extra_args.pop(argument, None)
        if flags is None:
            raise ValueError(
                f"update needs {argument}=..., the flags of what is frozen."
            )
        flags = jax.tree.broadcast(flags, grads)
        stop = lambda tree: jax.tree.map(_zero, flags, tree)
        extra_args |= {n: stop(extra_args[n]) for n in beside if n in extra_args}
        with placement.changing("frozen"):
            updates, new = inner.update(stop(grads), state.inner, params, **extra_args)
        return stop(updates) if exact else updates, FrozenState(new)

    return optax.GradientTransformationExtraArgs(init, update)


def _zero(flag: Any, value: jax.Array) -> jax.Array:
    kind, shape = jnp.result_type(flag), jnp.shape(flag)
    last = value.shape[value.ndim - len(shape) :]
    fits = len(shape) <= value.ndim and all(
        one in (1, other) for one, other in zip(shape, last, strict=True)
    )
    if not (jnp.issubdtype(kind, bool) and fits):
        raise ValueError(
            "flags must be bool and broadcast to their parameters, got "
            f"{kind}{list(shape)} for {list(value.shape)}."
        )
    return jnp.where(jnp.broadcast_to(flag, value.shape), 0, value)
