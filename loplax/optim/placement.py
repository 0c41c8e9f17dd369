"""Where a wrapper stands among optax's: what comes after it would undo what it does.

A wrapper that replaces units returns updates that set weights to exact values. A later
link of a chain, or an outer wrapper that interpolates parameters, changes these values,
and nothing in the numbers tells. So the wrappers look, while they are traced, at the
optax functions that call them. What hides the call, such as an ``update`` jitted by
itself before it is put into a chain, is not seen.
"""

import inspect
import sys
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

PASSING = frozenset(
    {"inject_hyperparams", "masked", "partition", "with_extra_args_support"}
)
"""Functions of optax that pass on the updates of what they wrap."""

SKIPPING = frozenset(
    {"apply_if_finite", "conditionally_mask", "conditionally_transform"}
)
"""Those that pass on updates or skip them, by a select between equal types."""


def require_last(params: Any = None, *, reads_features: bool = False) -> None:
    """Raises if optax changes what the calling ``update`` returns, or when it runs.

    Args:
      params: the parameters, if those of half precision get updates in float32.
      reads_features: whether the caller reads activations of the forward pass, of
        which ``optax.MultiSteps`` passes on those of the last minibatch alone.

    Raises:
      ValueError: if the wrapper is not the last link of its chain, or stands inside a
        wrapper that has to stand inside of it.
    """
    widens = any(map(_is_half, jax.tree.leaves(params)))
    for name, frame in _callers(sys._getframe(2)):
        if name in ("chain", "named_chain"):
            _require_last_link(name, frame)
        elif name == "MultiSteps":
            if reads_features:
                raise ValueError(
                    "optax.MultiSteps passes on the features of the last minibatch "
                    "only. Put it inside: wrapper(optax.MultiSteps(inner, k), ...)."
                )
        elif name in SKIPPING:
            if widens:
                raise ValueError(
                    f"optax's {name} needs updates in the parameters' precision, but "
                    "exact weights of half precision need updates in float32. Put it "
                    f"inside: wrapper({name}(...), ...)."
                )
        elif name not in PASSING:
            raise ValueError(
                f"optax's {name} changes the updates of what it wraps, and would "
                "change weights that have to be exact. Put it inside: "
                f"wrapper({name}(...), ...)."
            )


def _is_half(leaf: Any) -> bool:
    kind = jnp.result_type(leaf)
    return jnp.issubdtype(kind, jnp.inexact) and jnp.finfo(kind).bits < 32


def _callers(frame: FrameType | None):
    """The functions of optax around a call, inside out, and their frames."""
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package == "optax":
            name = frame.f_code.co_qualname.partition(".")[0]
            yield name, frame
        elif package not in ("jax", "loplax", "contextlib", "functools"):
            return
        frame = frame.f_back


def _require_last_link(name: str, frame: FrameType) -> None:
    """Reads optax's own variables; if these are ever named otherwise, nothing."""
    links = frame.f_locals.get("update_fns" if name == "chain" else "transforms", ())
    after = len(links) - 1 - len(frame.f_locals.get("new_state", links))
    if after > 0:
        names = ", ".join(map(_name, links[-after:]))
        raise ValueError(
            "What acts on whole updates or sets weights to exact values, as "
            "continual_backprop does, must be the last link of its chain; in "
            f"optax.{name} there come {names} after it and would change them. Put "
            "these before it, or inside: wrapper(optax.chain(...), ...)."
        )


def _name(link: Any) -> str:
    """What a link of a chain is called: its own name, or that of what made it."""
    if isinstance(link, tuple):  # of a named chain
        return repr(link[0])
    # Around what takes no extra arguments, optax puts something that does.
    inner = inspect.getclosurevars(link).nonlocals.get("tx")
    return getattr(inner, "update", link).__qualname__.partition(".")[0]
