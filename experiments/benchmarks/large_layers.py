"""What continual backprop costs in a 784-H-H-H-10 network, one example per step.

python -m experiments.benchmarks.large_layers [H ...]          (default 100 500 2000)

Prints, for each width, steps per second of SGD and Adam, the time of continual backprop
over that of its inner optimiser (rate 1e-5, replacements happen), of Adam with step
counts per unit over Adam, and the temporary memory of each compiled step loop in units
of the largest weight matrix.
"""

import sys

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks import timing
from loplax import nets, optim, units


def program(make_tx, width: int, steps: int):
    """A compiled loop of training steps, and the temporary bytes that it needs."""
    net = nets.MLP((width,) * 3, 10)
    apply = lambda params, x: net.apply({"params": params}, x)
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros(784))["params"]
    groups = units.find(apply, params, jnp.zeros(784))
    tx = make_tx(groups)
    tapped = units.tap(apply)
    xs = jax.random.uniform(jax.random.key(1), (64, 784))
    ys = jax.random.randint(jax.random.key(2), (64,), 0, 10)

    def loss(params, x, y):
        logits, features = tapped(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y), features

    def step(carry, i):
        params, state = carry
        grads, features = jax.grad(loss, has_aux=True)(params, xs[i % 64], ys[i % 64])
        updates, state = tx.update(grads, state, params, features=features)
        return (optax.apply_updates(params, updates), state), None

    def loop(carry):
        return jax.lax.scan(step, carry, jnp.arange(steps))[0]

    carry = params, jax.jit(tx.init)(params)
    compiled = jax.jit(loop, donate_argnums=0).lower(carry).compile()
    memory = compiled.memory_analysis().temp_size_in_bytes
    box = [carry]

    def run():
        box[0] = compiled(box[0])
        return box[0]

    return run, memory


def main(widths: list[int]) -> None:
    """Measures and prints."""
    cbp = lambda inner: (
        lambda groups: optim.continual_backprop(
            inner(groups),
            groups,
            replacement_rate=1e-5,
            utility="adaptable_contribution",
            key=jax.random.key(3),
        )
    )
    sgd = lambda groups: optax.with_extra_args_support(optax.sgd(0.003))
    adam = lambda groups: optax.adam(1e-4)
    unit_adam = lambda groups: optim.adam(1e-4, groups)
    makers = {
        "sgd": sgd,
        "cbp(sgd)": cbp(sgd),
        "adam": adam,
        "unit adam": unit_adam,
        "cbp(adam)": cbp(adam),
        "cbp(unit adam)": cbp(unit_adam),
    }
    for width in widths:
        steps = max(20, 2_000_000 // width**2)
        built = {name: program(make, width, steps) for name, make in makers.items()}
        seconds = timing.measure({name: run for name, (run, _) in built.items()})
        print(f"H = {width}, {steps} steps per call")
        for name, (_, memory) in built.items():
            base = "sgd" if "sgd" in name else "adam"
            speed = steps / min(seconds[name])
            matrices = memory / (4 * max(width, 784) * width)
            print(
                f"  {name:15s} {speed:10.0f} steps/s   over {base}: "
                f"{timing.ratio(seconds[name], seconds[base])}   "
                f"temporary memory: {matrices:.2f} matrices"
            )


if __name__ == "__main__":
    main([int(width) for width in sys.argv[1:]] or [100, 500, 2000])
