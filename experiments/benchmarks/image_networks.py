"""What the learner and continual backprop cost in the networks of the image studies.

python -m experiments.benchmarks.image_networks [NAME ...]

NAME is one of mlp_100, mlp_500, mlp_2000 (784-H-H-H-10, one example per step), convnet
(batches of 100) and resnet18 (batches of 90); the default is all. The data are random.
Prints, for each, steps per second and the time of the learner, with backprop and with
continual backprop, over that of a plain optax loop of the same network; and for
mlp_2000 the memory of ten runs side by side.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import timing
from experiments.continual_imagenet import config as imagenet_configs
from experiments.continual_imagenet import study as imagenet
from experiments.incremental_cifar import config as cifar_configs
from experiments.incremental_cifar import study as cifar
from experiments.launch import devices
from experiments.permuted_mnist import config as mnist_configs
from experiments.permuted_mnist import study as mnist
from experiments.studies import learning
from loplax import supervised
from loplax.streams import datasets

STEPS = {"mlp_100": 2000, "mlp_500": 200, "mlp_2000": 20, "convnet": 10, "resnet18": 2}


def random_data(name: str, data_dir: str | None) -> datasets.Dataset:
    """Random images in the shapes of MNIST and CIFAR-100, in place of these."""
    del data_dir
    shape, classes = ((28, 28, 1), 10) if name == "mnist" else ((32, 32, 3), 100)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12_000, *shape), np.uint8)
    labels = np.arange(12_000, dtype=np.int32) % classes
    return datasets.Dataset(images, labels, images[:2_000], labels[:2_000], classes)


def make(name: str):
    """The study of a network and its configuration."""
    datasets.load = random_data
    if name.startswith("mlp"):
        config = mnist_configs.get_config("paper")
        config.hidden, config.period = (int(name[4:]),) * 3, 12_000
        return mnist.make(config), config
    if name == "convnet":
        config = imagenet_configs.get_config("laptop")
        config.train_per_class, config.test_per_class = 100, 20
        return imagenet.make(config), config
    config = cifar_configs.get_config("paper")
    config.train_per_class, config.validation_per_class = 90, 10
    return cifar.make(config), config


def programs(name: str, count: int = 1):
    """Compiled loops of steps: plain, and the learner's with both methods."""
    study, config = make(name)
    steps, options = STEPS[name], devices.compiler_options(jax.devices()[0])
    data = jax.device_put(study.data)
    made = {}

    def add(label, method, learn):
        build = learning.problem(study, config, method)
        values = study.method(config, method).hparams
        hparams = {setting: jnp.float32(value) for setting, value in values.items()}

        def init(key, data):
            state = supervised.init(build, key, hparams, data)
            stream, items = study.stream(data, hparams).draw(state.stream)
            take = np.arange(steps) % study.stream(data, hparams).chunk
            return state._replace(stream=stream), jax.tree.map(lambda x: x[take], items)

        def loop(state, items, data):
            return learn(build(state.hparams, state.key_tx, data), state, items)

        keys = jax.random.split(jax.random.key(0), count)
        if count > 1:
            init, loop = jax.vmap(init, (0, None)), jax.vmap(loop, (0, 0, None))
        state, items = jax.jit(init)(keys if count > 1 else keys[0], data)
        step = jax.jit(loop, donate_argnums=0, compiler_options=options)
        compiled, box = step.lower(state, items, data).compile(), [state]

        def run():
            box[0] = compiled(box[0], items, data)
            return box[0].params

        made[label] = run, compiled.memory_analysis()

    add("plain loop", "bp", _plain(config))
    for method in ("bp", "cbp"):
        add(method, method, lambda *args: supervised.learn(*args)[0])
    return made, steps


def _plain(config):
    """The same steps as a loop that uses optax and the network, and nothing else."""

    def learn(problem, state, items):
        tx = optax.sgd(config.learning_rate)
        if config.optimizer == "momentum":
            decay = optax.add_decayed_weights(config.momentum.weight_decay)
            tx = optax.chain(decay, optax.sgd(config.learning_rate, momentum=0.9))

        def loss(params, stats, x, y):
            outputs, stats = problem.network.apply(params, stats, x)
            return jnp.mean(problem.loss(outputs, y)), stats

        def step(carry, item):
            params, stats, opt = carry
            x, y = problem.stream.example(state.stream, item)
            grads, stats = jax.grad(loss, has_aux=True)(params, stats, x, y)
            updates, opt = tx.update(grads, opt, params)
            return (optax.apply_updates(params, updates), stats, opt), None

        carry = state.params, state.stats, tx.init(state.params)
        (params, stats, _), _ = jax.lax.scan(step, carry, items)
        return state._replace(params=params, stats=stats)

    return learn


def main(names: list[str]) -> None:
    """Measures and prints."""
    for name in names:
        made, steps = programs(name)
        rounds = 3 if name == "resnet18" else 7
        seconds = timing.measure(
            {label: run for label, (run, _) in made.items()}, rounds
        )
        print(name)
        for label, taken in seconds.items():
            over = timing.ratio(taken, seconds["plain loop"])
            print(
                f"  {label:10s} {steps / min(taken):9.1f} steps/s   over plain: {over}"
            )
        if name == "mlp_2000":
            made, _ = programs(name, count=10)
            for label, (_, memory) in made.items():
                total = memory.argument_size_in_bytes + memory.temp_size_in_bytes
                print(f"  {label:10s} 10 runs: {total / 2**30:.2f} GiB")


if __name__ == "__main__":
    main(sys.argv[1:] or list(STEPS))
