"""Axes in rows and columns at fixed places, with a title above and a legend below.

The places are inches: to measure all texts first, as matplotlib's own layouts do, takes
twice as long as to draw the figure.
"""

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.artist
import matplotlib.axes
import matplotlib.figure

_LINE = 0.2  # inches, of a line of text
_LONG = 32  # letters of a line in a legend
_LETTER = 0.075  # inches, of a letter, on average


class Margins(NamedTuple):
    """What each axes has around it, in inches, for its labels."""

    left: float = 0.75
    right: float = 0.15
    bottom: float = 0.5
    top: float = 0.35


MARGINS = Margins()


def panels(
    number: int,
    *,
    columns: int = 3,
    size: tuple[float, float] = (3.2, 2.2),
    margins: Margins = MARGINS,
    lines: Sequence[str] = (),
    legend: Sequence[str] = (),
    names: float = 0.0,
    sharey: bool = False,
) -> tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]:
    """A figure of ``number`` equal axes in rows of ``columns``, without a display.

    Args:
      number: how many axes.
      columns: most axes in a row.
      size: width and height of each axes, in inches.
      margins: what each has around it.
      lines: title of the figure, and what is said below it.
      legend: labels for which there is to be room below, see `legend_below`.
      names: inches to the left of the figure, beyond the margin.
      sharey: whether all axes have the same y axis.

    Returns:
      ``(figure, axes)``.

    Example:
      >>> figure, axes = panels(4, lines=["A study"])
      >>> len(axes)
      4
    """
    columns = min(columns, number)
    rows = -(-number // columns)
    outer = (size[0] + margins.left + margins.right, size[1] + margins.bottom)
    outer = (outer[0], outer[1] + margins.top)
    width = names + columns * outer[0]
    title = _title(lines, width)
    header = _LINE * len(title) + 0.1
    footer = _LINE * _rows(legend, width) + 0.05
    height = rows * outer[1] + header + footer
    figure = matplotlib.figure.Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    figure.subplots_adjust(
        left=(names + margins.left) / width,
        right=1 - margins.right / width,
        bottom=(footer + margins.bottom) / height,
        top=1 - (header + margins.top) / height,
        wspace=(margins.left + margins.right) / size[0],
        hspace=(margins.bottom + margins.top) / size[1],
    )
    for i, (line, look) in enumerate(title):
        place = 1 - (0.1 + _LINE * i) / height
        figure.text(0.1 / width, place, line, va="top", **look)
    axes = list(grid.flat)
    for unused in axes[number:]:
        unused.remove()
    return figure, axes[:number]


def _title(lines: Sequence[str], width: float) -> list[tuple[str, dict]]:
    """Every line of text above a figure, broken where the figure ends, and its look."""
    found = []
    for i, line in enumerate(lines):
        size, colour = (9, "#444444") if i else (11, "black")
        most = int((width - 0.2) / (_LETTER * size / 9))
        look = {"fontsize": size, "color": colour}
        found += [(part, look) for part in textwrap.wrap(line, most)]
    return found


def _columns(labels: Sequence[str], width: float) -> int:
    longest = max((len(label) for label in labels), default=0)
    return max(1, int(width / (0.5 + _LETTER * longest)))


def _rows(labels: Sequence[str], width: float) -> int:
    return -(-len(labels) // _columns(labels, width))


def legend_below(figure: matplotlib.figure.Figure, axes: Sequence) -> None:
    """Puts one legend for all axes below them.

    Args:
      figure: the figure, with room for the labels, see `panels`.
      axes: its axes.
    """
    pairs = [zip(*each.get_legend_handles_labels(), strict=True) for each in axes]
    named: dict[str, matplotlib.artist.Artist] = {}
    for handle, label in itertools.chain(*pairs):
        named.setdefault(label, handle)
    if named:
        columns = min(len(named), _columns(list(named), figure.get_figwidth()))
        look: dict[str, Any] = {"ncols": columns, "frameon": False, "fontsize": 8}
        figure.legend(named.values(), named, loc="lower center", **look)


def legend_beside(axes: matplotlib.axes.Axes) -> None:
    """Puts a legend to the right of ``axes``, in the order in which its lines end."""
    found = zip(*axes.get_legend_handles_labels(), strict=True)
    pairs: list[tuple[Any, str]] = list(found)  # of lines: other artists have no end
    pairs.sort(key=lambda pair: -pair[0].get_ydata()[-1])
    if pairs:
        handles = [handle for handle, _ in pairs]
        labels = [wrapped(label) for _, label in pairs]
        look = {"bbox_to_anchor": (1, 0.5), "frameon": False, "fontsize": 8}
        axes.legend(handles, labels, loc="center left", **look)


def wrapped(label: str) -> str:
    """A label in lines that are not long."""
    return textwrap.fill(label, _LONG, break_long_words=False)


def beside(labels: Sequence[str]) -> float:
    """Inches that labels take beside axes, in lines as `wrapped` makes them."""
    lines = [line for label in labels for line in wrapped(label).splitlines()]
    return 0.55 + _LETTER * max(map(len, lines))
