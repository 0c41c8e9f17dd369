"""The runs of one method of a sweep: numbered, and computed many at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec


class Runs(NamedTuple):
    """All runs of one method, numbered: arm by arm, in each seed by seed.

    Attributes:
      name: name of the method.
      learner: its functions ``init`` and ``segment``.
      hparams: values of its hyper-parameters, each ``[runs]``.
      seeds: seed of each run, ``[runs]``.
      where: arm and place of the seed of each run in the results, each ``[runs]``.
      state: shapes of the state of one run.
      metrics: shapes of the metrics of one segment of one run.
    """

    name: str
    learner: Any
    hparams: dict[str, np.ndarray]
    seeds: np.ndarray
    where: tuple[np.ndarray, np.ndarray]
    state: Any
    metrics: dict[str, jax.ShapeDtypeStruct]

    @property
    def bins(self) -> int:
        """Number of bins in a segment."""
        return next(iter(self.metrics.values())).shape[0]

    def cells(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where some runs are in the results."""
        arms, seeds = self.where
        return arms[ids], seeds[ids]


class Program(NamedTuple):
    """A method's functions, compiled once for ``rows`` runs on several devices.

    Attributes:
      init: ``(data, keys, hparams) -> state``, for all rows.
      segment: ``(data, state) -> (state, metrics)``.
      rows: number of runs.
      sharding: how they are divided among the devices.
    """

    init: Callable[..., Any]
    segment: Callable[..., Any]
    rows: int
    sharding: jax.sharding.NamedSharding


def enumerate_runs(
    name: str,
    first_arm: int,
    method: Any,
    points: Sequence[Mapping[str, float]],
    seeds: tuple[jax.Array, int],
    data: Any,
) -> Runs:
    """Numbers the runs of a method and finds the shapes of its state and metrics.

    Args:
      name: name of the method.
      first_arm: place of its first arm in the results.
      method: its ``learner`` and the values of its ``hparams`` that are not swept.
      points: for each of its arms the swept hyper-parameters.
      seeds: the study's key and the number of seeds.
      data: arrays that all runs share.

    Returns:
      The runs.

    Raises:
      ValueError: if the learner's segment changes the form of its state, or its metrics
        are not ``[bins]`` or ``[bins, subsets]``.
    """
    key, num_seeds = seeds
    rows = [{**method.hparams, **point} for point in points]
    hparams = {
        hparam: np.repeat([float(row[hparam]) for row in rows], num_seeds)
        for hparam in method.hparams
    }
    first = {
        hparam: jnp.asarray(values[0], float) for hparam, values in hparams.items()
    }
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        jax.eval_shape(method.learner.init, key, first, data),
    )
    after, metrics = jax.eval_shape(method.learner.segment, state, data)
    _check_state(name, state, after)
    _check_metrics(name, metrics, method.learner.subsets)
    every_seed = np.tile(np.arange(num_seeds), len(points))
    arms = np.repeat(first_arm + np.arange(len(points)), num_seeds)
    where = (arms, every_seed)
    return Runs(name, method.learner, hparams, every_seed, where, state, metrics)


def _check_state(name: str, state: Any, after: Any) -> None:
    """Refuses a learner whose state changes form."""
    old, new = (
        {jax.tree_util.keystr(path): (leaf.dtype, leaf.shape) for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (state, after))
    )
    for leaf in [leaf for leaf in old | new if old.get(leaf) != new.get(leaf)]:
        raise ValueError(
            f"the segment of method {name!r} turns state{leaf} from {old.get(leaf)} "
            f"into {new.get(leaf)}; it must keep type and shape"
        )


def _check_metrics(name: str, metrics: Any, subsets: Sequence[str]) -> None:
    """Refuses metrics that are neither [bins] nor [bins, subsets]."""
    shapes = {metric: values.shape for metric, values in metrics.items()}
    bins = {shape[:1] for shape in shapes.values()}
    rest = {shape[1:] for shape in shapes.values()} - {()}
    if len(bins) != 1 or bins & {(), (0,)} or rest - {(len(subsets),)}:
        raise ValueError(
            f"metrics of method {name!r} must all have one shape [bins], or [bins, "
            f"{len(subsets)}] for its {len(subsets)} subsets, not {shapes}"
        )


def layout(count: int, num_devices: int, runs_per_block: int) -> tuple[int, int]:
    """Divides runs into equal blocks on every device; little is computed in vain.

    Args:
      count: number of runs.
      num_devices: number of devices.
      runs_per_block: most runs in a block.

    Returns:
      The number of runs, rounded up to whole blocks, and the runs in a block.

    Example:
      >>> layout(100, num_devices=2, runs_per_block=32)
      (100, 25)
    """
    per_device = -(-count // num_devices)
    blocks = -(-per_device // runs_per_block)
    block = -(-per_device // blocks)
    return num_devices * blocks * block, block


def build(
    learner: Any,
    count: int,
    devices: Sequence[jax.Device],
    runs_per_block: int,
    compiler_options: Mapping[str, Any] | None = None,
) -> Program:
    """Makes the program for ``count`` runs; it is compiled when first called.

    Args:
      learner: the functions ``init`` and ``segment``.
      count: number of runs.
      devices: the devices among which to divide them.
      runs_per_block: most runs to vmap.
      compiler_options: options for ``jax.jit``.

    Returns:
      The program.
    """
    devices = devices[:count]
    rows, block = layout(count, len(devices), runs_per_block)
    mesh = jax.make_mesh(
        (len(devices),), ("runs",), (jax.sharding.AxisType.Auto,), devices=devices
    )
    spec = PartitionSpec("runs")

    def compiled(function: Callable[..., Any], donated: tuple[int, ...] = ()) -> Any:
        def mapped(data: Any, args: tuple[Any, ...]) -> Any:
            one = lambda args: function(*args, data)
            if block == 1:  # vmapped, matrix products of a single run would be slower
                return _strong(jax.lax.map(one, args))
            blocks = jax.tree.map(
                lambda leaf: leaf.reshape(len(leaf) // block, block, *leaf.shape[1:]),
                args,
            )
            found = jax.lax.map(jax.vmap(one), blocks)
            return _strong(
                jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), found)
            )

        # Without the check, a learner may begin a scan from a constant.
        sharded = jax.shard_map(
            mapped,
            mesh=mesh,
            in_specs=(PartitionSpec(), spec),
            out_specs=spec,
            check_vma=False,
        )
        return jax.jit(
            lambda data, *args: sharded(data, args),
            donate_argnums=donated,
            compiler_options=compiler_options,
        )

    return Program(
        compiled(learner.init),
        compiled(learner.segment, (1,)),
        rows,
        jax.sharding.NamedSharding(mesh, spec),
    )


def _strong(tree: Any) -> Any:
    """Without weak types, which a second call would lose and be compiled again."""
    return jax.tree.map(
        lambda leaf: (
            leaf if _is_key(leaf) else jax.lax.convert_element_type(leaf, leaf.dtype)
        ),
        tree,
    )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def share(program: Program, data: Any) -> Any:
    """Puts data that all runs share on every device of a program."""
    everywhere = jax.sharding.NamedSharding(program.sharding.mesh, PartitionSpec())
    return jax.device_put(data, everywhere)


def begin(
    program: Program, runs: Runs, ids: np.ndarray, key: jax.Array, data: Any
) -> Any:
    """State of some runs before their first segment.

    Args:
      program: the method's program.
      runs: the method's runs.
      ids: numbers of the runs to begin.
      key: the study's key.
      data: arrays that all runs share, on the program's devices.

    Returns:
      Their state, padded to the rows of the program by repeating runs.
    """
    rows = np.resize(ids, program.rows)
    keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(runs.seeds[rows])
    hparams = {
        name: jnp.asarray(values[rows], float) for name, values in runs.hparams.items()
    }
    return program.init(data, *jax.device_put((keys, hparams), program.sharding))


def to_host(state: Any, count: int) -> dict[str, np.ndarray]:
    """The first ``count`` rows of every leaf of a state, by name, on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(leaf) if _is_key(leaf) else leaf
        )[:count]
        for path, leaf in leaves
    }


def mismatch(runs: Runs, leaves: Mapping[str, np.ndarray]) -> str:
    """How leaves from a checkpoint differ from the method's state; empty if not."""
    plain = jax.eval_shape(lambda state: jax.tree.map(_plain, state), runs.state)
    expected = {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(plain)
    }
    found = {
        name: f"{leaf.dtype}{list(leaf.shape[1:])}" for name, leaf in leaves.items()
    }
    return "; ".join(
        f"state{name} is {found.get(name)}, not {expected.get(name)}"
        for name in expected | found
        if expected.get(name) != found.get(name)
    )


def _plain(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def to_devices(program: Program, runs: Runs, leaves: Mapping[str, np.ndarray]) -> Any:
    """The state that ``to_host`` took to the host, padded to the program's rows."""
    shapes, structure = jax.tree.flatten(runs.state)
    placed = []
    for shape, leaf in zip(shapes, leaves.values(), strict=True):
        rows = np.arange(program.rows) % len(leaf)
        array = jax.device_put(leaf[rows], program.sharding)
        if _is_key(shape):
            kind = jax.random.key_impl(jnp.empty([0], shape.dtype))
            array = jax.random.wrap_key_data(array, impl=kind)
        placed.append(array)
    return jax.tree.unflatten(structure, placed)
