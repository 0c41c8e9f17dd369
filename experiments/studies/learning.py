"""From a configuration to learners: what the studies of all experiments share."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from experiments.methods import making, specs
from loplax import nets, streams, supervised, units
from loplax.optim import checks, paths
from loplax.studies import sweep
from loplax.supervised import tasks
from loplax.supervised.problem import Build, Network, Problem

BINS_PER_SEGMENT = 5


class Study(NamedTuple):
    """A benchmark problem with the network that learns it.

    Attributes:
      stream: ``data -> Stream``.
      network: makes the network of a method from its options, see ``methods.Spec``.
      loss: as in ``Problem``.
      initializer: distribution of the hidden layers' weights.
      bins: number of bins of a run.
      chunks: draws from the stream per bin.
      batch: examples in an item of the stream.
      measures: as in ``Problem``.
      data: arrays that all runs share.
      maintained: the units that methods maintain; by default those of ``units.find``.
      forward: what gives their features, as in ``Problem``; of the plain network.
      features: the same for the diagnostics, as in ``Problem``.
      batch_norm: whether the network's statistics are those of Flax's BatchNorm.
      head: path of the output layer.
      output_initializer: distribution of its weights.
      at_task: what becomes of the output layer at a new task: ``""``, ``"zero"`` or
        ``"draw"``.
      schedule: makes of a learning rate what the optimiser takes.
      early_stopping: whether tasks end with their best weights in validation.
      fresh: whether a fresh network learns the first chunk of each segment too.
      bins_per_segment: most bins between two moments at which a run can be stopped.
      runs_per_block: runs to vmap on an accelerator, and on a CPU.
    """

    stream: Callable[[Any], streams.Stream]
    network: Callable[[Mapping[str, Any]], Network]
    loss: Callable
    initializer: Callable
    bins: int
    chunks: int
    batch: int = 1
    measures: Mapping[str, Callable] = {}
    data: Any = ()
    maintained: units.Units | None = None
    forward: Callable | None = None
    features: Callable | None = None
    batch_norm: bool = False
    head: str = "output"
    output_initializer: Callable = nets.kaiming_uniform("linear")
    at_task: str = ""
    schedule: Callable[[jax.Array], Any] = lambda rate: rate
    early_stopping: bool = False
    fresh: bool = True
    bins_per_segment: int = BINS_PER_SEGMENT
    runs_per_block: tuple[int, int] = (32, 1)

    @property
    def steps_per_bin(self) -> int:
        """Examples that a run learns from in a bin."""
        return self.chunks * self.stream(self.data).chunk * self.batch

    @property
    def segments(self) -> tuple[int, int]:
        """Number of segments of a run, and bins per segment."""
        return segments(self.bins, self.bins_per_segment)

    def method(self, config, name: str) -> sweep.Method:
        """The learner of a method, and the numeric settings that it uses.

        Args:
          config: its configuration.
          name: name of the method.

        Returns:
          The method, for ``sweep.run``.

        Raises:
          ValueError: for anything in the configuration that cannot be run.
        """
        if config.unroll < 0:
            raise ValueError(f"unroll must be at least 0, got {config.unroll}.")
        build = problem(self, config, name)
        values = making.values(config, name)
        for setting, swept in config.sweep.items():
            for value in swept if setting in values else ():
                build(values | {setting: value}, jax.random.key(0), self.data)
        build(values, jax.random.key(0), self.data)
        segment = functools.partial(
            supervised.segment,
            build,
            bins=self.segments[1],
            chunks=self.chunks,
            unroll=config.unroll or (2 if jax.default_backend() == "cpu" else 1),
            fresh=self.fresh,
        )
        test = self.stream(self.data).test
        learner = sweep.Learner(
            functools.partial(supervised.init, build),
            segment,
            test.subsets if test else (),
        )
        return sweep.Method(learner, values)


def segments(bins: int, most: int = BINS_PER_SEGMENT) -> tuple[int, int]:
    """Number of equal segments of at most ``most`` bins, and bins per segment."""
    per_segment = math.gcd(bins, most)
    return bins // per_segment, per_segment


def whole(name: str, number: int, part_name: str, part: int) -> int:
    """How many whole parts a number has.

    Raises:
      ValueError: unless it is a positive multiple of the part.
    """
    if part < 1 or number < 1 or number % part:
        raise ValueError(
            f"{name} ({number}) must be a positive multiple of {part_name} ({part})."
        )
    return number // part


def words(values) -> tuple[str, ...]:
    """Names in a configuration; a command line's ``bp,cbp`` comes as one word."""
    return tuple(name for value in values for name in str(value).split(","))


def widths(sizes: tuple[int, ...], activation: str) -> tuple[int, ...]:
    """Units per layer: half as many of those with two outputs."""
    return tuple(n // 2 or n for n in sizes) if activation == "crelu" else sizes


def problem(study: Study, config, name: str) -> Build:
    """What a method learns, with what network and transformation.

    Args:
      study: the study.
      config: its configuration.
      name: name of the method.

    Returns:
      ``(hparams, key, data) -> Problem``.

    Raises:
      ValueError: for anything in the configuration that cannot be run.
    """
    checks.one_of("methods", name, tuple(making.SPECS))
    spec = making.SPECS[name]
    observe = words(config.observe)
    for family in observe:
        checks.one_of("observe", family, tuple(supervised.FAMILIES))
    inputs = _example(study)
    shape = inputs.shape if study.batch == 1 else inputs.shape[1:]
    if study.at_task == "zero" and name in ("nap", "plasticity_injection"):
        raise ValueError(f"{name} cannot start with an output layer that is set to 0.")
    plain = study.network(spec.network)
    maintained = study.maintained or _units(plain, inputs)
    if study.batch_norm:
        restart = functools.partial(nets.restart_statistics, maintained)
        plain = plain._replace(restart=restart)
    network = making.around(plain, name, making.values(config, name), shape)
    given = study.features is not None and network is plain
    observed = maintained if given else _units(network, inputs)
    initializers = _initializers(study, plain)
    static = making.static(config, name, max((g.size for g in maintained), default=1))

    def build(hparams, key, data) -> Problem:
        tx = making.make(
            hparams,
            key,
            name=name,
            optimizer=config.optimizer,
            groups=maintained,
            initializer=initializers,
            static=static,
            schedule=study.schedule,
        )
        network = making.around(plain, name, hparams, shape)
        made = Problem(
            stream=study.stream(data),
            network=network,
            loss=study.loss,
            tx=tx,
            groups=observed,
            measures=study.measures,
            forward=study.forward if network is plain else None,
            features=study.features if given else None,
            on_task=_on_task(study, spec, network, tx),
            observe=observe,
        )
        if study.early_stopping:
            made = made._replace(keepers=(tasks.early_stopping(made),))
        return made

    return build


def _units(network: Network, inputs) -> units.Units:
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    return units.find(network.apply, params, stats, inputs, has_aux=True)


def _initializers(study: Study, network: Network) -> dict[str, Callable]:
    """The distribution of the weights of each layer, by path."""
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    hidden, output = study.initializer, study.output_initializer
    inside = lambda path: f"/{study.head}/" in f"/{path}/"
    leaves = paths.by_path(params).leaves
    return {path: output if inside(path) else hidden for path in leaves}


def _example(study: Study) -> Any:
    """Shapes of the inputs of a step."""

    def first(key, data):
        stream = study.stream(data)
        state, items = stream.draw(stream.init(key))
        return stream.example(state, jax.tree.map(lambda x: x[0], items))[0]

    return jax.eval_shape(first, jax.random.key(0), study.data)


def _on_task(study: Study, spec: specs.Spec, network: Network, tx):
    what = spec.at_task or study.at_task
    if what == "all":
        return tasks.reset_all(network, tx)
    if what:
        return tasks.reset_head(network, study.head, zero=what == "zero")
    return None
