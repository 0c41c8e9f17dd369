"""The quadratic binary task: what a configuration means."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.stats import rankdata

from experiments.methods import building, composing, settings
from experiments.quadratic import task as tasks
from experiments.studies import learning
from loplax import checks
from loplax.studies import sweep


class State(NamedTuple):
    """State of a run.

    Attributes:
      task: what is learned.
      params: the latent weights, ``{"latent": [weights, 1]}``: a kernel, as what acts
        on latent weights leaves biases alone.
      opt: state of the transformation.
      hparams: the numeric settings, float scalars.
      key_tx: key given to the transformation.
    """

    task: tasks.Task
    params: dict[str, jax.Array]
    opt: optax.OptState
    hparams: dict[str, jax.Array]
    key_tx: jax.Array


class Study(NamedTuple):
    """Latent weights whose signs are to minimise a quadratic form.

    Attributes:
      task: ``(key, numbers) -> Task``, the numbers by address, maybe traced.
      start: standard deviation of the first latent weights.
      weights: how many of them; results that are of each have them as subsets.
      numbers: those that can be swept beside the methods', by address.
      bins: number of bins of a run.
      steps_per_bin: updates in a bin.
      data: arrays that all runs share: none.
      kept: bins of the states from which runs may go on: segments end there.
      runs_per_block: runs to vmap on an accelerator, and on a CPU.
      length: settings that only say how long a run is.
      unit: what its steps are.
    """

    task: Callable[[jax.Array, Mapping[str, Any]], tasks.Task]
    start: float
    weights: int
    numbers: Mapping[str, float]
    bins: int
    steps_per_bin: int
    data: tuple = ()
    kept: tuple[int, ...] = ()
    runs_per_block: tuple[int, int] = (32, 1)
    length: tuple[str, ...] = ("steps",)
    unit: str = "update"

    @property
    def segments(self) -> tuple[int, int]:
        """Number of segments of a run, and bins per segment."""
        return learning.segments(self.bins, learning.BINS_PER_SEGMENT, *self.kept)

    def method(self, config, name: str) -> sweep.Method:
        """The learner of a method, and the numeric settings that it uses.

        Args:
          config: the configuration.
          name: name of the method.

        Returns:
          The method, for ``sweep.run``.

        Raises:
          ValueError: for anything in the configuration that cannot be run.
        """
        made = composing.method(config, name)
        made.check_without_stream("the quadratic task")
        made.check_options(())
        build = functools.partial(
            building.transformation,
            made,
            groups=(),
            initializer=jax.nn.initializers.normal(self.start),
        )
        values = {**self.numbers, **made.values}
        for hparams in settings.each(config, values):
            checks.in_range("reach", hparams["reach"], 0)
            check = lambda key, hparams=hparams: build(hparams, key) and None
            try:
                jax.eval_shape(check, jax.random.key(0))  # nothing of it is computed
            except ValueError as error:  # of what maintains units, say
                raise ValueError(f"{name} in the quadratic task: {error}") from error
        learner = sweep.Learner(
            functools.partial(init, self, build),
            functools.partial(
                segment, build, bins=self.segments[1], steps=self.steps_per_bin
            ),
            tuple(map(str, range(self.weights))),
        )
        return sweep.Method(learner, values, made.described, settings.DEFAULTS)


def make(config, data_dir: str | None = None) -> Study:
    """The study of a configuration.

    Args:
      config: a configuration as ``config.get_config`` returns it.
      data_dir: not used, since this problem needs no data.

    Returns:
      The study.

    Raises:
      ValueError: for a size that is out of range.
    """
    del data_dir
    checks.whole("dimensions", config.dimensions, 2)
    checks.in_range("start", config.start)
    low, high = config.curvature
    if not 0 < low <= high:
        raise ValueError(
            f"curvature must be 0 < low <= high, got {tuple(config.curvature)}."
        )

    def task(key, numbers) -> tasks.Task:
        return tasks.draw(key, config.dimensions, (low, high), numbers["reach"])

    return Study(
        task=task,
        start=config.start,
        weights=config.dimensions,
        numbers={"reach": config.reach},
        bins=2 * learning.whole("steps", config.steps, "twice bin", 2 * config.bin),
        steps_per_bin=config.bin,
    )


def init(study: Study, build: Callable, key: jax.Array, hparams, data=()) -> State:
    """Starts a run: draws its task and its latent weights.

    Args:
      study: the study.
      build: ``(hparams, key) -> transformation``.
      key: the run's key.
      hparams: the numeric settings.
      data: nothing.

    Returns:
      The state before the first update.
    """
    del data
    key_task, key_start, key_tx = jax.random.split(key, 3)
    start = study.start * jax.random.normal(key_start, (study.weights, 1))
    params = {"latent": start}
    opt = build(hparams, key_tx).init(params)
    return State(study.task(key_task, hparams), params, opt, hparams, key_tx)


def update(tx: optax.GradientTransformation, state: State) -> State:
    """Updates the latent weights by the gradient of their signs."""
    grads = tasks.gradient(state.task, jnp.sign(state.params["latent"][:, 0]))
    grads = {"latent": grads[:, None]}
    updates, opt = tx.update(grads, state.opt, state.params)
    return state._replace(params=optax.apply_updates(state.params, updates), opt=opt)


def segment(
    build: Callable, state: State, data=(), *, bins: int, steps: int
) -> tuple[State, dict[str, jax.Array]]:
    """Makes ``bins * steps`` updates.

    Args:
      build: as for `init`.
      state: where the run stands.
      data: nothing.
      bins: number of bins of the metrics.
      steps: updates in a bin.

    Returns:
      The state, and metrics ``[bins]``: ``loss`` of the signs, mean over the bin,
      before each update; at its end the ``correlation`` and the ``rank_correlation`` of
      the size of the latent weights with what switching their signs costs. And ``[bins,
      weights]``: ``latent`` and ``increase``, these two themselves, and ``switches``,
      how often each sign switched in the bin.
    """
    del data
    tx = build(state.hparams, state.key_tx)
    signs = lambda state: jnp.sign(state.params["latent"][:, 0])

    def step(state, _):
        before, state = signs(state), update(tx, state)
        return state, (tasks.loss(state.task, before), signs(state) != before)

    def one_bin(state, _):
        state, (losses, switched) = jax.lax.scan(step, state, None, length=steps)
        latent = state.params["latent"][:, 0]
        increase = tasks.increase(state.task, signs(state))
        return state, {
            "loss": losses.mean(),
            "correlation": _correlation(jnp.abs(latent), increase),
            "rank_correlation": _correlation(
                *map(rankdata, (jnp.abs(latent), increase))
            ),
            "latent": latent,
            "increase": increase,
            "switches": switched.sum(0).astype(float),
        }

    return jax.lax.scan(one_bin, state, None, length=bins)


def _correlation(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.corrcoef(x, y)[0, 1]
