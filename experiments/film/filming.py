"""Films a robot of brax: trains an agent, lets it act, and draws it; needs no display.

python -m experiments.film --config=experiments/ant/config.py --method=cbp

Trains one agent for the configuration's ``updates``, then lets it act with the mean of
its policy for an episode. Prints return and length of that episode, and of one by the
same agent before it learned. Writes into ``--workdir``:

  film.gif   the first ``--seconds`` of the episode, in real time;
  strip.png  moments of these side by side. A tile of the ground is a metre long.
"""

import pathlib
import sys
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import app, flags

from experiments.film import skeletons
from experiments.launch import command_line, devices
from loplax.studies import files

FRAME = 0.04  # seconds from one frame to the next, or as close as the steps allow


class Episode(NamedTuple):
    """An episode of a robot.

    Attributes:
      positions: of its links before every step, in metres, ``[steps, links, 3]``.
      rotations: theirs, as quaternions (w, x, y, z), ``[steps, links, 4]``.
      rewards: ``[steps]``.
    """

    positions: np.ndarray
    rotations: np.ndarray
    rewards: np.ndarray

    def __str__(self):
        return f"return {self.rewards.sum():,.1f} in {len(self.rewards):,} steps"


def film(config, method: str, workdir, seconds: float = 5.0) -> tuple[Episode, Episode]:
    """Trains an agent and films it.

    Args:
      config: a configuration of reinforcement learning.
      method: name of the method that the agent learns with.
      workdir: directory for the film.
      seconds: of the episode, to show.

    Returns:
      The episode filmed, and one of the same agent before it learned.

    Raises:
      ValueError: for anything that cannot be run, or filmed.
      OSError: if the film cannot be written.
    """
    # gymnax computes when it is imported, and then platforms are chosen already.
    from experiments.studies import control
    from loplax.envs import brax

    name = config.get("environment")
    if name not in brax.NAMES:
        known = ", ".join(brax.NAMES)
        raise ValueError(f"only brax's robots can be filmed ({known}), got {name!r}.")
    if not 0 < seconds < np.inf:
        raise ValueError(f"seconds must be positive, got {seconds}.")
    study = control.make(config)
    learner, numbers, *_ = study.method(config, method)
    robot, step = _robot(config)
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)

    key = jax.random.fold_in(jax.random.key(config.seed), 0)  # the study's first seed
    state = _train(study, learner, numbers, key)
    build = control.problem(study, config, method)
    act = _actor(build(state.hparams, state.key_build, ()))
    # With the same key, so that both begin alike.
    before, after = act(state.initial, state.key), act(state.params, state.key)
    if not np.isfinite(after.positions).all():
        raise ValueError("the agent or its physics diverged: there is nothing to film.")

    every = max(1, round(FRAME / step))
    show = slice(0, max(1, round(seconds / step)), every)
    shown = skeletons.film(
        robot, after.positions[show], after.rotations[show], every * step
    )
    for name, drawn in {
        "film.gif": skeletons.gif,
        "strip.png": skeletons.strip,
    }.items():
        image = drawn(shown)
        files.write(workdir / name, lambda file, image=image: file.write(image))
    return after, before


def _robot(config) -> tuple[skeletons.Skeleton, float]:
    """A robot's skeleton, and the seconds of a step."""
    from brax import envs  # an optional extra

    backend = config.get("backend", "spring")  # as for loplax.envs.Brax
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Brax System")
        env = envs.get_environment(config.environment, backend=backend)
    return skeletons.skeleton(env.sys), float(env.dt)


def _train(study, learner, numbers, key):
    """A run's state at its end; a progress bar on stderr shows how far it is."""
    options = devices.compiler_options(jax.devices()[0])
    hparams = {name: jnp.asarray(value, float) for name, value in numbers.items()}
    state = jax.jit(learner.init)(key, hparams, ())
    # Once, though the first state may have weaker types than the others.
    segment = jax.jit(learner.segment).lower(state, ()).compile(options)
    number, bins = study.segments
    steps = bins * study.steps_per_bin
    with tqdm.tqdm(total=number * steps, unit="step", unit_scale=True) as bar:
        for _ in range(number):
            state, metrics = segment(state, ())
            bar.set_postfix({"return": f"{metrics['return'][-1]:.1f}"})
            bar.update(steps)
    return state


def _actor(problem):
    """``(params, key) -> Episode``, in the first task if there are several."""

    @jax.jit
    def step(params, key, state, observation):
        (mean, _), _ = problem.apply(params, observation[None])
        return problem.env.step(key, state, mean[0], problem.env_params)

    def act(params, key):
        key, key_reset = jax.random.split(key)
        observation, state = problem.env.reset(key_reset, problem.env_params)
        seen, ended = [], False
        while not ended:
            key, key_step = jax.random.split(key)
            links = getattr(state, "inner", state).physics.x  # of a changing robot too
            observation, state, reward, terminated, truncated, _ = step(
                params, key_step, state, observation
            )
            seen.append((links.pos, links.rot, reward))
            ended = terminated | truncated
        return Episode(*(np.stack(each) for each in zip(*seen, strict=True)))

    return act


def main() -> None:
    """The program."""
    default = pathlib.Path(__file__).parents[1] / "ant" / "config.py"
    config = command_line.define_config(str(default))
    method = flags.DEFINE_string("method", "cbp", "plugins joined by +")
    workdir = flags.DEFINE_string("workdir", "runs/film", "where the film goes")
    seconds = flags.DEFINE_float("seconds", 5.0, "how much of the episode to show")
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS["config"])

    def run(argv):
        with command_line.clear_errors():
            command_line.no_arguments(argv)
            devices.devices(config.value.platform)
            after, before = film(
                config.value, method.value, workdir.value, seconds.value
            )
            print(f"untrained: {before}\n{method.value}: {after}")
            print("film:", pathlib.Path(workdir.value) / "film.gif")

    app.run(run, flags_parser=command_line.read_flags)


if __name__ == "__main__":
    main()
