"""Results of a study, made up, to be drawn."""

import numpy as np

from loplax.studies import looks, results

METHODS = ["bp", "cbp", "linear"]
STEPS = [10.0, 20.0, 30.0, 40.0]


def study(methods=METHODS, swept=None, bins=4, seeds=5, subsets=()):
    """Results of some arms, each worse than the last; ``linear`` has no ``dead``."""
    kinds = {name: (np.dtype("float32"), False) for name in ("loss", "dead", "task")}
    kinds["test_loss"] = (np.dtype("float32"), bool(subsets))
    dataset = results.empty(methods, swept or {}, range(seeds), STEPS, kinds, subsets)
    rng = np.random.default_rng(0)
    for arm, method in enumerate(methods):
        level = rng.uniform(size=(seeds, bins)) + 10 * arm
        task = np.broadcast_to([0.0, 0, 1, 2][:bins], level.shape)
        values = {"loss": level, "dead": level / 100, "task": task}
        per_subset = [level + 1000 * i for i in range(len(subsets))] or [level]
        values["test_loss"] = np.stack(per_subset, -1) if subsets else level
        if method == "linear":
            del values["dead"]
        where = (np.full(seeds, arm), np.arange(seeds))
        results.record(dataset, where, 0, values)
    return dataset


def look(dataset, **options):
    return looks.assign(looks.arms(dataset), **options)
