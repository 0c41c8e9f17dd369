"""From a configuration to learners: what studies of reinforcement learning share."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.methods import building, composing, settings
from experiments.studies import defaults, learning
from loplax import checks, envs, extras, nets, ppo, units
from loplax.envs import brax
from loplax.ppo import policies
from loplax.studies import sweep

with extras.needed("rl", "reinforcement learning"):
    from gymnax.environments import spaces

COUNTS = ("num_envs", "num_steps", "epochs", "minibatches")


class Study(NamedTuple):
    """An environment, and how an agent learns in it.

    Attributes:
      environment: ``numbers -> (environment, parameters)``, the numbers by address,
        maybe traced.
      env_params: ``(parameters, key) -> parameters`` with the key of a run's tasks.
      numbers: those that can be swept beside the methods', by address.
      bins: number of bins of a run.
      updates: updates per bin.
      steps_per_bin: environment steps of a run in a bin.
      data: arrays that all runs share: none.
      kept: bins of the states from which runs may go on: segments end there.
      runs_per_block: runs to vmap on an accelerator, and on a CPU.
      length: settings that only say how long a run is.
      unit: what its steps are.
    """

    environment: Callable[[Mapping[str, Any]], tuple[Any, Any]]
    env_params: Callable[[Any, jax.Array], Any]
    numbers: Mapping[str, float]
    bins: int
    updates: int
    steps_per_bin: int
    data: tuple = ()
    kept: tuple[int, ...] = ()
    runs_per_block: tuple[int, int] = (32, 1)
    length: tuple[str, ...] = ("updates",)
    unit: str = "step"

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
        build = problem(self, config, name)
        values = {**self.numbers, **made.values}
        for hparams in settings.each(config, values):
            check = lambda key, hparams=hparams: ppo.check(build(hparams, key, ()))
            jax.eval_shape(check, jax.random.key(0))  # nothing of it is computed
        segment = functools.partial(
            ppo.segment, build, bins=self.segments[1], updates=self.updates
        )
        learner = sweep.Learner(functools.partial(ppo.init, build), segment)
        return sweep.Method(learner, values, made.described, settings.DEFAULTS)


def make(config, data_dir: str | None = None) -> Study:
    """The study of a configuration.

    Args:
      config: a configuration with what ``defaults`` adds for control and changes.
      data_dir: not used, since environments need no data.

    Returns:
      The study.

    Raises:
      ValueError: for an unknown name, or a count that is out of range.
    """
    del data_dir
    for name in COUNTS:
        checks.whole(name, config[name], 1)
    numbers = {name: config[name] for name in defaults.PPO}
    if config.change == "offset":
        numbers["offset"] = config.offset
    environment = functools.partial(_environment, config)
    environment(numbers)
    collected = config.num_envs * config.num_steps

    def env_params(params, key):
        if config.change == "none":
            return params
        # Tasks are as long in the steps of a run, however many environments it has.
        period = max(1, config.period // config.num_envs)
        return params.replace(key=key, period=period)

    return Study(
        environment=environment,
        env_params=env_params,
        numbers=numbers,
        bins=learning.whole("updates", config.updates, "bin", config.bin),
        updates=config.bin,
        steps_per_bin=config.bin * collected,
        runs_per_block=(max(1, 32 // config.num_envs), 1),
    )


def _environment(config, numbers: Mapping[str, Any]) -> tuple[Any, Any]:
    """The environment of a configuration, and its parameters."""
    settings = {}
    if "backend" in config:
        checks.one_of("environment", config.environment, brax.NAMES)
        settings["backend"] = config.backend
    env, params = envs.make(config.environment, **settings)
    if config.change == "none":
        return env, params
    changes = {
        "permutation": lambda: envs.permuted(),
        "offset": lambda: envs.shifted(numbers["offset"]),
    }
    fields = [field.name for field in dataclasses.fields(params)]
    checks.one_of("change", config.change, ("none", *changes, *fields))
    if config.change in changes:
        env = envs.Perturbed(env)
        change = changes[config.change]()
    else:
        change = _of_field(config)
    env = envs.Changing(env, change, period=config.period)
    return env, env.default_params


def _of_field(config):
    """A change of a field of the environment's parameters."""
    for value in (*config.factors, *config.listed):
        checks.in_range(config.change, value, -math.inf)
    if config.listed:
        return envs.listed(**{config.change: config.listed})
    if len(config.factors) != 2:
        raise ValueError(f"factors must be (low, high), got {config.factors}.")
    return envs.scaled(**{config.change: config.factors})


def problem(study: Study, config, name: str) -> ppo.Build:
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
    made = composing.method(config, name)
    made.check_without_stream("reinforcement learning")
    made.check_options(defaults.OPTIONS)
    env, params = study.environment(study.numbers)
    policy = policies.over(env.action_space(params))
    first, apply, example = _network(env, params, policy, config, made.options)
    groups = units.find(apply, jax.eval_shape(first, jax.random.key(0)), example)

    def part(name):
        own = tuple(group for group in groups if group.name.startswith(name))
        return ppo.Part(own, lambda params: params[name])

    def build(hparams, key, data) -> ppo.Problem:
        del data
        key_tx, key_tasks = jax.random.split(key)
        tx = building.transformation(
            made,
            hparams,
            key_tx,
            groups=groups,
            initializer=jax.nn.initializers.lecun_uniform(),
        )
        env, params = study.environment(hparams)
        return ppo.Problem(
            env=env,
            env_params=study.env_params(params, key_tasks),
            init=first,
            apply=apply,
            policy=policy,
            tx=tx,
            parts={"": part("policy"), "value_": part("value")},
            bootstrap=config.bootstrap,
            clip_actions=config.clip_actions,
            **{count: config[count] for count in COUNTS},
            **{number: hparams[number] for number in defaults.PPO},
        )

    return build


def _network(env, params, policy, config, options):
    """The network as ``init`` and ``apply``, and an example of its inputs."""
    options = {"activation": config.activation, **options}
    hidden = learning.widths(config.hidden, options["activation"])
    hidden = () if options.pop("linear", False) else hidden
    net = nets.ActorCritic(hidden, policy.actions, policy.continuous, **options)
    space = env.observation_space(params)
    if not isinstance(space, spaces.Box):
        raise ValueError(f"observations must be arrays, got {space} ({env.name}).")
    example = jnp.zeros((config.num_envs, math.prod(space.shape)))
    first = lambda key: net.init(key, example)["params"]
    return first, lambda params, x: net.apply({"params": params}, x), example
