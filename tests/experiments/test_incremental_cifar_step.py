"""Steps of continual backprop in the study's ResNet-18, computed again by hand.

The gradient is that of the plain network. Momentum, weight decay, utilities, the choice
of units and what becomes of their weights are NumPy; only the new incoming weights are
taken from the learner.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from experiments.incremental_cifar import config as configs
from experiments.incremental_cifar import study
from experiments.studies import learning
from loplax import nets, supervised

pytestmark = pytest.mark.usefixtures("quick_compile")

RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.02
REPLACED, MATURITY, ETA = 0.25, 1, 0.9
CONFIG = {
    "width": 2,
    "classes": 4,
    "epochs": 2,
    "milestones": (1,),
    "batch": 4,
    "train_per_class": 4,
    "validation_per_class": 2,
    "early_stopping": False,
    "patches": "no",
    "learning_rate": RATE,
    "momentum.momentum": MOMENTUM,
    "momentum.weight_decay": DECAY,
    "cbp.replacement_rate": REPLACED,
    "cbp.maturity_threshold": MATURITY,
    "cbp.decay_rate": ETA,
}
# An epoch has two minibatches, and a step of the study two epochs.
RATES = (RATE, RATE, 0.2 * RATE, 0.2 * RATE, RATE, RATE)
NET = nets.ResNet18(outputs=4, width=2)

INNER = {
    f"block_{i}/conv_0": ((f"block_{i}/conv_0",), (f"block_{i}/conv_1",))
    for i in range(8)
}


def stream(i, first, readers):
    """Writers and readers of the residual stream of blocks ``i`` and ``i + 1``."""
    writers = (first, f"block_{i}/conv_1", f"block_{i + 1}/conv_1")
    return writers, (f"block_{i + 1}/conv_0", *readers)


def ahead(i):
    return f"block_{i}/conv_0", f"block_{i}/skip"


EXACT = INNER | {
    "stem": stream(0, "stem", ("block_0/conv_0", *ahead(2))),
    "block_2/conv_1": stream(2, "block_2/skip", ahead(4)),
    "block_4/conv_1": stream(4, "block_4/skip", ahead(6)),
    "block_6/conv_1": stream(6, "block_6/skip", ("output",)),
}
CHAIN = ("stem", *(f"block_{i}/conv_{j}" for i in range(8) for j in range(2)), "output")
REFERENCE = {
    name: ((name,), (reader,))
    for name, reader in zip(CHAIN[:-1], CHAIN[1:], strict=True)
}


def read_by(layer):
    """Name of the features that a layer reads."""
    block, _, part = layer.partition("/")
    number = int(block.removeprefix("block_")) if part else 8
    if part == "conv_1":
        return f"{block}/conv_0"
    return "stem" if number == 0 else f"block_{number - 1}/conv_1"


def norm(conv):
    return f"{conv}_norm" if "conv" not in conv else conv.replace("conv", "norm")


def flat(tree):
    """Writable NumPy arrays by path."""
    leaves = traverse_util.flatten_dict(tree, sep="/")
    return {path: np.array(leaf, float) for path, leaf in leaves.items()}


@pytest.fixture(scope="module")
def plain(quick_compile):
    """``(params, stats, x, y) -> (gradient, features, statistics)``."""

    def loss(params, stats, x, labels, seen):
        (logits, features), new = NET.apply(
            {"params": params, "batch_stats": stats},
            x,
            train=True,
            mutable=["batch_stats"],
            method="with_features",
        )
        log_p = jax.nn.log_softmax(jnp.where(seen, logits, -jnp.inf))
        found = -jnp.mean(log_p[jnp.arange(len(labels)), labels])
        return found, (features, new["batch_stats"])

    def run(params, stats, x, y):
        grads, (features, stats) = jax.grad(loss, has_aux=True)(params, stats, x, *y)
        return grads, features, stats

    return jax.jit(run)


class ByHand:
    """What continual backprop remembers of a run, and its next step."""

    def __init__(self, layers, sizes, paths, places):
        self.layers, self.sizes, self.places = layers, sizes, places
        self.velocity = dict.fromkeys(paths, 0.0)
        self.utility = {name: np.zeros(sizes[name]) for name in layers}
        self.age = {name: np.zeros(sizes[name]) for name in layers}
        self.budget = dict.fromkeys(layers, 0.0)

    def sgd(self, weights, grads, rate):
        for path, weight in weights.items():
            slope = grads[path] + DECAY * weight
            self.velocity[path] = MOMENTUM * self.velocity[path] + slope
        return {path: w - rate * self.velocity[path] for path, w in weights.items()}

    def read(self, reader, h, kernel):
        """Mean magnitude of what each weight of each unit meets, ``[size, weights]``.

        A kernel that is applied at one place only meets the map, or its padding, entry
        by entry; one that slides meets the whole map on average.
        """
        size = h.shape[-1]
        everywhere = h.reshape(-1, size).mean(axis=0)[:, None]
        block, _, part = reader.partition("/")
        strided = block in ("block_2", "block_4", "block_6") and part != "conv_1"
        if not self.places or h.ndim < 4 or h.shape[1] > (2 if strided else 1):
            return everywhere
        side = kernel.shape[0]
        margin = (side - 1) // 2
        seen = np.zeros((side, side, size))
        for i, j in np.ndindex(side, side):
            row, column = i - margin, j - margin
            if 0 <= row < h.shape[1] and 0 <= column < h.shape[2]:
                seen[i, j] = h[:, row, column].mean(axis=0)
        seen = np.broadcast_to(seen[..., None], (side, side, size, kernel.shape[-1]))
        return np.moveaxis(seen, -2, 0).reshape(size, -1)

    def choose(self, weights, features):
        """The units to replace, by the least contribution."""
        chosen = {}
        for name, (_, readers) in self.layers.items():
            size, kernels = self.sizes[name], [weights[f"{r}/kernel"] for r in readers]
            rows = [np.moveaxis(k, -2, 0).reshape(size, -1) for k in kernels]
            # In the residual stream every reader meets the units in another block.
            read = [np.abs(features[read_by(reader)]) for reader in readers]
            read = [
                self.read(reader, h, w)
                for reader, h, w in zip(readers, read, kernels, strict=True)
            ]
            terms = [np.abs(w) * h for w, h in zip(rows, read, strict=True)]
            self.age[name] += 1
            self.utility[name] *= ETA
            self.utility[name] += (1 - ETA) * np.concatenate(terms, axis=1).mean(axis=1)
            rank = self.utility[name] / (1 - ETA ** self.age[name])
            eligible = self.age[name] > MATURITY
            self.budget[name] += REPLACED * size * eligible.any()
            number = min(int(self.budget[name]), eligible.sum())
            self.budget[name] -= number
            order = np.argsort(np.where(eligible, rank, np.inf), kind="stable")
            chosen[name] = np.isin(np.arange(size), order[:number])
            self.age[name][chosen[name]] = self.utility[name][chosen[name]] = 0
        return chosen

    def replace(self, weights, stats, chosen, drawn):
        """Changes weights and statistics in place; returns which weights are drawn."""
        fresh = {path: np.zeros(w.shape, bool) for path, w in weights.items()}

        def assign(path, where, value):
            weights[path][where] = value
            self.velocity[path][where] = 0

        for name, (_, readers) in self.layers.items():
            for reader in readers:
                units = (..., chosen[name], slice(None))
                assign(f"{reader}/kernel", units, 0)
        for name, (writers, _) in self.layers.items():
            for conv in writers:
                units = (..., chosen[name])
                assign(f"{conv}/kernel", units, drawn[f"{conv}/kernel"][units])
                fresh[f"{conv}/kernel"][units] = True
                assign(f"{conv}/bias", units, 0)
                assign(f"{norm(conv)}/bias", units, 0)
                assign(f"{norm(conv)}/scale", units, 1)
                stats[f"{norm(conv)}/mean"][units] = 0
                stats[f"{norm(conv)}/var"][units] = 1
        return fresh


def configured(reading):
    config = configs.get_config("smoke")
    config.update_from_flattened_dict(CONFIG | {"reading": reading})
    return config, study.make(config)


@pytest.fixture(scope="module")
def begun(quick_compile):
    """A run of the study before its first step, with backprop."""
    config, made = configured("reference")
    learner, numbers, *_ = made.method(config, "bp")
    return jax.jit(learner.init)(jax.random.key(0), numbers, made.data)


def started(begun, reading):
    """The same with continual backprop, and what takes a step."""
    config, made = configured(reading)
    numbers = made.method(config, "cbp").hparams
    build = learning.problem(made, config, "cbp")
    problem = build(numbers, begun.key_tx, made.data)
    stream, items = problem.stream.draw(begun.stream)
    return types.SimpleNamespace(
        state=begun._replace(stream=stream, opt=problem.tx.init(begun.params)),
        items=items,
        example=problem.stream.example,
        step=jax.jit(lambda state, item: supervised.step(problem, state, item)[0]),
    )


@pytest.mark.parametrize(
    ("reading", "layers"), [("reference", REFERENCE), ("exact", EXACT)]
)
def test_steps(plain, begun, reading, layers):
    """One without replacements, and some with; new units age until they may go too."""
    run = started(begun, reading)
    state = run.state
    weights = flat(state.params)
    sizes = {name: weights[f"{name}/bias"].size for name in layers}
    hand, fresh, numbers = ByHand(layers, sizes, weights, reading == "exact"), [], []
    for i, rate in enumerate(RATES):
        item = jax.tree.map(lambda x, i=i: x[i % 2], run.items)
        x, y = run.example(state.stream, item)
        grads, features, stats = plain(state.params, state.stats, x, y)
        expected, stats = hand.sgd(flat(state.params), flat(grads), rate), flat(stats)
        chosen = hand.choose(expected, {n: np.array(h) for n, h in features.items()})
        state = run.step(state, item)
        found = flat(state.params)
        new = hand.replace(expected, stats, chosen, found)
        assert state.opt.replaced.keys() == layers.keys()
        for name, units in chosen.items():
            np.testing.assert_array_equal(state.opt.replaced[name], units, name)
        for path, weight in expected.items():
            np.testing.assert_allclose(found[path], weight, 1e-4, 2e-5, err_msg=path)
        for path, value in flat(state.stats).items():
            np.testing.assert_allclose(value, stats[path], 1e-4, 2e-5, err_msg=path)
        numbers.append(sum(units.sum() for units in chosen.values()))
        fresh += [
            found[path][where] * np.sqrt(where[..., 0].size / 2)
            for path, where in new.items()
        ]
    assert numbers[0] == 0 and min(numbers[1:]) > 10
    # Drawn from a normal distribution, each anew.
    fresh = np.concatenate(fresh)
    assert len(np.unique(fresh)) > 0.999 * len(fresh) > 10_000
    assert abs(fresh.mean()) < 0.03 and abs(fresh.std() - 1) < 0.03
    assert 3 < abs(fresh).max() < 6
