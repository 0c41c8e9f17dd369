"""What continual backprop costs in the 20-5-1 network of slowly-changing regression.

python -m experiments.benchmarks.small_networks [RUNS ...]        (default 1 32 1024)

Prints steps x runs per second of backprop and continual backprop (SGD, rate 1e-4), and
the ratio of their times, for each number of runs side by side on one device. The
programs are the study's own learner, without its diagnostics.
"""

import sys

import jax
import jax.numpy as jnp

from experiments.benchmarks import timing
from experiments.launch import devices
from experiments.slowly_changing_regression import config as configs
from experiments.slowly_changing_regression import study
from experiments.studies import learning
from loplax import supervised
from loplax.studies import runs

BLOCK = 128


def program(method: str, count: int, device: jax.Device):
    """Learning from one chunk in ``count`` runs, and the examples of a call."""
    config = configs.get_config()
    made = study.make(config)
    build = learning.problem(made, config, method)
    numbers = made.method(config, method).hparams

    def init(key):
        hparams = {name: jnp.float32(value) for name, value in numbers.items()}
        return supervised.init(build, key, hparams)

    def chunk(state):
        problem = build(state.hparams, state.key_tx, ())
        stream, items = problem.stream.draw(state.stream)
        return supervised.learn(
            problem, state._replace(stream=stream), items, unroll=2
        )[0]

    block = runs.layout(count, 1, BLOCK)
    many = chunk if count == 1 else lambda s: jax.lax.map(chunk, s, batch_size=block)
    keys = jax.random.split(jax.random.key(0), count)
    state = jax.jit(init if count == 1 else jax.vmap(init))(
        keys[0] if count == 1 else keys
    )
    options = devices.compiler_options(device)
    step = jax.jit(many, donate_argnums=0, compiler_options=options)
    box = [state]

    def run():
        box[0] = step(box[0])
        return box[0].params

    return run, made.stream((), made.numbers).chunk * count


def main(counts: list[int]) -> None:
    """Measures and prints."""
    device = jax.devices()[0]
    for count in counts:
        built = {name: program(name, count, device) for name in ("bp", "cbp")}
        seconds = timing.measure({name: run for name, (run, _) in built.items()}, 15)
        speeds = {name: built[name][1] / min(seconds[name]) / 1e6 for name in built}
        print(
            f"{count:5d} runs   bp {speeds['bp']:6.2f}M/s   cbp {speeds['cbp']:6.2f}M/s"
            f"   cbp over bp: {timing.ratio(seconds['cbp'], seconds['bp'])}"
        )


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or [1, 32, 1024])
