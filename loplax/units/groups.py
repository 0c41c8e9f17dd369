"""Hidden units as explicit records: where each unit's weights sit in the parameters."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from loplax import sharding, spelling
from loplax.units import tables


class WeightAxis(NamedTuple):
    """The axis of one parameter that runs over the units of a group.

    With ``repeat = (outer, inner)``, unit ``u`` of ``size`` owns the entries
    ``start + (o * size + u) * inner + i`` of ``axis``, for every ``o < outer`` and
    ``i < inner``. An ordinary layer has ``repeat = (1, 1)``; a dense kernel behind a
    flattened ``[height, width, channels]`` map has ``repeat = (height * width, 1)``.

    A weight that also runs over places of the units, as a kernel ``[height, width,
    channels, outputs]`` that is contracted with a whole image, has ``places``: it meets
    the activation of place ``p`` at index ``p`` of these axes. ``[height, width]`` has
    ``((0, height), (1, width))``.

    The kernel of a grouped convolution has ``groups > 1``: unit
    ``u = g * (size // groups) + j`` owns entry ``j`` of ``axis`` within block ``g`` of
    ``block_axis``, the kernel's output axis.

    Attributes:
      path: parameter path, its keys joined by ``/`` (``"hidden_0/kernel"``).
      axis: the axis that runs over the units.
      repeat: ``(outer, inner)`` repetitions of the units along the axis.
      start: entry of the axis at which the units begin.
      groups: number of groups of a grouped convolution that reads the units.
      block_axis: the layer's output axis; used if ``groups`` is not 1 or there is a
        ``bias``.
      bias: path of the bias that is added to what this (outgoing) weight computes,
        or ``None``; the bias runs along the layer's outputs.
      feature: key, among the activations that ``tap`` returns, of the one that this
        (outgoing) weight multiplies; ``None`` stands for the group's name.
      places: axes of this (outgoing) weight that run over places of the units, each
        with its length, in the order in which the activation has them.
      through: what the layer takes of every entry of this (incoming or outgoing)
        weight: ``"sign"`` if nothing but its sign, as where it is binarised,
        ``"function"`` for another function of the entry that is 0 at 0, ``None`` for
        the entry itself, up to factors.
    """

    path: str
    axis: int
    repeat: tuple[int, int] = (1, 1)
    start: int = 0
    groups: int = 1
    block_axis: int = -1
    bias: str | None = None
    feature: str | None = None
    places: tuple[tuple[int, int], ...] = ()
    through: str | None = None

    @property
    def positions(self) -> tuple[int, ...]:
        """Lengths of ``places``, then ``(outer, inner)``, without those that are 1."""
        lengths = (*(length for _, length in self.places), *self.repeat)
        return tuple(n for n in lengths if n > 1)

    def spread(
        self,
        values: jax.Array,
        shape: tuple[int, ...],
        out_sharding: jax.sharding.NamedSharding | None = None,
    ) -> jax.Array:
        """Lays per-unit values over the parameter.

        Args:
          values: one value per unit, ``[size]``, or one per position and unit,
            ``[*positions, size]``.
          shape: the parameter's shape.
          out_sharding: the parameter's sharding, ``jax.typeof(weight).sharding``, where
            it may lie on a mesh with Explicit axes.

        Returns:
          An array that broadcasts to ``shape``, lies as the parameter does, and holds
          each unit's value at the weights the unit owns, and zero (``False``) at the
          weights of no unit.
        """
        laid = self._lay(sharding.whole(values), shape)
        if out_sharding is None or not any(out_sharding.spec):
            return laid
        return jnp.broadcast_to(laid, shape, out_sharding=out_sharding)

    def _lay(self, values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        dims = [1] * len(shape)
        if self.groups > 1:
            blocks = values.reshape(self.groups, -1)
            width = shape[self.block_axis] // self.groups
            plane = jnp.repeat(blocks.T, width, axis=1)
            dims[self.axis], dims[self.block_axis] = plane.shape
            axis, block_axis = self.axis % len(shape), self.block_axis % len(shape)
            return (plane if axis < block_axis else plane.T).reshape(dims)
        outer, inner = self.repeat
        axes = [self.axis % len(shape)]
        if values.ndim > 1:
            lengths = [length for _, length in self.places]
            axes = [axis % len(shape) for axis, _ in self.places] + axes
            values = values.reshape(*lengths, outer, inner, -1)
            values = jnp.moveaxis(values, -2, -1).reshape(*lengths, -1)
        elif (outer, inner) != (1, 1):
            values = jnp.tile(jnp.repeat(values, inner), outer)
        length = shape[self.axis]
        if values.shape[-1] != length:
            rest = length - self.start - values.shape[-1]
            pads = [(0, 0)] * (values.ndim - 1) + [(self.start, rest)]
            values = jnp.pad(values, pads)
        for axis in axes:
            dims[axis] = shape[axis]
        order = sorted(range(len(axes)), key=axes.__getitem__)
        return jnp.transpose(values, order).reshape(dims)

    def total(self, weights: jax.Array, size: int) -> jax.Array:
        """Sums an array of the parameter's shape over the weights of each unit.

        Args:
          weights: array of the parameter's shape.
          size: number of units.

        Returns:
          The sums, ``[size]``, on a mesh whole on every device.
        """
        totals = self.totals(weights, size)
        return jnp.sum(totals, axis=tuple(range(totals.ndim - 1)))

    def totals(self, weights: jax.Array, size: int) -> jax.Array:
        """Sums as `total` does, but for every position alone.

        Args:
          weights: array of the parameter's shape.
          size: number of units.

        Returns:
          The sums, ``[*positions, size]``.
        """
        axis = self.axis % weights.ndim
        if self.groups > 1:
            block_axis = self.block_axis % weights.ndim
            others = tuple({*range(weights.ndim)} - {axis, block_axis})
            plane = sharding.whole(jnp.sum(weights, axis=others))
            plane = plane if axis < block_axis else plane.T
            plane = plane.reshape(size // self.groups, self.groups, -1)
            return jnp.sum(plane, axis=2).T.reshape(size)
        split = sharding.is_split(weights)
        if weights.ndim == 2 and weights.size > 4096 and not split and not self.places:
            # A matrix-vector product reads memory faster than a sum does.
            ones = jnp.ones(weights.shape[1 - axis], weights.dtype)
            pair = (ones, weights) if axis else (weights, ones)
            line = jnp.matmul(*pair, precision="highest")
        else:
            axes = [at % weights.ndim for at, _ in self.places] + [axis]
            others = tuple({*range(weights.ndim)} - {*axes})
            line = sharding.whole(jnp.sum(weights, axis=others))
            line = jnp.transpose(line, [sorted(axes).index(at) for at in axes])
        outer, inner = self.repeat
        line = line[..., self.start : self.start + outer * size * inner]
        if not self.positions:
            return line.reshape(size)
        line = line.reshape(*line.shape[:-1], outer, size, inner)
        return jnp.moveaxis(line, -2, -1).reshape(*self.positions, size)

    def count(self, shape: tuple[int, ...], size: int) -> int:
        """Number of weights that each of the ``size`` units owns."""
        outer, inner = self.repeat
        total = math.prod(shape)
        if self.groups > 1:
            return total // size
        return total // shape[self.axis] * outer * inner


class UnitGroup(NamedTuple):
    """The units of one hidden layer and every parameter they touch.

    Attributes:
      name: the layer's name.
      size: number of units.
      incoming: weights into the units, re-drawn when a unit is replaced; each runs over
        the units along a whole axis.
      biases: additive per-unit parameters (biases, norm shifts).
      scales: multiplicative per-unit parameters (norm scales, slopes of a PReLU).
      outgoing: all weights that read the units, set to 0 when a unit is replaced.
      coupled_by: statistics that the units share and meet again, as under a layer norm:
        through these alone a unit without outgoing weights is seen by the others.
      tied_to: what varies along the units and is no parameter: ``"constants"``
        (running statistics too) or ``"random numbers"`` (dropout). Units that change
        places leave it behind; they are alike in distribution at most.
      blocks: the units can change places within each of this many equal blocks of
        neighbours. More than one behind a group norm and where a grouped convolution
        computes or reads the units; as many as there are units if they are tied, or on
        either side of a depthwise convolution.
    """

    name: str
    size: int
    incoming: tuple[WeightAxis, ...]
    biases: tuple[WeightAxis, ...]
    scales: tuple[WeightAxis, ...]
    outgoing: tuple[WeightAxis, ...]
    coupled_by: tuple[str, ...] = ()
    tied_to: tuple[str, ...] = ()
    blocks: int = 1

    @property
    def features(self) -> dict[str, tuple[int, ...]]:
        """Positions of each activation that an outgoing weight multiplies, by key."""
        return {axis.feature or self.name: axis.positions for axis in self.outgoing}


class Units(tuple[UnitGroup, ...]):
    """The unit groups of a model, in the order in which it computes them.

    A tuple of ``UnitGroup``; printing it shows a table of the layers, with the numbers
    of biases and scales that each unit has.

    Args:
      groups: the groups.
      left_out: reason for each layer whose units cannot be told apart, by name.

    Example:
      >>> from loplax import units
      >>> kernel, head = units.WeightAxis("w1", 1), units.WeightAxis("w2", 0)
      >>> group = units.UnitGroup("w1", 4, (kernel,), (), (), (head,))
      >>> print(units.Units([group]))
      layer  size  biases  scales  incoming  outgoing
      w1        4       0       0  w1[1]     w2[0]
    """

    left_out: dict[str, str]

    def __new__(
        cls, groups: Iterable[UnitGroup] = (), left_out: Mapping[str, str] | None = None
    ) -> "Units":
        """Makes a tuple of the groups."""
        units = super().__new__(cls, groups)
        units.left_out = dict(left_out or {})
        return units

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups."""
        return tuple(group.name for group in self)

    def select(self, *names: str) -> "Units":
        """Keeps some groups.

        Args:
          *names: names of the groups to keep.

        Returns:
          These groups, in the order in which the model computes them.

        Raises:
          ValueError: if a name is unknown or was left out.
        """
        for name in names:
            if name in self.names:
                continue
            if name in self.left_out:
                reason = self.left_out[name]
                raise ValueError(f"Layer {name!r} was left out: {reason}.")
            near = nearest(name, [*self.names, *self.left_out])
            raise ValueError(f"No layer {name!r}; {near}.")
        return Units([group for group in self if group.name in names], self.left_out)

    def __str__(self) -> str:
        """A table of the layers, and what was left out."""
        return tables.text(self)

    def _repr_html_(self) -> str:
        return tables.html(self)


def nearest(name: str, known: Iterable[str]) -> str:
    """Words for an error message that name the nearest known names, or just some."""
    known = list(known)
    close = spelling.near(name, known)
    listed = ", ".join(repr(other) for other in close or known[:3])
    return f"{'nearest known' if close else 'known, for example'}: {listed or 'none'}"
