"""Where a wrapper stands among optax's: what comes after it would undo what it does.

A wrapper that replaces units returns updates that set weights to exact values. A later
link of a chain, or an outer wrapper that interpolates parameters, changes these values,
and nothing in the numbers tells. So the wrappers look, while they are traced, at the
optax functions that call them.
"""

import sys
from types import FrameType

TRANSPARENT = frozenset(
    {
        "apply_if_finite",
        "conditionally_mask",
        "conditionally_transform",
        "inject_hyperparams",
        "masked",
        "partition",
        "with_extra_args_support",
    }
)
"""Functions of optax that pass on the updates of what they wrap, or skip them."""


def require_last(*, reads_features: bool = False) -> None:
    """Raises if optax changes what the calling ``update`` returns, or when it runs.

    Args:
      reads_features: whether the caller reads activations of the forward pass, of
        which ``optax.MultiSteps`` passes on those of the last minibatch alone.

    Raises:
      ValueError: if the wrapper is not the last link of its chain, or stands inside a
        wrapper that has to stand inside of it.
    """
    for name, frame in _callers(sys._getframe(2)):
        if name in ("chain", "named_chain"):
            _require_last_link(name, frame)
        elif name == "MultiSteps":
            if reads_features:
                raise ValueError(
                    "optax.MultiSteps passes on the features of the last minibatch "
                    "only. Put it inside: wrapper(optax.MultiSteps(inner, k), ...)."
                )
        elif name not in TRANSPARENT:
            raise ValueError(
                f"optax's {name} changes the updates of what it wraps, and would "
                "change weights that have to be exact. Put it inside: "
                f"wrapper({name}(...), ...)."
            )


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
    links = frame.f_locals["update_fns" if name == "chain" else "transforms"]
    after = len(links) - 1 - len(frame.f_locals["new_state"])
    if after:
        raise ValueError(
            f"A wrapper that sets weights to exact values must be the last link of its "
            f"chain; {after} more come after it in optax.{name} and would change them. "
            "Put these before it, or inside: wrapper(optax.chain(...), ...)."
        )
