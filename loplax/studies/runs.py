"""The runs of one method of a sweep, and the program that computes many at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from loplax.studies import forms, pieces

# Of what runs once: to compile it well takes longer than it saves.
_QUICK = {"xla_backend_optimization_level": 0}


class Runs(NamedTuple):
    """All runs of one method that are asked for: arm by arm, in each seed by seed.

    Attributes:
      learner: its functions ``init`` and ``segment``.
      about: what the method is.
      hparams: values of its hyper-parameters, each ``[runs]``.
      seeds: seed of each run, which is its place in the results too, ``[runs]``.
      arms: place of its arm in the results, ``[runs]``.
      names: what tells the runs from all others, ``[runs]``.
    """

    learner: Any
    about: pieces.About
    hparams: dict[str, np.ndarray]
    seeds: np.ndarray
    arms: np.ndarray
    names: list[pieces.Run]

    def take(self, ids: np.ndarray) -> "Runs":
        """Some of the runs."""
        return self._replace(
            hparams={name: values[ids] for name, values in self.hparams.items()},
            seeds=self.seeds[ids],
            arms=self.arms[ids],
            names=[self.names[i] for i in ids],
        )

    def group(self, ids: np.ndarray, unit: int) -> pieces.Group:
        """Some runs as they are written, under the number of a unit."""
        hparams = {name: values[ids] for name, values in self.hparams.items()}
        return pieces.Group(unit, self.about, hparams, self.seeds[ids])

    def cells(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where some runs are in the results."""
        return self.arms[ids], self.seeds[ids]


class Program(NamedTuple):
    """A method's functions for ``rows`` runs on several devices.

    A state is the list of those leaves that have elements: an argument without any
    crashes compilers.

    Attributes:
      init: ``(data, keys, hparams) -> state``, for all rows.
      segment: ``(data, state) -> (state, metrics)``.
      rows: number of runs.
      sharding: how they are divided among the devices.
      state: shapes of the leaves of the state of one run, by name.
      metrics: shapes of the metrics of one segment of one run.
    """

    init: Any
    segment: Any
    rows: int
    sharding: NamedSharding
    state: dict[str, jax.ShapeDtypeStruct]
    metrics: dict[str, jax.ShapeDtypeStruct]

    @property
    def bins(self) -> int:
        """Number of bins in a segment."""
        return next(iter(self.metrics.values())).shape[0]


def layout(
    count: int, num_devices: int, runs_per_block: int, part: int | None = None
) -> int:
    """Divides runs into equal units of one block per device; few rows are in vain.

    Args:
      count: number of runs.
      num_devices: number of devices.
      runs_per_block: most runs in a block.
      part: how many of the runs there are here; the blocks stay those of all runs.

    Returns:
      The rows of a unit; with fewer blocks than devices, some of these are not used.

    Example:
      >>> layout(100, num_devices=2, runs_per_block=32)
      50
      >>> layout(100, num_devices=2, runs_per_block=32, part=20)
      25
    """
    num_devices = min(num_devices, count)
    units = -(-count // (num_devices * runs_per_block))
    per_device = -(-count // (units * num_devices))
    if part is not None:
        num_devices = min(num_devices, -(-part // per_device))
    return num_devices * per_device


def trace(
    runs: Runs,
    rows: int,
    devices: Sequence[jax.Device],
    key: jax.Array,
    data: Any,
) -> Program:
    """Traces the functions of a method for some number of runs.

    Args:
      runs: the method's runs.
      rows: how many of them to compute at a time; a multiple of the devices.
      devices: the devices among which they are divided.
      key: the study's key.
      data: arrays that all runs share.

    Returns:
      The program; it has to be compiled.

    Raises:
      ValueError: if the learner's segment changes the form of its state, or its metrics
        are not ``[bins]`` or ``[bins, subsets]``.
    """
    auto = (jax.sharding.AxisType.Auto,)
    devices = devices[:rows]
    mesh = jax.make_mesh((len(devices),), ("runs",), auto, devices=devices)
    divided = NamedSharding(mesh, PartitionSpec("runs"))
    shared = NamedSharding(mesh, PartitionSpec())
    learner, subsets = runs.learner, tuple(runs.learner.subsets)
    number = jnp.zeros([], float)
    data = jax.eval_shape(lambda data: data, data)  # with jax's types
    one = (key, dict.fromkeys(runs.hparams, number), data)
    state = jax.tree.map(_shape, jax.eval_shape(learner.init, *one))
    data, restore_data = _without_empty(data)
    _, restore = _without_empty(state)

    def init(data, args):
        found = learner.init(*args, restore_data(data))
        return _strong(_without_empty(found)[0])

    def segment(data, args):
        before = restore(args[0])
        after, metrics = learner.segment(before, restore_data(data))
        forms.check_state(runs.about.method, state, after)
        forms.check_metrics(runs.about.method, metrics, subsets)
        return _strong((_without_empty(after)[0], metrics))

    def traced(function, donated, *args):
        mapped = _map(function, mesh, rows // len(devices))
        jitted = jax.jit(lambda data, *args: mapped(data, args), donate_argnums=donated)
        placed = lambda tree, where: jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree
        )
        many = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype), args
        )
        return jitted.trace(placed(data, shared), *placed(many, divided))

    begin = traced(init, (), *one[:2])
    leaves = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), begin.out_info
    )
    advance = traced(segment, (1,), leaves)
    metrics = {
        name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        for name, x in advance.out_info[1].items()
    }
    shapes = dict(zip(forms.named(state), leaves, strict=True))
    return Program(begin, advance, rows, divided, shapes, metrics)


def _map(function: Callable[..., Any], mesh: jax.sharding.Mesh, local: int) -> Any:
    """The function of one run for the ``local`` runs of each device."""

    def mapped(data: Any, args: Any) -> Any:
        if local > 1:
            return jax.vmap(function, (None, 0))(data, args)
        # Vmapped, matrix products of a single run would be slower.
        found = function(data, jax.tree.map(lambda x: x[0], args))
        return jax.tree.map(lambda x: x[None], found)

    # Without the check, a learner may begin a scan from a constant.
    return jax.shard_map(
        mapped,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("runs")),
        out_specs=PartitionSpec("runs"),
        check_vma=False,
    )


def _shape(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _without_empty(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The leaves that have elements, and what puts the others back among such."""
    leaves, structure = jax.tree.flatten(tree)
    leaves = [leaf if hasattr(leaf, "shape") else jnp.asarray(leaf) for leaf in leaves]
    empty = {i: (x.shape, x.dtype) for i, x in enumerate(leaves) if not x.size}

    def restore(full: list[Any]) -> Any:
        rest = iter(full)
        return jax.tree.unflatten(
            structure,
            [
                jnp.empty(*empty[i]) if i in empty else next(rest)
                for i in range(len(leaves))
            ],
        )

    return [x for x in leaves if x.size], restore


def _strong(tree: Any) -> Any:
    """Without weak types, which a second call would lose and be compiled again."""
    return jax.tree.map(
        lambda leaf: (
            leaf
            if forms.is_key(leaf)
            else jax.lax.convert_element_type(leaf, leaf.dtype)
        ),
        tree,
    )


def compiled(program: Program, options: Mapping[str, Any]) -> Program:
    """Compiles a program; other threads can go on meanwhile.

    Args:
      program: the program as it was traced.
      options: options of the compiler, by name.

    Returns:
      The program.
    """
    platform = program.sharding.mesh.devices.flat[0].platform
    quick = {**options, **(_QUICK if platform == "cpu" else {})}
    init = program.init.lower().compile(compiler_options=quick)
    segment = program.segment.lower().compile(compiler_options=dict(options))
    return program._replace(init=init, segment=segment)


def share(program: Program, data: Any) -> list[jax.Array]:
    """Puts data that all runs share on every device of a program."""
    everywhere = NamedSharding(program.sharding.mesh, PartitionSpec())
    return jax.device_put(_without_empty(data)[0], everywhere)


def begin(
    program: Program, runs: Runs, ids: np.ndarray, key: jax.Array, data: Any
) -> list[jax.Array]:
    """State of some runs before their first segment.

    Args:
      program: the method's program.
      runs: the method's runs.
      ids: numbers of the runs to begin.
      key: the study's key.
      data: what `share` gives.

    Returns:
      Their state, padded to the rows of the program by repeating runs.
    """
    rows = np.resize(ids, program.rows)
    keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(runs.seeds[rows])
    hparams = {
        name: jnp.asarray(values[rows], float) for name, values in runs.hparams.items()
    }
    return program.init(data, *jax.device_put((keys, hparams), program.sharding))
