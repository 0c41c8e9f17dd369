"""How the arms of a study look: the same in every figure."""

from collections.abc import Mapping
from typing import NamedTuple

import xarray

# Okabe & Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#D55E00", "#0072B2", "#999999", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SOLID = 8  # arms that colours alone can tell apart
STYLES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (1, 4)))


class Look(NamedTuple):
    """How an arm is drawn: ``label``, ``colour`` and ``style`` of the line."""

    label: str
    colour: str
    style: object


def assign(
    arms: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
) -> dict[str, Look]:
    """Gives every arm a look of its own.

    Arms of one colour have different line styles, and where arms are many, so that
    colours are alike, the line style changes with every eighth.

    Args:
      arms: for the name of each arm its method.
      labels: what to call arms, or methods, behind which the rest of an arm's name
        follows; their names otherwise.
      colours: colours of arms or of methods; that of a method is its place among the
        methods otherwise.

    Returns:
      For the name of each arm its look.

    Example:
      >>> found = assign({"bp": "bp", "cbp": "cbp"}, {"cbp": "continual backprop"})
      >>> found["cbp"].label, found["cbp"].colour
      ('continual backprop', '#0072B2')
    """
    methods = {method: i for i, method in enumerate(dict.fromkeys(arms.values()))}
    labels, colours = labels or {}, colours or {}
    found: dict[str, Look] = {}
    used: dict[str, int] = {}
    for i, (arm, method) in enumerate(arms.items()):
        own = COLOURS[methods[method] % len(COLOURS)]
        colour = colours.get(arm, colours.get(method, own))
        style = STYLES[(used.get(colour, 0) + i // SOLID) % len(STYLES)]
        used[colour] = used.get(colour, 0) + 1
        named = labels.get(method, method) + arm.removeprefix(method)
        found[arm] = Look(labels.get(arm, named), colour, style)
    return found


def arms(dataset: xarray.Dataset) -> dict[str, str]:
    """For the name of each arm its method."""
    names = (dataset[name].values.astype(str).tolist() for name in ("arm", "method"))
    return dict(zip(*names, strict=True))
