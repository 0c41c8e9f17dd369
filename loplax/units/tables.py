"""Unit groups as a table, for a terminal and for a notebook."""

from html import escape

COLUMNS = ("layer", "size", "biases", "scales", "incoming", "outgoing")

SUCH_AS = {"reduce_sum over the units": " (a layer norm, say)"}
"""What usually stands behind a statistic."""


def text(units) -> str:
    """The layers, what their units share, and what was left out."""
    rows = [COLUMNS, *_rows(units)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = zip(widths, "<>>><<", strict=True)  # numbers to the right
    how = "  ".join(f"{{:{side}{width}}}" for width, side in aligned)
    lines = [how.format(*row) for row in rows]
    for title, notes in _notes(units).items():
        lines.append(f"{title}:")
        lines.extend(f"  {name}: {note}" for name, note in notes.items())
    return "\n".join(map(str.rstrip, lines))


def html(units) -> str:
    """The same in HTML."""
    row = lambda cells, tag: "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells)
    lines = [f"<tr>{row(COLUMNS, 'th')}</tr>"]
    lines += [f"<tr>{row(cells, 'td')}</tr>" for cells in _rows(units)]
    found = f"<table>{''.join(lines)}</table>"
    for title, notes in _notes(units).items():
        items = (
            f"<li>{escape(f'{name}: {note}')}</li>" for name, note in notes.items()
        )
        found += f"<p>{title}:</p><ul>{''.join(items)}</ul>"
    return found


def _rows(units) -> list[tuple[str, ...]]:
    listed = lambda weights: ", ".join(map(_describe, weights))
    return [
        (
            group.name,
            str(group.size),
            str(len(group.biases)),
            str(len(group.scales)),
            listed(group.incoming),
            listed(group.outgoing),
        )
        for group in units
    ]


def _notes(units) -> dict[str, dict[str, str]]:
    bonds = {group.name: _bonds(group) for group in units}
    bonds = {name: note for name, note in bonds.items() if note}
    notes = {"not independent": bonds, "left out": dict(units.left_out)}
    return {title: found for title, found in notes.items() if found}


def _bonds(group) -> str:
    """What the units of a group share or depend on, in words."""
    shared = group.coupled_by
    notes = [f"units share {what}{SUCH_AS.get(what, '')}" for what in shared]
    notes += [f"{what} run along the units" for what in group.tied_to]
    if 1 < group.blocks < group.size:
        size = group.size // group.blocks
        notes.append(f"units change places within every {size}")
    elif group.blocks > 1 and not group.tied_to:
        notes.append("units cannot change places")
    return "; ".join(notes)


def _describe(weights) -> str:
    path = weights.path
    text = f"{weights.through}({path})" if weights.through else path
    text += f"[{weights.axis}]"
    outer, inner = weights.repeat
    if weights.places:
        text += " at " + "x".join(str(length) for _, length in weights.places)
    if (outer, inner) != (1, 1):
        text += f" x{outer * inner}"
    if weights.start:
        text += f" from {weights.start}"
    return text if weights.groups == 1 else f"{text} in {weights.groups} groups"
