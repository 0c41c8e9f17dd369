"""Where a wrapper stands among others: what comes after it would undo what it does.

A wrapper that replaces units returns updates that set weights to exact values. A later
link of a chain, or an outer wrapper that interpolates parameters, changes these values,
and nothing in the numbers tells. So the wrappers look, while they are traced, at the
optax functions that call them; those of loplax say themselves what they change. What
hides the call, such as an ``update`` jitted by itself before it is put into a chain, is
not seen.
"""

import contextlib
import contextvars
import inspect
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

CHAINS = ("chain", "named_chain")

PASSING = frozenset(
    {"inject_hyperparams", "masked", "partition", "with_extra_args_support"}
)
"""Functions of optax that pass on the updates of what they wrap."""

SKIPPING = frozenset(
    {"apply_if_finite", "conditionally_mask", "conditionally_transform"}
)
"""Those that pass on updates or skip them, by a select between equal types."""

_CHANGING = contextvars.ContextVar("changing", default="")


@contextlib.contextmanager
def changing(name: str) -> Iterator[None]:
    """Says, around the call of an inner ``update``, that what it returns is changed.

    Args:
      name: the wrapper that changes it.
    """
    token = _CHANGING.set(name)
    try:
        yield
    finally:
        _CHANGING.reset(token)


def require_exact(params: Any = None, *, reads_features: bool = False) -> None:
    """As `require_last`, and raises if a wrapper of loplax changes the updates.

    For what sets weights to exact values, or reads the step that is made.
    """
    require_last(params, reads_features=reads_features)
    if name := _CHANGING.get():
        raise ValueError(
            f"{name} changes the updates of what it wraps, and these must stay as they "
            f"are. Put it inside: wrapper({name}(...), ...)."
        )


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
        if name in CHAINS:
            _, after = _links(name, frame)
            if after:
                raise ValueError(
                    "What acts on whole updates or sets weights to exact values, as "
                    "continual_backprop and metaplastic do, must be the last link of "
                    f"its chain; in optax.{name} there come {_names(after)} after it "
                    "and would change them. Put these before it, or, if it wraps an "
                    "optimiser, inside: wrapper(optax.chain(...), ...)."
                )
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


def require_before_optimizer() -> None:
    """Raises if the calling ``update``, which changes gradients, gets updates.

    So it is where a learning rate comes before it, and nothing after it: nothing gives
    what it adds a step size, or turns it downhill.
    """
    found = [_links(n, f) for n, f in _callers(sys._getframe(2)) if n in CHAINS]
    before = _names([link for links, _ in found for link in links])
    if "scale" in before and not any(after for _, after in found):
        raise ValueError(
            "What changes the gradient, as a penalty does, must come before the "
            f"optimiser; here it comes after {before}, and nothing after it. Put it "
            "first: optax.chain(penalty, optimiser)."
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


def _links(name: str, frame: FrameType) -> tuple[Sequence, Sequence]:
    """The links of a chain before and after the one that is called.

    Read from optax's own variables; if these are ever named otherwise, there are none.
    """
    links = frame.f_locals.get("update_fns" if name == "chain" else "transforms", ())
    made = len(frame.f_locals.get("new_state", links))
    return links[:made], links[made + 1 :]


def _names(links: Sequence) -> str:
    return ", ".join(map(_name, links))


def _name(link: Any) -> str:
    """What a link of a chain is called: its own name, or that of what made it."""
    if isinstance(link, tuple):  # of a named chain
        return f"{link[0]!r}: {_name(link[1].update)}"
    # Around what takes no extra arguments, optax puts something that does.
    inner = inspect.getclosurevars(link).nonlocals.get("tx")
    link = getattr(inner, "update", link)
    name = link.__qualname__.partition(".")[0]
    if name == "chain":
        return f"chain({_names(inspect.getclosurevars(link).nonlocals['update_fns'])})"
    return name
