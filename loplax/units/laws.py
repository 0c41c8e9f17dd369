"""The laws of units, each tried on one group of a model."""

from typing import NamedTuple

import numpy as np

from loplax.units import trial


class Draw(NamedTuple):
    """Random parameters, inputs near the given ones, and what the model makes."""

    values: dict
    inputs: tuple
    outputs: list
    features: dict


def draw(bench: trial.Trial) -> Draw:
    """Draws parameters and inputs."""
    values, inputs = bench.values(), bench.near()
    return Draw(values, inputs, *bench.run(values, inputs))


def try_all(bench: trial.Trial, drawn: Draw, group) -> None:
    """Tries all laws on one group; raises ``ValueError`` where one does not hold."""
    owned = _one_owner, _silence, _completeness
    for law in (*owned, _positions, _null_space, _exchange, _rescaling, _places):
        law(bench, drawn, group)


def is_seen(bench: trial.Trial, drawn: Draw, group) -> bool:
    """Whether anything that enters the units reaches the output."""
    everyone = _everyone(group)
    changed = trial.write(drawn.values, _entering(group), everyone, bench.values())
    return bench.distance(bench.run(changed, drawn.inputs)[0], drawn.outputs) > 0


def fail(group, law: str, what: str):
    """Raises the error that names group and law."""
    raise ValueError(f"{group.name!r} breaks law ({law}) of units: {what}.")


def _expect_same(bench, group, law, what, new, old) -> None:
    apart = bench.distance(new, old)
    if apart:
        fail(group, law, f"{what} (by {apart:.1g} of its size)")


def _entering(group) -> tuple:
    return (*group.incoming, *group.biases, *group.scales)


def _everyone(group) -> np.ndarray:
    return np.ones(group.size, bool)


def _selections(group) -> list[np.ndarray]:
    """All units at once; and single ones, unless statistics couple them."""
    single = () if group.coupled_by else {0, group.size // 2, group.size - 1}
    return [_everyone(group), *(np.arange(group.size) == unit for unit in single)]


def _key(group, record) -> str:
    return record.feature or group.name


def _keys(group, features) -> list[str]:
    keys = dict.fromkeys(_key(group, record) for record in group.outgoing)
    return [key for key in keys if key in features]


def _one_owner(bench, drawn, group) -> None:
    """No entry of an axis belongs to two units."""
    seen: dict[tuple, np.ndarray] = {}
    for record in (*_entering(group), *group.outgoing):
        shape = drawn.values[record.path].shape
        owner = trial.owners(record, (group.size,), shape)
        other = seen.setdefault((record.path, owner.shape), owner)
        if np.any((other != owner) & (other > 0) & (owner > 0)):
            fail(group, "a", f"an entry of {record.path!r} belongs to two units")


def _silence(bench, drawn, group) -> None:
    """Without outgoing weights, what enters cannot be seen."""
    other = bench.values()
    for chosen in _selections(group):
        changed = trial.write(drawn.values, _entering(group), chosen, other)
        silent, changed = (
            trial.write(values, group.outgoing, chosen, None)
            for values in (drawn.values, changed)
        )
        seen = (bench.run(values, drawn.inputs)[0] for values in (changed, silent))
        what = "with outgoing weights of 0 the output depends on what enters the units"
        _expect_same(bench, group, "a", what, *seen)


def _muted(values, group, chosen, numbers) -> dict:
    """Units without incoming weights, each with one number per bias and scale."""
    values = trial.write(values, group.incoming, chosen, None)
    for record in (*group.biases, *group.scales):
        laid = trial.spread(record, numbers[record.path], values[record.path].shape)
        values = trial.write(values, [record], chosen, {record.path: laid})
    return values


def _per_unit(bench, group) -> dict[str, np.ndarray]:
    """Random numbers per unit for each bias and scale."""
    paths = [record.path for record in (*group.biases, *group.scales)]
    signs = lambda: bench.rng.choice([-1, 1], group.size)
    return {path: bench.rng.uniform(0.3, 0.9, group.size) * signs() for path in paths}


def _completeness(bench, drawn, group) -> None:
    """Units in which the same enters have the same activations.

    What all units share, such as the one slope of a PReLU, leaves them alike.
    """
    if "constants" in group.tied_to:  # these enter too, beside whatever joins them
        return
    keys, everyone = _keys(group, drawn.features), _everyone(group)
    others = _others(bench, drawn, group)
    for numbers in _alike(bench, group):
        muted = _muted(drawn.values, group, everyone, numbers)
        new = bench.run(muted, drawn.inputs)[1]
        if group.tied_to:
            muted = _muted(others, group, everyone, numbers)
            old = bench.run(muted, drawn.inputs)[1]
        else:
            old = {key: np.repeat(new[key][..., :1], group.size, -1) for key in keys}
        # Beside the activations as drawn: numbers that a norm makes 0 are rounding.
        seen = ([np.stack([x[k], drawn.features[k]]) for k in keys] for x in (new, old))
        what = "with incoming weights of 0 their activations depend on something else"
        _expect_same(bench, group, "a", what, *seen)


def _alike(bench, group):
    """The same numbers for all units, of both signs: under relu one is silent."""
    for numbers in (_per_unit(bench, group), _per_unit(bench, group)):
        for sign in (1, -1):
            yield {p: np.full(group.size, sign * x[0]) for p, x in numbers.items()}


def _others(bench, drawn, group) -> dict:
    """Draws anew the parameters that could hold a number for each unit."""
    new = bench.values()
    return {
        p: new[p] if old.size >= group.size else old for p, old in drawn.values.items()
    }


def _positions(bench, drawn, group) -> None:
    """Activations have the positions of all their readers."""
    del bench
    for record in group.outgoing:
        key, shape = _key(group, record), (*record.positions, group.size)
        if key not in drawn.features:
            continue
        given = drawn.features[key].shape
        if given[-len(shape) :] != shape:
            what = f"features[{key!r}] {list(given)} does not end with the positions"
            fail(
                group, "b", f"{what} and units {list(shape)} that {record.path!r} reads"
            )


def _null_space(bench, drawn, group) -> None:
    """Weights that activations do not tell apart are not told apart by the output."""
    half = bench.rng.permutation(group.size) % 2 == 0
    muted = trial.write(drawn.values, group.incoming, half, None)
    alike = bench.near(alike=True)
    for values, inputs in ((drawn.values, alike), (muted, drawn.inputs)):
        outputs, features = bench.run(values, inputs)
        for record in group.outgoing:
            key = _key(group, record)
            if key not in features or record.through:
                continue
            weights = values[record.path]
            unseen = _unseen(bench, record, group, features[key])
            laid = trial.spread(record, unseen, weights.shape)
            kind = np.where(np.array(laid.shape) > 1, 1, weights.shape)
            step = laid * bench.rng.normal(size=kind)
            changed = values | {record.path: (weights + step).astype(weights.dtype)}
            what = f"{record.path!r} reads something else than features[{key!r}]"
            _expect_same(
                bench, group, "b", what, bench.run(changed, inputs)[0], outputs
            )


def _exchange(bench, drawn, group) -> None:
    """Units of the same activation exchange weights that enter through a function."""
    half = bench.rng.permutation(group.size) % 2 == 0
    muted = _muted(drawn.values, group, half, next(_alike(bench, group)))
    alike = bench.near(alike=True)
    for values, inputs in ((drawn.values, alike), (muted, drawn.inputs)):
        outputs, features = bench.run(values, inputs)
        for record in group.outgoing:
            key = _key(group, record)
            if key not in features or not record.through:
                continue
            order = _among_equals(bench, record, group, features[key])
            moved = trial.move(values[record.path], record, order)
            new = bench.run(values | {record.path: moved}, inputs)[0]
            what = f"{record.path!r} reads something else than features[{key!r}]"
            _expect_same(bench, group, "b", what, new, outputs)


def _among_equals(bench, record, group, activation) -> np.ndarray:
    """Units that change places with others of the same activation and block."""
    read = np.asarray(activation, np.float64).reshape(-1, group.size)
    read = np.round(read / max(np.abs(read).max(initial=0), 1e-6), 5)
    block = np.arange(group.size) * record.groups // group.size
    kinds = np.unique(np.vstack([block, read]), axis=1, return_inverse=True)[1].ravel()
    mixed = bench.rng.permutation(group.size)
    order = np.empty_like(mixed)
    order[np.argsort(kinds, kind="stable")] = mixed[
        np.argsort(kinds[mixed], kind="stable")
    ]
    return order


def _unseen(bench, record, group, activation) -> np.ndarray:
    """A change of a reader's weights, at each place, that leaves what it computes."""
    change = np.zeros((*record.positions, group.size))
    read = np.asarray(activation, np.float64).reshape(-1, change.size)
    block = slice(change.size // record.groups)
    _, sizes, rows = np.linalg.svd(read[:, block], full_matrices=False)
    seen = rows[sizes > 1e-5 * max(sizes.max(), 1e-6)]
    noise = bench.rng.normal(size=rows.shape[1])
    change.ravel()[block] = noise - seen.T @ (seen @ noise)
    return change


def _rescaling(bench, drawn, group) -> None:
    """What an activation gains its outgoing weights may lose, each its own."""
    if any(record.through for record in group.outgoing):
        return
    first = _per_unit(bench, group)
    # Of one sign, so that a unit that is silent or not mostly stays so.
    second = {p: x * bench.rng.uniform(0.5, 2, x.shape) for p, x in first.items()}
    everyone = _everyone(group)
    before = _muted(drawn.values, group, everyone, first)
    after = _muted(drawn.values, group, everyone, second)
    outputs, old = bench.run(before, drawn.inputs)
    # Units that change by no single factor stay as they are.
    ratios = _ratios(group, old, bench.run(after, drawn.inputs)[1])
    chosen = np.all([np.isfinite(x) for x in (everyone, *ratios.values())], axis=0)
    after = trial.write(before, _entering(group), chosen, after)
    ratios = _ratios(group, old, bench.run(after, drawn.inputs)[1])
    if not all(np.all(np.isfinite(ratio)) for ratio in ratios.values()):
        return
    for record in group.outgoing:
        if _key(group, record) not in ratios:
            return
        weights = after[record.path]
        ratio = trial.spread(record, ratios[_key(group, record)], weights.shape)
        after = trial.write(after, [record], everyone, {record.path: weights * ratio})
    what = "an outgoing weight does not multiply the activation that tap gives"
    _expect_same(bench, group, "b", what, bench.run(after, drawn.inputs)[0], outputs)


def _ratios(group, old, new) -> dict[str, np.ndarray]:
    """Per activation and unit the factor from new to old, NaN if it is not one."""
    ratios = {}
    for key in _keys(group, old):
        flat = lambda x: np.asarray(x, np.float64).reshape(-1, group.size)
        a, b = flat(old[key]), flat(new[key])
        where = np.abs(a).argmax(axis=0), np.arange(group.size)
        silent = (a[where] == 0) & np.all(b == 0, axis=0)
        with np.errstate(all="ignore"):
            ratio = np.where(silent, 1, a[where] / b[where])
            single = np.abs(a - ratio * b).max(0) <= 1e-5 * np.abs(a[where])
        ratios[key] = np.where(single & (np.abs(ratio) < 30), ratio, np.nan)
    return ratios


def _places(bench, drawn, group) -> None:
    """Units that change places within their blocks change nothing."""
    for record in group.outgoing:
        if group.blocks % record.groups:
            what = f"the {record.groups} groups of {record.path!r} do not hold whole"
            fail(group, "c", f"{what} blocks of the units, as there are {group.blocks}")
    blocks = np.arange(group.size).reshape(group.blocks, -1)
    order = bench.rng.permuted(blocks, axis=1).ravel()
    swapped, done = dict(drawn.values), set()
    for record in (*_entering(group), *group.outgoing):
        place = record._replace(bias=None, feature=None, places=())
        if place not in done:
            swapped[record.path] = trial.move(swapped[record.path], record, order)
        done.add(place)
    what = "the output changes when units change places"
    _expect_same(
        bench, group, "c", what, bench.run(swapped, drawn.inputs)[0], drawn.outputs
    )
