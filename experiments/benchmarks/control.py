"""Environment steps per second of the whole loop of PPO, and what CBP costs in it.

python -m experiments.benchmarks.control [ENVIRONMENT ...]

ENVIRONMENT is a name of gymnax or brax; the default is Pendulum-v1 and ant. The agent
is that of the paper: two networks of 256-256 units, 2,048 steps of one environment, 10
epochs of 16 minibatches; but units are mature from the first step on, so that some are
replaced. Prints environment steps per second, all seeds together, of tuned Adam and of
continual backprop, and the ratio of their times, for 1 seed and for 8 side by side.
"""

import sys

import jax
import jax.numpy as jnp

from experiments.benchmarks import timing
from experiments.launch import devices
from experiments.studies import control, locomotion
from loplax import ppo
from loplax.envs import brax

SEEDS = (1, 8)
UPDATES = 4


def program(environment: str, method: str, seeds: int):
    """A compiled loop of updates of several seeds, and its environment steps."""
    config = locomotion.get_config("paper", environment)
    config.cbp.maturity_threshold = 0
    if environment not in brax.NAMES:
        with config.unlocked():
            del config.backend
    study = control.make(config)
    learner, numbers, *_ = study.method(config, method)
    build = control.problem(study, config, method)
    hparams = {name: jnp.float32(value) for name, value in numbers.items()}
    begin = jax.jit(jax.vmap(lambda key: learner.init(key, hparams, ())))
    state = begin(jax.random.split(jax.random.key(0), seeds))

    def learn(state):
        # Without a bin's diagnostics, which come every 50 updates.
        problem = build(state.hparams, state.key_build, ())

        def one(state, _):
            state, collected = ppo.collect(problem, state)
            batch, _ = ppo.estimate(problem, state.params, collected)
            return ppo.learn(problem, state, batch)[0], None

        return jax.lax.scan(one, state, None, length=UPDATES)[0]

    options = devices.compiler_options(jax.devices()[0])
    run = jax.jit(jax.vmap(learn), compiler_options=options)
    return lambda: run(state), seeds * UPDATES * config.num_steps


def main() -> None:
    """Measures and prints."""
    for environment in sys.argv[1:] or ("Pendulum-v1", "ant"):
        for seeds in SEEDS:
            made = {m: program(environment, m, seeds) for m in ("tuned_adam", "cbp")}
            seconds = timing.measure({m: run for m, (run, _) in made.items()}, 5)
            print(f"{environment}, {seeds} seed{'s' if seeds > 1 else ''}")
            for method, (_, steps) in made.items():
                rate = steps / min(seconds[method])
                cost = timing.ratio(seconds[method], seconds["tuned_adam"])
                print(f"  {method:10} {rate:9,.0f} steps/s   over tuned_adam: {cost}")


if __name__ == "__main__":
    main()
