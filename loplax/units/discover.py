"""Finding the hidden units of a model by following its jaxpr."""

import collections
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from loplax.units import flow, groups, hosts, labels, ledger, rules, walk
from loplax.units.paths import by_path


class Findings(NamedTuple):
    """The units of a traced model and where to read them.

    Attributes:
      units: the groups.
      taps: for each key of a feature, where the activation meets outgoing weights.
    """

    units: groups.Units
    taps: dict[str, flow.Tap]


def find(
    apply: Callable[..., Any],
    params: Any,
    *inputs: Any,
    names: Sequence[str] | None = None,
    has_aux: bool = False,
) -> groups.Units:
    """Finds the hidden units of any JAX model, and every weight they touch.

    A hidden unit is one output of a weight matrix, convolution kernel or embedding
    table that reaches the rest of the model only through further weights. The model is
    traced, not run, and units are followed through the traced operations: neither
    names nor the order of keys matter. A unit may be written by several layers
    (residual streams, gates) and read by several. What cannot be told apart is left
    out with a reason: units that are sliced, attention between activations, weights
    that are shared, computed from other parameters or used inside ``scan``.

    What is found obeys three laws:

    (a) with its outgoing weights at 0, the output does not depend on the weights that
        enter a unit, but through the statistics in ``coupled_by``;
    (b) outgoing weights see the activations that ``tap`` gives and nothing else, each
        the one named by its ``feature``;
    (c) units that change places with all their incoming weights, biases, scales and
        outgoing weights leave the output as it is, within each of ``blocks`` blocks.

    A layer norm or RMS norm over the units couples them, in (a). Under a group norm
    they are coupled and alike only within a group of channels, in (a) and (c). A batch
    norm in training takes the statistics of each unit over the batch: all three hold.
    Masks of dropout and running statistics stay where they are when units change
    places: ``tied_to`` names them, and (c) holds if they change places too, which for
    random masks is the same in distribution. Printing the units tells all this.

    What varies along the units is a parameter of theirs, or the group is left out. A
    factor is a scale if it enters once, whole, and has one number per unit (and place,
    as after flattening); ``1 + g`` counts as ``g``, the slopes of a PReLU are scales. A
    sum of products of shifted activations with all entries of one parameter, one or
    more for each unit, is a depthwise convolution and that parameter an incoming
    weight. A layer of a single unit is no group.

    Args:
      apply: the model, ``apply(params, *inputs) -> output``, any pytrees. Running
        statistics and random keys are inputs or closed over, never parameters.
      params: the trainable parameters, or their shapes; or a module of nnx (its
        ``nnx.Param`` are the parameters) or Equinox (all its arrays are).
      *inputs: examples of the inputs, or their shapes.
      names: select these groups, as ``Units.select`` does.
      has_aux: whether ``apply`` returns ``(output, aux)``. What only ``aux`` needs,
        such as new running statistics, does not count as a reader.

    Returns:
      The groups in the order in which the model computes them.

    Raises:
      ValueError: if a selected name is unknown or was left out, two parameters have
        the same path, ``apply`` is no function of parameters (pass ``net.apply``, not
        ``net``), or ``has_aux`` is set and ``apply`` returns no pair.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from loplax import units
      >>> def apply(params, x):
      ...     return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"]
      >>> params = {"w1": jnp.ones((3, 4)), "b1": jnp.ones(4), "w2": jnp.ones((4, 2))}
      >>> found = units.find(apply, params, jnp.ones((1, 3)))
      >>> found[0].name, found[0].size, found[0].outgoing[0].path
      ('w1', 4, 'w2')
    """
    traced = hosts.trace(apply, params, inputs, has_aux)
    found = analyse(traced.closed, traced.kept, params, traced.hint).units
    return found if names is None else found.select(*names)


def paths(params: Any) -> dict[str, tuple[int, ...] | None]:
    """Shape of every parameter by path, ``None`` for leaves that are no weights."""
    shapes = {}
    for name, leaf in by_path(hosts.split(params).params).leaves.items():
        real = jnp.issubdtype(leaf.dtype, jnp.inexact)
        shapes[name] = tuple(leaf.shape) if real else None
    return shapes


def analyse(
    closed: core.ClosedJaxpr, kept: int, params: Any, hint: str = ""
) -> Findings:
    """Finds the units of a traced model.

    Args:
      closed: its jaxpr; the parameters are its first inputs.
      kept: number of leading outputs that count.
      params: the parameters.
      hint: what to say of units that are returned, beside the reason.

    Returns:
      The groups and their taps.
    """
    known = paths(params)
    shapes = {path: s for path, s in known.items() if s is not None}
    book = ledger.Ledger(shapes, hint)
    values = []
    for path, var in itertools.zip_longest(known, closed.jaxpr.invars):
        kind: Any = var.aval
        shape = tuple(kind.shape)
        given = labels.VECTOR if len(shape) < 2 else labels.DATA
        origin = given if path is None else labels.CONST
        values.append(flow.Value(labels.free(shape), origin))
        if path in book.shapes:
            values[-1] = book.parameter(path)._replace(
                number=np.zeros((), kind.dtype) if max(shape, default=1) > 1 else None
            )
    outputs = rules.follow(book, walk.flatten(closed, kept), values)
    returned = set()
    for value in outputs:
        book.release(value, "output")
        returned |= book.units(value.dims)
        book.drop_reduced(value, "the output")
    _drop_shared(book)
    return _collect(book, returned)


def _drop_shared(book: ledger.Ledger) -> None:
    """Rules out the groups that touch a parameter which is used twice."""
    for path, uses in book.uses.items():
        if not _conflict(book, list(uses)):
            continue
        separate = {(name, kind[0], kind[-1]) for kind, name in uses.items()}
        counts = sorted(collections.Counter(name for name, *_ in separate).items())
        by = " and ".join(f"{k} ({n} times)" if n > 1 else k for k, n in counts)
        for record in book.records:
            if record.weights.path == path:
                book.drop(record.label, f"{path} is used more than once, by {by}")


def _conflict(book: ledger.Ledger, kinds: list[tuple]) -> bool:
    """Whether uses of one parameter, other than per-unit biases or scales, add up."""
    if len(kinds) < 2:
        return False
    if {kind[0] for kind in kinds} not in ({"biases"}, {"scales"}):
        return True
    places: dict[int, set[tuple]] = {}
    for _, label, weights, place in kinds:
        root = book.root(label)
        outer, inner = weights.repeat
        end = weights.start + outer * inner * book.size(root)
        layout = (weights.axis, weights.start, end, weights.repeat, root)
        places.setdefault(place, set()).add(layout)
    if kinds[0][0] == "scales" and len(places) > 1:
        return True
    layouts = set().union(*places.values())
    return any(
        _overlap(one, two, places.values())
        for one, two in itertools.combinations(layouts, 2)
    )


def _overlap(one: tuple, two: tuple, places: Iterable[set[tuple]]) -> bool:
    """Whether two layouts of units give an entry two meanings.

    Along two axes they do not where they always enter together, as the biases of pairs.
    """
    if one[0] != two[0]:
        return any((one in layouts) != (two in layouts) for layouts in places)
    return one[1] < two[2] and two[1] < one[2]


def _collect(book: ledger.Ledger, returned: set[int]) -> Findings:
    """Turns the ledger into named groups, and reasons for what is left out."""
    roots = sorted({book.root(label) for label in book.writers})
    records: dict[int, list[ledger.Record]] = {root: [] for root in roots}
    for record in book.records:
        records[book.root(record.label)].append(record)
    reasons: dict[int, str] = {}
    for label, reason in book.reasons.items():
        reasons.setdefault(book.root(label), reason)
    returned = {book.root(label) for label in returned}
    untracked = _untracked(book)
    names = _names([*map(book.title, roots), *untracked])
    found: list[groups.UnitGroup] = []
    taps: dict[str, flow.Tap] = {}
    left_out: dict[str, str] = {}
    for root in roots:
        name = names[book.title(root)]
        read = [record for record in records[root] if record.role == "outgoing"]
        if read and root in returned:
            reason = f"the units of {book.title(root)} are also returned as an output"
            reasons.setdefault(root, f"{reason}{book.hint}")
        if root in reasons and (read or root not in returned):
            left_out.setdefault(name, reasons[root])
        elif read:
            keys = _features(name, read)
            for record in read:
                taps.setdefault(keys[_place(record)], record.tap)
            found.append(_group(book, name, root, records[root], keys))
    taken = {group.name for group in found} | set(left_out)
    for path, reason in untracked.items():
        if names[path] not in taken:
            left_out[names[path]] = reason
    return Findings(groups.Units(found, left_out), taps)


def _untracked(book: ledger.Ledger) -> dict[str, str]:
    """Why matrices among the parameters are not the weights of a layer."""
    reasons = {}
    for path, uses in book.uses.items():
        others = [name for kind, name in uses.items() if kind[0] == "other"]
        if others and len(book.shapes[path]) > 1:
            reasons[path] = f"{path} enters {others[0]} in a way that is not followed"
    return reasons


def _names(titles: list[str]) -> dict[str, str]:
    """A layer's name for each path: its parent, or all of it if that is not unique."""
    full, short = {}, {}
    for title in dict.fromkeys(titles):
        keys = title.split("/")
        full[title] = title
        short[title] = "/".join(keys[:-1]) or keys[-1]
    taken = list(short.values())
    return {
        title: name if taken.count(name) == 1 else full[title]
        for title, name in short.items()
    }


def _place(record: ledger.Record) -> tuple:
    """The same for readers of the same activation at the same positions."""
    return record.tap[2:], record.weights.positions


def _features(name: str, read: list[ledger.Record]) -> dict[tuple, str]:
    """The key of every activation of a group: its name, then those of the readers."""
    keys: dict[tuple, str] = {}
    for record in read:
        key = f"{name}@{record.weights.path}" if keys else name
        if key in keys.values():
            key = f"{key}[{record.weights.start}]"
        keys.setdefault(_place(record), key)
    return keys


def _group(book: ledger.Ledger, name, root, records, keys) -> groups.UnitGroup:
    roles = ("incoming", "biases", "scales", "outgoing")
    fields: dict[str, list[groups.WeightAxis]] = {role: [] for role in roles}
    for record in records:
        bias = book.product_bias.get(record.matmul)
        shared = bias is not None and _conflict(book, list(book.uses[bias]))
        weights = record.weights._replace(bias=None if shared else bias)
        if weights.bias is not None and weights.groups == 1:
            weights = weights._replace(block_axis=_output_axis(book, record))
        if record.tap is not None and keys[_place(record)] != name:
            weights = weights._replace(feature=keys[_place(record)])
        if weights not in fields[record.role]:
            fields[record.role].append(weights)
    parts = {role: tuple(weights) for role, weights in fields.items()}
    coupled, tied, blocks = _bonds(book, root)
    return groups.UnitGroup(
        name,
        book.size(root),
        **parts,
        coupled_by=coupled,
        tied_to=tied,
        blocks=blocks,
    )


def _bonds(book: ledger.Ledger, root: int):
    """Statistics, other numbers, and the number of blocks of units that are alike."""
    bonds = [b for label, b in book.bonds.items() if book.root(label) == root]
    coupled = tuple(dict.fromkeys(name for b in bonds for name in b.coupled))
    tied = tuple(dict.fromkeys(name for b in bonds for name in b.tied))
    numbers = {1}.union(*(b.blocks for b in bonds))
    nested = all(max(numbers) % number == 0 for number in numbers)
    return coupled, tied, max(numbers) if nested else book.size(root)


def _output_axis(book: ledger.Ledger, record: ledger.Record) -> int:
    """The axis along which the weights of a product compute its outputs."""
    born = {r.label: r.weights.axis for r in book.records if r.role == "incoming"}
    outputs = book.products[record.matmul]
    return born[outputs[0]] if outputs else -1
