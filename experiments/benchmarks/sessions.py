"""What the learner adds to a plain loop of optax that replays and evaluates as often.

python -m experiments.benchmarks.sessions [METHOD ...]                  (default er)

Rotated images (random ones) as in the laptop preset of the stability gap, the second
session: 128 new examples and 128 of the buffer in a minibatch, all tests of both
sessions after every update. Prints the ratio of the times of the study's own learner
and of a loop that is given its minibatches.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import timing
from experiments.launch import devices
from experiments.stability_gap import config as configs
from experiments.stability_gap import study
from experiments.studies import learning
from loplax import supervised
from loplax.streams import datasets
from loplax.supervised import losses


def _images(name, data_dir, **how):
    """Images of the size of MNIST's, of which nothing can be learned."""
    del name, data_dir, how
    random = np.random.default_rng(0)
    images = lambda n: random.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)
    labels = lambda n: random.integers(0, 10, n, dtype=np.int32)
    return datasets.Dataset(
        images(12_000), labels(12_000), images(500), labels(500), 10
    )


def _first_session(made, build, numbers):
    """The state in which the second session begins, and ``state -> state`` of it."""
    hparams = {name: jnp.float32(value) for name, value in numbers.items()}
    state = supervised.init(build, jax.random.key(0), hparams, made.data)
    parts = {"bins": made.segments[1], "bins_per_chunk": made.bins_per_chunk}
    segment = functools.partial(supervised.segment, build, fresh=False, **parts)
    run = jax.jit(segment, compiler_options=devices.compiler_options(jax.devices()[0]))
    return run(state, made.data)[0], lambda state: run(state, made.data)


def _plain(build, state, data):
    """The same session as a loop over given minibatches."""
    problem = build(state.hparams, state.key_tx, data)
    stream, items = jax.jit(problem.stream.draw)(state.stream)
    weights = jax.vmap(lambda item: problem.stream.weights(stream, item))(items)
    (images, labels), (tests, wanted) = jax.tree.map(jnp.asarray, data)
    seen = 1000  # tests of two sessions
    tests, wanted = tests[:seen], wanted[:seen]
    apply, tx = problem.network.predict, optax.sgd(state.hparams["learning_rate"])

    def step(carry, minibatch):
        params, opt = carry
        index, weights = minibatch

        def loss(params):
            logits = apply(params, (), images[index] / 255.0)
            return jnp.sum(weights * losses.cross_entropy(logits, labels[index]))

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = tx.update(grads, opt, params)
        params = optax.apply_updates(params, updates)
        logits = apply(params, (), tests / 255.0)
        measured = [f(logits, wanted) for f in (losses.cross_entropy, losses.accuracy)]
        each = [x.reshape(2, -1).mean(1) for x in measured]
        return (params, opt), (value, each)

    carry = state.params, tx.init(state.params)
    options = devices.compiler_options(jax.devices()[0])
    loop = jax.jit(
        lambda carry, given: jax.lax.scan(step, carry, given), compiler_options=options
    )
    return lambda: loop(carry, (items.index, weights))


def main(methods: list[str]) -> None:
    """Measures and prints."""
    datasets.load = _images
    config = configs.get_config("laptop")
    made = study.make(config)
    for method in methods:
        build = learning.problem(made, config, method)
        numbers = made.method(config, method).hparams
        state, session = _first_session(made, build, numbers)
        programs = {
            "learner": lambda state=state, session=session: session(state),
            "loop": _plain(build, state, made.data),
        }
        seconds = timing.measure(programs, 7)
        updates = {name: config.steps / min(s) for name, s in seconds.items()}
        print(
            f"{method}: {updates['learner']:.0f} updates/s, plain loop "
            f"{updates['loop']:.0f}; learner over loop: "
            f"{timing.ratio(seconds['learner'], seconds['loop'])}"
        )


if __name__ == "__main__":
    main(sys.argv[1:] or ["er"])
