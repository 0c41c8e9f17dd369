"""Draws the figures of a study of class-incremental CIFAR-100.

python -m experiments.incremental_cifar.plot WORKDIR
"""

import numpy as np
import xarray

from experiments.figures import figures
from loplax.studies import results


def step_ends(dataset: xarray.Dataset, config: dict) -> xarray.Dataset:
    """What there is at the end of each step, over the number of classes then.

    Args:
      dataset: the results, one arm of each method; step ``k``, from 1, has ``k`` bins.
      config: the configuration.

    Returns:
      The bins at which a step ends, and ``relative``: the test accuracy minus that of
      the method that starts anew at every step, if that is there.
    """
    steps = np.arange(1, config["classes"] // config["increment"] + 1)
    dataset = dataset.isel(bin=steps * (steps + 1) // 2 - 1)
    dataset = dataset.assign_coords(step=("bin", steps * config["increment"]))
    retrained = np.flatnonzero(dataset["method"] == "full_reset")
    if retrained.size:
        accuracy = results.counting(dataset, "test_accuracy")
        dataset["relative"] = accuracy - accuracy.isel(arm=retrained[0], drop=True)
    return dataset


FIGURE = figures.Figure(
    "test_accuracy",
    "test accuracy, classes so far",
    "Class-incremental learning",
    higher_is_better=True,
    view=step_ends,
    along="classes",
    about=lambda config: (
        f"{config['dataset']}, {config['increment']} more of {config['classes']} "
        "classes in every step"
    ),
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
