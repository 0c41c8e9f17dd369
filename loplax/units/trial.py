"""Random runs of a model, and changes of the parameters that units own."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loplax.units import hosts, taps, walk
from loplax.units.paths import by_path


class Trial(NamedTuple):
    """A model to try.

    Attributes:
      run: ``(values, inputs) -> (outputs, features)``; parameters by path.
      leaves: the parameters or their shapes, by path.
      inputs: the arrays among the inputs.
      tolerance: how far two equal results may differ, relative to their size: the
        square root of the precision of the coarsest numbers seen.
      rng: for the random numbers.
    """

    run: Callable[[dict, Any], tuple[list, dict]]
    leaves: dict[str, Any]
    inputs: Any
    tolerance: float
    rng: np.random.Generator

    def values(self) -> dict[str, Any]:
        """Random parameters that keep activations alive, no vector near 0 or 1."""
        return {path: self._draw(leaf) for path, leaf in self.leaves.items()}

    def _draw(self, leaf):
        if not is_real(leaf):
            return leaf
        if len(leaf.shape) > 1:
            noise = self.rng.normal(size=leaf.shape) * np.prod(leaf.shape) ** -0.25
        else:
            noise = self.rng.uniform(0.2, 0.8, leaf.shape)
            noise = noise * self.rng.choice([-1, 1], leaf.shape)
        return np.asarray(noise, leaf.dtype)

    def distance(self, new, old) -> float:
        """How far results differ beyond rounding, relative to their size; else 0."""
        worst = 0.0
        for a, b in zip(new, old, strict=True):
            a, b = (np.nan_to_num(np.asarray(x, np.complex128)) for x in (a, b))
            size = max(np.abs(b).max(initial=0), np.abs(a).max(initial=0), 1e-6)
            worst = max(worst, np.abs(a - b).max(initial=0) / size)
        return worst if worst > self.tolerance else 0.0

    def near(self, *, alike: bool = False):
        """The inputs with some noise; or the first place of the first everywhere."""
        return jax.tree.map(functools.partial(self._move, alike), self.inputs)

    def _move(self, alike, x):
        number = jnp.issubdtype(x.dtype, jnp.number)
        if not number or x.ndim < 2:
            return x
        x = np.asarray(x)
        if jnp.issubdtype(x.dtype, jnp.floating):
            x = x + np.asarray(self.rng.uniform(0, 0.5, x.shape), x.dtype)
        first = x[(slice(1),) * (x.ndim - 1)]
        return np.broadcast_to(first, x.shape) if alike else x


def prepare(apply, params, inputs, has_aux: bool, seed: int) -> Trial:
    """Makes a trial of a model, compiled once; arguments as for ``verify``."""
    model, tapped = hosts.split(params), taps.tap(apply, has_aux=has_aux)
    known = by_path(model.params)
    arrays, merge = hosts.arrays(inputs)

    @jax.jit
    def run(values, arrays):
        # jit sorts a dict; the tree has an order of its own.
        in_order = {path: values[path] for path in known.leaves}
        whole = known._replace(leaves=in_order).unflatten()
        rest = jax.tree.map(lambda leaf: leaf, model.rest)  # new boxes, in this trace
        output, features = tapped(model.merge(whole, rest), *merge(arrays))
        leaves = jax.tree.leaves(output[0] if has_aux else output)
        outputs = [x for x in leaves if is_real(x)]
        if not outputs:
            raise ValueError("verify needs an output of real numbers.")
        return outputs, features

    program = walk.flatten(jax.make_jaxpr(run)(known.leaves, arrays))
    made = [aval for step in program.steps for aval in step.avals]
    made += known.leaves.values()
    coarsest = max(float(jnp.finfo(leaf.dtype).eps) for leaf in made if is_real(leaf))
    host = lambda *arguments: jax.device_get(run(*arguments))
    rng = np.random.default_rng(seed)
    return Trial(host, known.leaves, arrays, coarsest**0.5, rng)


def is_real(leaf) -> bool:
    """Whether a leaf holds real (or complex) numbers."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


@functools.lru_cache(4096)
def owners(record, sizes: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The unit, or place and unit, of each entry, from 1; broadcasts to ``shape``."""
    numbers = jnp.arange(1, np.prod(sizes) + 1).reshape(sizes)
    return np.asarray(record.spread(numbers, shape))


def spread(record, numbers, shape) -> np.ndarray:
    """``record.spread``, quick for many calls."""
    return np.append(0, numbers)[owners(record, numbers.shape, tuple(shape))]


def write(values, records, chosen, new) -> dict[str, Any]:
    """Gives the chosen units' entries of some records new values.

    Args:
      values: parameters by path.
      records: whose entries are written.
      chosen: which units, bool ``[size]``.
      new: the new values by path; 0 where it is ``None``.

    Returns:
      The parameters.
    """
    values = dict(values)
    for record in records:
        old = values[record.path]
        value = np.zeros((), old.dtype) if new is None else new[record.path]
        mask = spread(record, chosen, old.shape).astype(bool)
        values[record.path] = np.where(mask, value, old).astype(old.dtype)
    return values


def move(values, record, order) -> np.ndarray:
    """A parameter in which unit ``u`` has the entries of unit ``order[u]``."""
    axis = record.axis % values.ndim
    if record.groups > 1:
        block_axis = record.block_axis % values.ndim
        blocks = np.split(values, record.groups, block_axis)
        orders = np.split(order, record.groups)
        pairs = zip(blocks, orders, strict=True)
        taken = [np.take(block, part - min(part), axis) for block, part in pairs]
        return np.concatenate(taken, block_axis)
    outer, inner = record.repeat
    index = np.arange(values.shape[axis])
    entries = record.start + np.arange(outer * len(order) * inner)
    index[entries] = entries.reshape(outer, len(order), inner)[:, order].ravel()
    return np.take(values, index, axis)
