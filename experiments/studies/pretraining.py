"""Networks that know something before a study begins, trained once and kept."""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from loplax.streams.sessions import scaled
from loplax.studies import files, identity
from loplax.supervised import Network
from loplax.units import paths

CHUNK = 100  # steps between two moments at which progress is shown


def pretrained(
    network: Network,
    loss: Callable,
    data: tuple[np.ndarray, np.ndarray],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    progress: bool = True,
) -> Any:
    """Trains a network by AdamW with a one-cycle schedule, once and for all.

    What was trained is kept in the user's cache, under a name made of the data, what
    the network computes, the shapes of its weights and all settings.

    Args:
      network: the network.
      loss: ``(outputs, labels) -> [examples]``.
      data: inputs and labels, as for `loplax.streams.sessions`.
      steps: minibatches, each drawn from all examples.
      batch: examples of a minibatch.
      learning_rate: the highest of the schedule.
      weight_decay: of AdamW.
      progress: whether to show a progress bar.

    Returns:
      ``(params, stats)`` as NumPy arrays.
    """
    start = jax.eval_shape(network.init, jax.random.key(0))
    example = jnp.zeros((1, *data[0].shape[1:]))
    program = str(jax.make_jaxpr(network.apply)(*start, example))
    program = re.sub("0x[0-9a-f]+", "", program)  # addresses of functions
    about = {
        "network": hashlib.blake2b(program.encode()).hexdigest(),
        "data": identity.digest(data),
        "shapes": {
            name: [list(x.shape), str(x.dtype)]
            for name, x in paths.by_path(start).leaves.items()
        },
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "version": 1,
    }
    kept = _folder() / f"{identity.digest(np.frombuffer(_text(about), np.uint8))}.npz"
    leaves, structure = jax.tree.flatten(start)
    if kept.exists():
        with np.load(kept) as found:
            return structure.unflatten([found[str(i)] for i in range(len(leaves))])
    tx = optax.adamw(
        optax.cosine_onecycle_schedule(steps, learning_rate), weight_decay=weight_decay
    )
    trained = _train(network, loss, data, tx, steps, batch, progress)
    arrays = {
        str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(trained))
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    files.write(kept, lambda file: np.savez(file, **arrays))
    return jax.tree.map(np.asarray, trained)


def _train(network, loss, data, tx, steps, batch, progress):
    inputs, labels = map(jnp.asarray, data)
    params, stats = network.init(jax.random.key(0))

    def value(params, stats, index):
        outputs, stats = network.apply(params, stats, scaled(inputs, index))
        return jnp.mean(loss(outputs, labels[index])), stats

    def step(carry, key):
        params, stats, opt = carry
        index = jax.random.randint(key, (batch,), 0, labels.size)
        grads, stats = jax.grad(value, has_aux=True)(params, stats, index)
        updates, opt = tx.update(grads, opt, params)
        return (optax.apply_updates(params, updates), stats, opt), None

    some = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0])
    carry, keys = (
        (params, stats, tx.init(params)),
        jax.random.split(jax.random.key(1), steps),
    )
    with tqdm.tqdm(total=steps, desc="pre-training", disable=not progress) as bar:
        for first in range(0, steps, CHUNK):
            part = keys[first : first + CHUNK]
            carry = jax.block_until_ready(some(carry, part))
            bar.update(len(part))
    return carry[:2]


def begun(network: Network, known: Any, head: str, old: int) -> Network:
    """A network that begins with what is known, but for the outputs of new classes.

    Args:
      network: the network.
      known: ``(params, stats)``, from `pretrained`.
      head: name of its output layer.
      old: the first so many outputs are known.

    Returns:
      The network; the weights of its other outputs are drawn as before.
    """

    def init(key):
        def join(path, drawn, kept):
            if f"/{head}/" not in f"/{paths.name(path)}/":
                return kept
            return jnp.where(jnp.arange(drawn.shape[-1]) < old, kept, drawn)

        params, stats = network.init(key)
        return jax.tree.map_with_path(join, params, known[0]), known[1]

    return network._replace(init=init)


def _text(values: Mapping) -> bytes:
    return json.dumps(values, sort_keys=True).encode()


def _folder() -> pathlib.Path:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home, "loplax", "pretrained")
