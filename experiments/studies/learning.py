"""From a configuration to learners: what the studies of all experiments share."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from experiments.methods import building, composing, settings
from experiments.studies import defaults
from loplax import checks, nets, streams, supervised, units
from loplax.optim import paths
from loplax.studies import sweep
from loplax.supervised import task_norms, tasks
from loplax.supervised.problem import Build, Network, Problem

BINS_PER_SEGMENT = 5
AT_TASK = {
    "zero_head": functools.partial(tasks.reset_head, zero=True),
    "new_head": functools.partial(tasks.reset_head, zero=False),
    "new_optimizer": tasks.reset_optimizer,
}


class Study(NamedTuple):
    """A benchmark problem with the network that learns it.

    Attributes:
      stream: ``(data, numbers) -> Stream``, the numbers by address, maybe traced.
      network: makes the network of a method from its options, see ``Plugin.options``.
      loss: as in ``Problem``.
      initializer: distribution of the hidden layers' weights.
      bins: number of bins of a run.
      chunks: draws from the stream per bin.
      batch: examples in an item of the stream.
      bins_per_chunk: bins of a draw, where a bin is shorter than one; see
        `supervised.segment`.
      test_starts: whether tests also take place when a task begins.
      measures: as in ``Problem``.
      data: arrays that all runs share.
      numbers: those of the stream that can be swept, by address in the configuration.
      maintained: the units that methods maintain; by default those of ``units.find``.
      forward: what gives their features, as in ``Problem``; of the plain network.
      features: the same for the diagnostics, as in ``Problem``.
      batch_norm: whether the network's statistics are those of Flax's BatchNorm.
      head: path of the output layer.
      output_initializer: distribution of its weights.
      at_task: what happens at a new task, names in ``AT_TASK``.
      schedule: makes of a learning rate what the optimiser takes.
      early_stopping: whether tasks end with their best weights in validation.
      options: names of those that its network has.
      task_norms: whether each task is tested with the norms that it ended with; see
        `loplax.supervised.task_norms`.
      fresh: whether a fresh network learns the first chunk of each segment too.
      bins_per_segment: most bins between two moments at which a run can be stopped.
      kept: bins of the states from which runs may go on: segments end there.
      runs_per_block: runs to vmap on an accelerator, and on a CPU.
      length: settings that only say how long a run is.
      unit: what its steps are.
    """

    stream: Callable[[Any, Mapping[str, Any]], streams.Stream]
    network: Callable[[Mapping[str, Any]], Network]
    loss: Callable
    initializer: Callable
    bins: int
    chunks: int
    batch: int = 1
    bins_per_chunk: int = 1
    test_starts: bool = False
    measures: Mapping[str, Callable] = {}
    data: Any = ()
    numbers: Mapping[str, float] = {}
    maintained: units.Units | None = None
    forward: Callable | None = None
    features: Callable | None = None
    batch_norm: bool = False
    head: str = "output"
    output_initializer: Callable = nets.kaiming_uniform("linear")
    at_task: tuple[str, ...] = ()
    schedule: Callable[[jax.Array], Any] = lambda rate: rate
    early_stopping: bool = False
    fresh: bool = True
    options: tuple[str, ...] = defaults.OPTIONS
    task_norms: bool = False
    bins_per_segment: int = BINS_PER_SEGMENT
    kept: tuple[int, ...] = ()
    runs_per_block: tuple[int, int] = (32, 1)
    length: tuple[str, ...] = ()
    unit: str = "example"

    @property
    def steps_per_bin(self) -> int:
        """Examples that a run learns from in a bin."""
        items = self.chunks * self.stream(self.data, self.numbers).chunk
        return whole("items", items, "bins_per_chunk", self.bins_per_chunk) * self.batch

    @property
    def items(self) -> int:
        """Items of the stream that a run learns from."""
        return self.bins * self.steps_per_bin // self.batch

    @property
    def segments(self) -> tuple[int, int]:
        """Number of segments of a run, and bins per segment."""
        draws = whole("bins", self.bins, "bins_per_chunk", self.bins_per_chunk)
        kept = (bins // self.bins_per_chunk for bins in self.kept)
        number, per_segment = segments(draws, self.bins_per_segment, *kept)
        return number, per_segment * self.bins_per_chunk

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
        made = composing.method(config, name, self.items)
        build = problem(self, config, name)
        values = {**self.numbers, **made.values}
        for hparams in settings.each(config, values):
            check = lambda key, hparams=hparams: build(hparams, key, self.data) and None
            jax.eval_shape(check, jax.random.key(0))  # nothing of it is computed
        segment = functools.partial(
            supervised.segment,
            build,
            bins=self.segments[1],
            chunks=self.chunks,
            bins_per_chunk=self.bins_per_chunk,
            unroll=config.unroll or (2 if defaults.on_cpu(config) else 1),
            fresh=self.fresh,
        )
        test = self.stream(self.data, self.numbers).test
        learner = sweep.Learner(
            functools.partial(supervised.init, build),
            segment,
            test.subsets if test else (),
        )
        return sweep.Method(learner, values, made.described, settings.DEFAULTS)


def segments(bins: int, most: int, *kept: int) -> tuple[int, int]:
    """Number of equal segments of at most ``most`` bins, and bins per segment.

    One ends at each bin of ``kept``.
    """
    per_segment = math.gcd(bins, most, *kept)
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
    return tuple(word.strip() for value in values for word in str(value).split(","))


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
    made = composing.method(config, name, study.items)
    observe = words(config.observe)
    for family in observe:
        checks.one_of("observe", family, tuple(supervised.FAMILIES))
    inputs = _example(study)
    shape = inputs.shape if study.batch == 1 else inputs.shape[1:]
    for each, plugin in made.plugins.items():
        if "zero_head" in study.at_task and plugin.draws_output:
            raise ValueError(
                f"{each} cannot start with an output layer that is set to 0."
            )
        tests = plugin.sessions or study.stream(study.data, study.numbers).test
        if plugin.evaluated and not tests:
            raise ValueError(f"{each} is tested, and this problem tests nothing.")
    made.check_options(study.options)
    plain = study.network(made.options)
    shapes = _shapes(plain)
    maintained = study.maintained or _units(plain, shapes, inputs)
    if study.batch_norm:
        restart = functools.partial(nets.restart_statistics, maintained)
        plain = plain._replace(restart=restart)
    network = building.network(made, plain, made.values, shape)
    observed, around = maintained, shapes
    if network is not plain:
        around = _shapes(network)
        observed = _maintained(made, _units(network, around, inputs))
        maintained = maintained if around[0] == shapes[0] else observed
    initializers = _initializers(study, shapes[0], around[0])

    def build(hparams, key, data) -> Problem:
        tx = building.transformation(
            made,
            hparams,
            key,
            groups=maintained,
            initializer=initializers,
            schedule=study.schedule,
            restarts="new_optimizer" in study.at_task,
        )
        network = building.network(made, plain, hparams, shape)
        learned = Problem(
            stream=building.stream(made, study.stream(data, hparams), hparams),
            network=network,
            loss=study.loss,
            tx=tx,
            groups=observed,
            measures=study.measures,
            forward=study.forward if network is plain else None,
            features=study.features if network is plain else None,
            test_starts=study.test_starts,
            head=study.head,
            observe=observe,
        )
        norms = _task_norms(study, learned, maintained)
        if norms:
            by = {"network": norms.network, "by_subset": norms.by_subset}
            learned = learned._replace(**by)
        learned = learned._replace(on_task=_at_task(study, made, learned))
        learned = building.fill(made, learned, hparams)
        if norms:
            learned = learned._replace(keepers=(*learned.keepers, norms.keeper))
        if study.early_stopping:
            stopping = tasks.early_stopping(learned)
            learned = learned._replace(keepers=(*learned.keepers, stopping))
        return learned

    return build


def _shapes(network: Network) -> tuple[Any, Any]:
    """Shapes of the parameters and of the statistics."""
    return jax.eval_shape(network.init, jax.random.key(0))


def _units(network: Network, shapes: tuple[Any, Any], inputs) -> units.Units:
    """The hidden layers, as tests see them: where it learns, weights may be drawn."""
    return units.find(network.predict, *shapes, inputs)


def _maintained(made: composing.Method, found: units.Units) -> units.Units:
    """The hidden layers that count as such."""
    plugins = made.plugins.values()
    return found.select(
        *(n for n in found.names if all(p.maintains(n) for p in plugins))
    )


def _initializers(study: Study, plain: Any, around: Any) -> dict[str, Callable]:
    """The distribution of the weights of each layer, by path.

    What a plugin puts beside the plain network starts again at 0: it adds nothing.
    """
    hidden, output = study.initializer, study.output_initializer
    inside = lambda path: f"/{study.head}/" in f"/{path}/"
    names = lambda params: paths.by_path(params).leaves
    beside = dict.fromkeys(names(around), jax.nn.initializers.zeros)
    return beside | {path: output if inside(path) else hidden for path in names(plain)}


def _example(study: Study) -> Any:
    """Shapes of the inputs of a step."""

    def first(key, data):
        stream = study.stream(data, study.numbers)
        state, items = stream.draw(stream.init(key))
        return stream.example(state, jax.tree.map(lambda x: x[0], items))[0]

    return jax.eval_shape(first, jax.random.key(0), study.data)


def _task_norms(study: Study, learned: Problem, maintained):
    """What tests each task with its own norms, where there is something to remember."""
    if not study.task_norms:
        return None
    return task_norms.per_task(learned.network, learned.stream, maintained)


def _at_task(study: Study, made: composing.Method, learned: Problem) -> tuple:
    """What the problem does at a new task, unless a plugin does that its own way."""
    if any("restart" in plugin.claims for plugin in made.plugins.values()):
        return ()
    return tuple(AT_TASK[each](learned) for each in study.at_task)
