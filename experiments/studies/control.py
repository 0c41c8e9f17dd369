"""From a configuration to learners: what studies of reinforcement learning share."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from experiments.methods import making, specs
from experiments.studies import learning
from loplax import envs, nets, ppo, units
from loplax.envs import brax
from loplax.optim import checks
from loplax.ppo import policies
from loplax.studies import sweep

COUNTS = ("num_envs", "num_steps", "epochs", "minibatches")
# Methods that do something to a network's inputs, or at a new task, have no place here.
METHODS = tuple(
    name
    for name, spec in specs.SPECS.items()
    if not spec.at_task and name not in ("plasticity_injection", "input_normalization")
)


class Study(NamedTuple):
    """An environment, and how an agent learns in it.

    Attributes:
      env: the environment.
      env_params: ``key -> parameters``, with the key of a run's tasks.
      bins: number of bins of a run.
      updates: updates per bin.
      steps_per_bin: environment steps of a run in a bin.
      data: arrays that all runs share: none.
      runs_per_block: runs to vmap on an accelerator, and on a CPU.
    """

    env: Any
    env_params: Callable[[jax.Array], Any]
    bins: int
    updates: int
    steps_per_bin: int
    data: tuple = ()
    runs_per_block: tuple[int, int] = (32, 1)

    @property
    def segments(self) -> tuple[int, int]:
        """Number of segments of a run, and bins per segment."""
        return learning.segments(self.bins)

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
        build = problem(self, config, name)
        values = {number: config[number] for number in specs.PPO}
        values |= making.values(config, name)
        for setting, swept in config.sweep.items():
            for value in swept if setting in values else ():
                ppo.check(build(values | {setting: value}, jax.random.key(0), ()))
        ppo.check(build(values, jax.random.key(0), ()))
        segment = functools.partial(
            ppo.segment, build, bins=self.segments[1], updates=self.updates
        )
        return sweep.Method(
            sweep.Learner(functools.partial(ppo.init, build), segment), values
        )


def make(config, data_dir: str | None = None) -> Study:
    """The study of a configuration.

    Args:
      config: a configuration with what ``specs`` adds for control and changes.
      data_dir: not used, since environments need no data.

    Returns:
      The study.

    Raises:
      ValueError: for an unknown name, or a count that is out of range.
    """
    del data_dir
    for name in COUNTS:
        checks.whole(name, config[name], 1)
    env, params = environment(config)
    collected = config.num_envs * config.num_steps

    def env_params(key):
        if config.change == "none":
            return params
        # Tasks are as long in the steps of a run, however many environments it has.
        period = max(1, config.period // config.num_envs)
        return params.replace(key=key, period=period)

    return Study(
        env=env,
        env_params=env_params,
        bins=learning.whole("updates", config.updates, "bin", config.bin),
        updates=config.bin,
        steps_per_bin=config.bin * collected,
        runs_per_block=(max(1, 32 // config.num_envs), 1),
    )


def environment(config) -> tuple[Any, Any]:
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
        "offset": lambda: envs.shifted(config.offset),
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
    checks.one_of("methods", name, METHODS)
    options = {"activation": config.activation, **specs.SPECS[name].network}
    hidden = learning.widths(config.hidden, options["activation"])
    hidden = () if options.pop("linear", False) else hidden
    params = study.env_params(jax.random.key(0))
    policy = policies.over(study.env.action_space(params))
    net = nets.ActorCritic(hidden, policy.actions, policy.continuous, **options)
    space = study.env.observation_space(params)
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"observations must be arrays, got {space} ({study.env.name})."
        )
    inputs = math.prod(space.shape)
    example = jnp.zeros((config.num_envs, inputs))
    first = lambda key: net.init(key, example)["params"]
    apply = lambda params, x: net.apply({"params": params}, x)
    groups = units.find(apply, jax.eval_shape(first, jax.random.key(0)), example)
    static = making.static(config, name, max((g.size for g in groups), default=1))

    def part(name):
        own = tuple(group for group in groups if group.name.startswith(name))
        return ppo.Part(own, lambda params: params[name])

    def build(hparams, key, data) -> ppo.Problem:
        del data
        key_tx, key_tasks = jax.random.split(key)
        tx = making.make(
            {setting: v for setting, v in hparams.items() if setting not in specs.PPO},
            key_tx,
            name=name,
            optimizer=config.optimizer,
            groups=groups,
            initializer=jax.nn.initializers.lecun_uniform(),
            static=static,
        )
        return ppo.Problem(
            env=study.env,
            env_params=study.env_params(key_tasks),
            init=first,
            apply=apply,
            policy=policy,
            tx=tx,
            parts={"": part("policy"), "value_": part("value")},
            bootstrap=config.bootstrap,
            clip_actions=config.clip_actions,
            **{count: config[count] for count in COUNTS},
            **{number: hparams[number] for number in specs.PPO},
        )

    return build
