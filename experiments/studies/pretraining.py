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

from loplax.streams.base import scaled
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
) -> Any:
    """Trains a network by AdamW with a one-cycle schedule, once and for all.

    What was trained is `kept` under the data, what the network computes, the shapes of
    its weights and all settings.

    Args:
      network: the network.
      loss: ``(outputs, labels) -> [examples]``.
      data: inputs and labels, as for `loplax.streams.sessions`.
      steps: minibatches, each drawn from all examples.
      batch: examples of a minibatch.
      learning_rate: the highest of the schedule.
      weight_decay: of AdamW.

    Returns:
      ``(params, stats)`` as NumPy arrays.
    """
    start = jax.eval_shape(network.init, jax.random.key(0))
    about = {
        "network": computation(network.apply, *start, data[0][:1]),
        "data": identity.digest(data),
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "version": 1,
    }
    tx = optax.adamw(
        optax.cosine_onecycle_schedule(steps, learning_rate), weight_decay=weight_decay
    )
    return kept(about, start, lambda: _train(network, loss, data, tx, steps, batch))


def features(
    network: Callable, variables: Any, inputs: np.ndarray, *, batch: int = 500
) -> np.ndarray:
    """What a network makes of inputs, computed once and `kept`.

    Args:
      network: ``(variables, inputs) -> [examples, ...]``.
      variables: what it is given.
      inputs: ``[examples, ...]``, as for `loplax.streams.sessions`.
      batch: examples at a time.

    Returns:
      Its outputs, ``[examples, ...]``.
    """
    example = jax.eval_shape(network, variables, jnp.zeros((1, *inputs.shape[1:])))
    shape = jax.ShapeDtypeStruct((len(inputs), *example.shape[1:]), example.dtype)
    about = {
        "network": computation(network, variables, inputs[:1]),
        "variables": identity.digest(variables),
        "inputs": identity.digest(inputs),
    }
    some = jax.jit(lambda variables, part: network(variables, scaled(part, ...)))

    def compute():
        found = np.empty(shape.shape, shape.dtype)
        with tqdm.tqdm(total=len(inputs), desc="features", disable=None) as bar:
            for first in range(0, len(inputs), batch):
                part = inputs[first : first + batch]
                found[first : first + len(part)] = some(variables, part)
                bar.update(len(part))
        return found

    return kept(about, shape, compute)


def computation(function: Callable, *args: Any) -> str:
    """A digest of what a function of floats computes, as the compiler is told it."""
    floats = lambda x: jnp.zeros(x.shape) if x.dtype == jnp.uint8 else x
    program = str(jax.make_jaxpr(function)(*jax.tree.map(floats, args)))
    program = re.sub("0x[0-9a-f]+", "", program)  # addresses of functions
    return hashlib.blake2b(program.encode(), digest_size=16).hexdigest()


def kept(about: Mapping[str, Any], like: Any, compute: Callable[[], Any]) -> Any:
    """What was computed once and lies in the user's cache, or is computed now.

    Args:
      about: what it depends on, as JSON takes it.
      like: a tree of the shapes.
      compute: returns the tree.

    Returns:
      The tree, of NumPy arrays.
    """
    leaves, structure = jax.tree.flatten(like)
    shapes = {
        name: [list(x.shape), str(x.dtype)]
        for name, x in paths.by_path({"": like}).leaves.items()
    }
    text = json.dumps({**about, "shapes": shapes}, sort_keys=True).encode()
    name = hashlib.blake2b(text, digest_size=16).hexdigest()
    file = _folder() / f"{name}.npz"
    if file.exists():
        with np.load(file) as found:
            return structure.unflatten([found[str(i)] for i in range(len(leaves))])
    tree = jax.tree.map(np.asarray, compute())
    arrays = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(tree))}
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write(file, lambda opened: np.savez(opened, **arrays))
    return tree


def _train(network, loss, data, tx, steps, batch):
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
    with tqdm.tqdm(total=steps, desc="pre-training", disable=None) as bar:
        for first in range(0, steps, CHUNK):
            part = keys[first : first + CHUNK]
            carry = jax.block_until_ready(some(carry, part))
            bar.update(len(part))
    return carry[:2]


def begun(network: Network, known: Any, head: str, old: int) -> Network:
    """A network that begins with what is known, but for the outputs of new classes.

    Args:
      network: the network.
      known: ``(params, stats)``, from `pretrained`; it may have parameters that the
        network has not, and outputs of the old classes only.
      head: name of its output layer.
      old: the first so many outputs are known.

    Returns:
      The network; the weights of its other outputs are drawn as before.
    """

    def init(key):
        params, stats = network.init(key)
        there = paths.by_path(known[0]).leaves

        def join(path, drawn):
            name = paths.name(path)
            if f"/{head}/" not in f"/{name}/":
                return there[name]
            return drawn.at[..., :old].set(there[name][..., :old])

        return jax.tree.map_with_path(join, params), known[1]

    return network._replace(init=init)


def _folder() -> pathlib.Path:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home, "loplax", "pretrained")
