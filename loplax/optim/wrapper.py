"""The skeleton of every wrapper that replaces units: all but their choice."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks, precision
from loplax.optim import expected, initializers, keys, paths, placement, replacement
from loplax.units import checks as unit_checks
from loplax.units.groups import UnitGroup

Array = jax.Array


class ReplacementState(NamedTuple):
    """State of a wrapper that replaces units.

    Attributes:
      inner: state of the inner optimiser; for the units in ``replaced`` it is reset
        when the next update begins.
      units: what the method knows of the units, one NamedTuple per group name.
      replaced: units replaced by update number ``count``, bool ``[size]`` per group
        name. It stays as it is while an outer wrapper rests: `newly_replaced` gives
        every replacement once. Empty where units are released.
      released: likewise the units that were released by this update; empty where they
        are replaced.
      initial: per path, the values to which biases and scales of replaced units return.
      count: updates made, int32 scalar.
      key: typed random key; update ``count`` draws from ``fold_in(key, count)``.
    """

    inner: optax.OptState
    units: dict[str, Any]
    replaced: dict[str, Array]
    released: dict[str, Array]
    initial: dict[str, Array]
    count: Array
    key: Array


class Step(NamedTuple):
    """What a method sees of one update.

    Attributes:
      grads: the gradients by path.
      weights: the parameters by path, after the inner optimiser's step.
      features: the activations by key, float32 ``[batch, *positions, size]``.
      count: number of the update, from 1.
      base_key: the transformation's key, which is never consumed.
    """

    grads: Mapping[str, Array]
    weights: Mapping[str, Array]
    features: Mapping[str, Array]
    count: Array
    base_key: Array

    def key(self, purpose: str) -> Array:
        """The key of this update for one purpose."""
        return keys.at_step(self.base_key, self.count, purpose)


class Selection(NamedTuple):
    """Which units of a group a method wants replaced, in a form that may wait.

    Attributes:
      due: whether there are any, bool scalar.
      operands: what the method's ``select`` reads if so.
    """

    due: Array
    operands: Any


class Method(NamedTuple):
    """What a method adds to the skeleton.

    Attributes:
      new: ``group -> statistics`` of new units, a NamedTuple.
      observe: ``(group, statistics, step) -> (statistics, selection)``, every update.
      select: ``(operands, capacity) -> (replaced, column)`` as in `Replacement`, at
        updates at which some unit of the network is due.
      forget: ``(statistics, replaced) -> statistics`` after the replacement.
      means: ``statistics -> means`` of the activations by key, for a bias transfer.
      needs_features: whether ``observe`` reads the activations.
    """

    new: Callable
    observe: Callable
    select: Callable
    forget: Callable
    means: Callable | None = None
    needs_features: bool = True


def replacing(
    method: Method,
    inner: optax.GradientTransformation,
    units: Iterable[UnitGroup],
    *,
    capacity: Callable[[int], int] = lambda size: size,
    initializer: initializers.Initializers,
    reset_inner: bool,
    bias_transfer: bool = False,
    release: float | Array | None = None,
    key: Array,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimiser so that the units that a method selects are replaced.

    Args:
      method: the method.
      inner: the optimiser of all parameters.
      units: the ``UnitGroup`` records.
      capacity: size of a group to a static bound on its replacements per update.
      initializer: distribution of incoming weights, as `initializers.for_path` takes.
      reset_inner: whether the inner state of replaced weights is reset.
      bias_transfer: whether the next biases absorb the mean output of the units.
      release: magnitude that the weights of units get that are released, not replaced.
      key: typed random key.

    Returns:
      The transformation; its state is a `ReplacementState`.

    Raises:
      ValueError: as `continual_backprop`.
    """
    checks.typed_key(key)
    releases = release is not None
    groups = expected.groups(units, bias_transfer=bias_transfer, released=releases)
    bounds = {group.name: capacity(group.size) for group in groups}
    inner = expected.optimizer(inner)

    def init(params) -> ReplacementState:
        check(groups, params)
        return ReplacementState(
            inner=inner.init(params),
            units={group.name: method.new(group) for group in groups},
            **told({group.name: jnp.zeros(group.size, bool) for group in groups}),
            initial={} if releases else replacement.restart_values(groups, params),
            count=jnp.zeros((), jnp.int32),
            key=keys.copy(key),
        )

    def told(chosen: dict[str, Array]) -> dict[str, dict[str, Array]]:
        """The fields of the state that tell of the units chosen by an update."""
        names = ("released", "replaced") if releases else ("replaced", "released")
        return dict(zip(names, (chosen, {}), strict=True))

    def choose(step, selections, params) -> replacement.Replacement:
        draw: Callable[[Array], dict[str, Array]] = lambda key: {}
        if not releases:
            draw = replacement.draw_weights(groups, params, initializer, bounds)

        def replace(key, operands):
            chosen = {n: method.select(x, bounds[n]) for n, x in operands.items()}
            replaced, column = ({n: x[i] for n, x in chosen.items()} for i in range(2))
            return replacement.Replacement(replaced, column, draw(key))

        due = jnp.any(jnp.stack([selection.due for selection in selections.values()]))
        operands = {name: selection.operands for name, selection in selections.items()}
        return keys.when(due, replace, step.base_key, step.count, "weights", operands)

    def start_again(chosen, initial, params, weights, updates):
        if releases:
            return replacement.release_weights(
                groups, chosen.replaced, release, params, weights, updates
            )
        return replacement.replace_weights(groups, chosen, initial, params, updates)

    def update(grads, state, params=None, *, features=None, **extra_args):
        expected.required_params(params)
        check(groups, params)
        placement.require_exact(params, reads_features=method.needs_features)
        activations = {}
        if method.needs_features:
            activations = expected.activations(groups, features)
        inner_state = state.inner
        if reset_inner:
            inner_state = replacement.reset_state(
                inner, inner_state, groups, state.replaced | state.released, params
            )
        updates, inner_state = inner.update(
            grads, inner_state, params, features=features, **extra_args
        )
        count = optax.safe_increment(state.count)
        step = Step(
            grads=paths.by_path(grads).leaves,
            weights=paths.by_path(optax.apply_updates(params, updates)).leaves,
            features=activations,
            count=count,
            base_key=state.key,
        )
        statistics, selections = {}, {}
        for group in groups:
            statistics[group.name], selections[group.name] = method.observe(
                group, state.units[group.name], step
            )
        chosen = choose(step, selections, params)
        if bias_transfer:
            means: dict[str, Array] = {}
            for known in statistics.values():
                means |= method.means(known)
            updates = replacement.transfer_means(
                groups, chosen.replaced, means, step.weights, updates
            )
        updates = start_again(chosen, state.initial, params, step.weights, updates)
        statistics = {
            name: method.forget(known, chosen.replaced[name])
            for name, known in statistics.items()
        }
        state = state._replace(
            inner=inner_state,
            units=precision.like(statistics, state.units),
            **told(chosen.replaced),
            count=count,
        )
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)


def check(groups, params) -> None:
    """Raises ``ValueError`` unless the groups fit the parameters."""
    if jax.tree.leaves(params):  # not a placeholder of optax.tree.map_params
        unit_checks.check(groups, params)


def newly_replaced(before: optax.OptState, after: optax.OptState) -> dict[str, Array]:
    """The units that one update of an optimiser replaced.

    ``state.replaced`` tells of the last update that the transformation itself made.
    While an outer wrapper rests (``optax.apply_if_finite``, say), that is an old story:
    acting on it again would restart statistics at every such step. Units that were
    released go on as they are, and are none of these.

    Args:
      before: state of the whole optimiser before the update.
      after: its state after the update.

    Returns:
      Per group name, which units were replaced, bool ``[size]``, with the leading axes
      of a batch of states; empty for an optimiser that replaces none.

    Example:
      >>> import jax, optax
      >>> from loplax import optim, units
      >>> apply = lambda params, x: jax.nn.relu(x @ params["w"]) @ params["v"]
      >>> params = {"w": jax.numpy.ones((3, 4)), "v": jax.numpy.ones((4, 1))}
      >>> found = units.find(apply, params, jax.numpy.ones((2, 3)))
      >>> tx = optim.regrama(optax.sgd(0.1), found, period=1, key=jax.random.key(0))
      >>> before = tx.init(params)
      >>> grads = {"w": jax.numpy.eye(3, 4), "v": jax.numpy.ones((4, 1))}
      >>> _, after = tx.update(grads, before, params)
      >>> optim.newly_replaced(before, after)["w"].tolist()
      [False, False, False, True]
    """
    events: dict[str, Array] = {}
    pairs = zip(_replacements(before), _replacements(after), strict=True)
    for old, new in pairs:
        for name, replaced in new.replaced.items():
            event = replaced & (new.count != old.count)[..., None]
            events[name] = events[name] | event if name in events else event
    return events


def _replacements(state: optax.OptState) -> list[ReplacementState]:
    """All states that tell of replacements, the outer ones first."""
    stop = lambda x: hasattr(x, "replaced") and hasattr(x, "count")
    found = [x for x in jax.tree.leaves(state, is_leaf=stop) if stop(x)]
    inner = [getattr(x, "inner", ()) for x in found]
    return found + [deep for x in inner for deep in _replacements(x)]
