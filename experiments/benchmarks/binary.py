"""What binarisation and metaplasticity cost: 784-512-512-10, batches of 100, Adam.

python -m experiments.benchmarks.binary

Prints milliseconds of a step of `nets.BinaryMLP` with real and with binarised weights
and activations, and of the latter with `optim.metaplastic`; and the ratios of their
times.
"""

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks import timing
from loplax import nets, optim
from loplax.supervised import losses

BATCH, INPUTS, OUTPUTS, STEPS = 100, 784, 10, 20


def program(binary: bool, *after: optax.GradientTransformation):
    """Twenty steps on random images."""
    net = nets.BinaryMLP((512, 512), OUTPUTS, running=False, binary=binary)
    tx = optax.chain(optax.adam(0.005), *after)
    key_net, key_x = jax.random.split(jax.random.key(0))
    images = jax.random.uniform(key_x, (STEPS, BATCH, INPUTS))
    labels = jnp.arange(STEPS * BATCH).reshape(STEPS, BATCH) % OUTPUTS
    params = net.init(key_net, images[0])["params"]

    def step(carry, batch):
        params, state = carry
        loss = lambda params: jnp.mean(
            losses.cross_entropy(net.apply({"params": params}, batch[0]), batch[1])
        )
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, (images, labels))[0])
    return lambda: run((params, tx.init(params)))


def main() -> None:
    """Measures and prints."""
    programs = {
        "real": program(False),
        "binary": program(True),
        "metaplastic": program(True, optim.metaplastic(1.35)),
    }
    seconds = timing.measure(programs, 15)
    for name, values in seconds.items():
        print(f"{name:11s} {min(values) / STEPS * 1e3:6.2f} ms")
    for one, other in (("binary", "real"), ("metaplastic", "binary")):
        print(f"{one} over {other}: {timing.ratio(seconds[one], seconds[other])}")


if __name__ == "__main__":
    main()
